// The kernels alone, without libtorch: every level that the processor has, against sums in double, over random shapes.
// Inputs end where their memory ends (a page that may not be touched follows), so that reading beyond one is a crash,
// with and without AddressSanitizer.
//
//   kernel-tests [CASES] [SEED]
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "kernels.h"

using namespace em_native;

namespace {

std::mt19937 random_bits;

int64_t between(int64_t low, int64_t high) {
  return low + static_cast<int64_t>(random_bits() % static_cast<uint64_t>(high - low + 1));
}

template <typename T>
T one_of(std::initializer_list<T> all) {
  return *(all.begin() + between(0, static_cast<int64_t>(all.size()) - 1));
}

// Numbers of either type whose last byte is the last of a page.
class Numbers {
 public:
  Numbers(Type type, int64_t count) : type_(type), count_(count) {
    const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    const size_t bytes = static_cast<size_t>(count) * size();
    usable_ = (bytes + page - 1) / page * page;
    memory_ = static_cast<char*>(
        mmap(nullptr, usable_ + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (memory_ == MAP_FAILED || mprotect(memory_ + usable_, page, PROT_NONE) != 0) {
      std::perror("mmap");
      std::exit(2);
    }
    begin_ = memory_ + usable_ - bytes;
    total_ = usable_ + page;
  }
  Numbers(const Numbers&) = delete;
  Numbers& operator=(const Numbers&) = delete;
  ~Numbers() { munmap(memory_, total_); }

  void fill(float width, float middle = 0.0f) {
    std::normal_distribution<float> normal(middle, width);
    for (int64_t i = 0; i < count_; i++) set(i, normal(random_bits));
  }
  void set(int64_t i, float x) {
    if (type_ == Type::fp32) {
      std::memcpy(begin_ + i * 4, &x, 4);
      return;
    }
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    const uint16_t half = static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
    std::memcpy(begin_ + i * 2, &half, 2);
  }
  double get(int64_t i) const {
    if (i < 0 || i >= count_) {
      std::fprintf(stderr, "the test itself reads beyond an input\n");
      std::exit(2);
    }
    float x;
    if (type_ == Type::fp32) {
      std::memcpy(&x, begin_ + i * 4, 4);
    } else {
      uint16_t half;
      std::memcpy(&half, begin_ + i * 2, 2);
      const uint32_t bits = static_cast<uint32_t>(half) << 16;
      std::memcpy(&x, &bits, 4);
    }
    return static_cast<double>(x);
  }
  void* data() const { return begin_; }
  int64_t count() const { return count_; }

 private:
  size_t size() const { return type_ == Type::fp32 ? 4 : 2; }
  Type type_;
  int64_t count_;
  size_t usable_, total_;
  char *memory_, *begin_;
};

void serial(int64_t begin, int64_t end, int64_t, Body body, void* context) {
  if (begin < end) body(context, begin, end);
}

// Threads of their own for each call, each with its own share.
void three_threads(int64_t begin, int64_t end, int64_t, Body body, void* context) {
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < 3; i++) {
    const int64_t from = begin + (end - begin) * i / 3, to = begin + (end - begin) * (i + 1) / 3;
    if (from < to) threads.emplace_back([=] { body(context, from, to); });
  }
  for (std::thread& thread : threads) thread.join();
}

int failures = 0;

void expect(bool held, const std::string& what) {
  if (held) return;
  failures++;
  std::printf("FAILED %s\n", what.c_str());
}

struct Worst {
  double fp32 = 0, bf16 = 0;
  void add(Type type, double error) {
    double& worst = type == Type::fp32 ? fp32 : bf16;
    worst = std::max(worst, error);
  }
};

// What attention should give, in double: [rows][query][head][column].
std::vector<double> reference(const Attention& a, const Numbers& query, const Numbers& key, const Numbers& value,
                              const Numbers* mask) {
  std::vector<double> result(static_cast<size_t>(a.rows * a.queries * a.heads * a.value_width), 0.0);
  const int64_t segments = a.offsets ? a.segments : a.rows;
  for (int64_t s = 0; s < segments; s++) {
    const int64_t row = a.offsets ? 0 : s, start = a.offsets ? a.offsets[s] : 0;
    const int64_t queries = a.offsets ? a.offsets[s + 1] - start : a.queries;
    const int64_t keys = a.offsets ? queries : a.keys;
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t i = 0; i < queries; i++) {
        const int64_t kh = h / (a.heads / a.kv_heads), position = i + keys - queries;
        std::vector<double> scores(static_cast<size_t>(keys), -HUGE_VAL);
        double top = -HUGE_VAL;
        for (int64_t j = 0; j < keys; j++) {
          if (a.causal && j > position) continue;
          if (a.window > 0 && (position - j >= a.window || (!a.causal && j - position >= a.window))) continue;
          double sum = 0;
          for (int64_t d = 0; d < a.width; d++)
            sum += query.get(row * a.query_row + h * a.query_head + (start + i) * a.query_token + d) *
                   key.get(row * a.key_row + kh * a.key_head + (start + j) * a.key_token + d);
          sum *= static_cast<double>(a.scale);
          if (mask) sum += mask->get(row * a.mask_row + h * a.mask_head + i * a.mask_query + j * a.mask_key);
          scores[static_cast<size_t>(j)] = sum;
          top = std::max(top, sum);
        }
        if (top == -HUGE_VAL) continue;
        double total = 0;
        double* out = result.data() + ((row * a.queries + start + i) * a.heads + h) * a.value_width;
        for (int64_t j = 0; j < keys; j++) {
          const double p = std::exp(scores[static_cast<size_t>(j)] - top);
          if (p == 0) continue;
          total += p;
          for (int64_t c = 0; c < a.value_width; c++)
            out[c] += p * value.get(row * a.value_row + kh * a.value_head + (start + j) * a.value_token + c);
        }
        for (int64_t c = 0; c < a.value_width; c++) out[c] /= total;
      }
  }
  return result;
}

Worst attention_worst, norm_worst;

void attention_case(const Kernels& level, int number) {
  Attention a{};
  a.type = one_of({Type::fp32, Type::bf16});
  const bool joined = between(0, 1) == 0, segmented = between(0, 2) == 0;
  a.kv_heads = between(1, 3);
  a.heads = a.kv_heads * (joined ? 1 : between(1, 3));
  a.rows = segmented ? 1 : between(1, 2);
  const int64_t longest = number % 40 == 0 ? 2500 : one_of<int64_t>({3, 40, 150});
  a.queries = between(1, number % 40 == 0 ? 60 : longest);
  a.keys = joined || segmented ? a.queries : between(0, longest);
  a.width = one_of<int64_t>({16, 32, 64, 128, 256, between(1, 256)});
  a.value_width = joined || between(0, 1) ? a.width : between(1, 256);
  std::vector<int64_t> offsets{0};
  if (segmented) {
    while (between(0, 3) && offsets.back() < a.queries)
      offsets.push_back(between(0, 3) ? between(offsets.back(), a.queries) : offsets.back());
    a.offsets = offsets.data();
    a.segments = static_cast<int64_t>(offsets.size()) - 1;
  }
  a.scale = one_of({1.0f / std::sqrt(static_cast<float>(a.width)), 0.0f, -0.1f});
  a.causal = between(0, 1);
  a.window = between(0, 1) ? 0 : between(1, a.queries + a.keys);
  // Views of one joined product, or three tensors.
  const int64_t width = a.heads * a.width;
  Numbers query(a.type, a.rows * a.queries * width * (joined ? 3 : 1));
  Numbers key(a.type, joined ? 0 : a.rows * a.keys * a.kv_heads * a.width);
  Numbers value(a.type, joined ? 0 : a.rows * a.keys * a.kv_heads * a.value_width);
  query.fill(1.0f), key.fill(1.0f), value.fill(1.0f);
  const int64_t bytes = a.type == Type::fp32 ? 4 : 2;
  a.query = query.data(), a.query_head = a.width;
  a.query_token = joined ? 3 * width : width, a.query_row = a.queries * a.query_token;
  a.key = key.data(), a.key_head = a.width, a.key_token = a.kv_heads * a.width, a.key_row = a.keys * a.key_token;
  a.value = value.data(), a.value_head = a.value_width;
  a.value_token = a.kv_heads * a.value_width, a.value_row = a.keys * a.value_token;
  if (joined) {
    a.key = static_cast<char*>(query.data()) + width * bytes;
    a.value = static_cast<char*>(query.data()) + 2 * width * bytes;
    a.key_head = a.value_head = a.query_head;
    a.key_token = a.value_token = a.query_token;
    a.key_row = a.value_row = a.query_row;
  }
  a.mask_type = between(0, 1) ? Type::fp32 : a.type;
  const int64_t axes[] = {a.offsets || between(0, 1) ? 1 : a.rows, between(0, 1) ? 1 : a.heads,
                          between(0, 1) ? 1 : a.queries, between(0, 3) == 0 ? 1 : std::max<int64_t>(a.keys, 1)};
  Numbers mask(a.mask_type, axes[0] * axes[1] * axes[2] * axes[3]);
  const bool masked = between(0, 1);
  if (masked) {
    mask.fill(1.0f);
    const float least = a.mask_type == Type::fp32 ? -3.4028235e38f : -3.3895314e38f;
    for (int64_t i = 0; i < mask.count(); i++)
      if (between(0, 3) == 0) mask.set(i, one_of({least, -HUGE_VALF}));
    a.mask = mask.data();
    a.mask_key = axes[3] == 1 ? 0 : 1;
    a.mask_query = axes[2] == 1 ? 0 : axes[3];
    a.mask_head = axes[1] == 1 ? 0 : axes[2] * axes[3];
    a.mask_row = axes[0] == 1 ? 0 : axes[1] * axes[2] * axes[3];
  }
  Numbers output(a.type, a.rows * a.queries * a.heads * a.value_width);
  for (int64_t i = 0; i < output.count(); i++) output.set(i, 0.0f);
  a.output = output.data();
  a.output_head = a.value_width, a.output_token = a.heads * a.value_width, a.output_row = a.queries * a.output_token;
  attention(level, a, 3, between(0, 1) ? serial : three_threads);
  // A joined product is one tensor for the reference too.
  const int64_t key_start = joined ? width : 0, value_start = joined ? 2 * width : 0;
  std::vector<double> wanted;
  if (joined) {
    Numbers keys(a.type, query.count() - key_start), values(a.type, query.count() - value_start);
    std::memcpy(keys.data(), a.key, static_cast<size_t>(keys.count() * bytes));
    std::memcpy(values.data(), a.value, static_cast<size_t>(values.count() * bytes));
    wanted = reference(a, query, keys, values, masked ? &mask : nullptr);
  } else {
    wanted = reference(a, query, key, value, masked ? &mask : nullptr);
  }
  double error = 0, size = 1e-3;
  for (int64_t i = 0; i < output.count(); i++) {
    const double difference = std::abs(output.get(i) - wanted[static_cast<size_t>(i)]);
    error = difference <= error ? error : difference;  // NaN too
    size = std::max(size, std::abs(wanted[static_cast<size_t>(i)]));
  }
  attention_worst.add(a.type, error / size);
  const double bound = a.type == Type::fp32 ? 2e-6 : 8e-3;
  char what[300];
  std::snprintf(what, sizeof what,
                "%s attention %d %s: rows %ld heads %ld/%ld queries %ld keys %ld width %ld/%ld segments %ld joined %d "
                "masked %d causal %d window %ld scale %g: error %g",
                level.name, number, a.type == Type::fp32 ? "fp32" : "bf16", a.rows, a.heads, a.kv_heads, a.queries,
                a.keys, a.width, a.value_width, a.segments, joined, masked, a.causal, a.window,
                static_cast<double>(a.scale), error / size);
  expect(error / size <= bound, what);
}

void norm_case(const Kernels& level, int number) {
  Norm n{};
  n.type = one_of({Type::fp32, Type::bf16});
  n.weight_type = between(0, 1) ? Type::fp32 : n.type;
  n.size = number % 50 == 0 ? 70000 : one_of<int64_t>({384, 768, between(1, 40), between(1, 3000)});
  n.rows = between(0, 5);
  n.epsilon = one_of({1e-12f, 1e-5f});
  n.centred = between(0, 1);
  Numbers x(n.type, n.rows * n.size), residual(n.type, n.rows * n.size), weight(n.weight_type, n.size);
  Numbers bias(n.weight_type, n.size), output(n.type, n.rows * n.size), sum(n.type, n.rows * n.size);
  const float middle = one_of({0.0f, 3.0f});
  x.fill(1.0f, middle), residual.fill(1.0f), weight.fill(1.0f), bias.fill(1.0f);
  n.x = x.data(), n.output = output.data();
  n.residual = between(0, 3) ? residual.data() : nullptr;
  n.weight = between(0, 3) ? weight.data() : nullptr;
  n.bias = n.centred && between(0, 3) ? bias.data() : nullptr;
  n.sum = between(0, 1) ? sum.data() : nullptr;
  norm(level, n, between(0, 1) ? serial : three_threads);
  double error = 0, size = 1e-3;
  for (int64_t row = 0; row < n.rows; row++) {
    std::vector<double> v(static_cast<size_t>(n.size));
    double mean = 0, variance = 0;
    for (int64_t j = 0; j < n.size; j++) {
      double& here = v[static_cast<size_t>(j)];
      here = x.get(row * n.size + j) + (n.residual ? residual.get(row * n.size + j) : 0);
      if (n.sum && std::abs(sum.get(row * n.size + j) - here) > 4e-3 * std::abs(here) + 1e-30) error = HUGE_VAL;
      mean += here;
    }
    mean = n.centred ? mean / static_cast<double>(n.size) : 0;
    for (const double here : v) variance += (here - mean) * (here - mean);
    // One number is its own mean: nothing is left, whatever epsilon is.
    const double factor = 1 / std::sqrt(variance / static_cast<double>(n.size) + static_cast<double>(n.epsilon));
    for (int64_t j = 0; j < n.size; j++) {
      double wanted = (v[static_cast<size_t>(j)] - mean) * factor;
      if (n.weight) wanted *= weight.get(j);
      if (n.bias) wanted += bias.get(j);
      const double difference = std::abs(output.get(row * n.size + j) - wanted);
      error = difference <= error ? error : difference;
      size = std::max(size, std::abs(wanted));
    }
  }
  // A row of few numbers may have nearly no variance, and then every rounding counts.
  if (n.centred && n.size < 8) return;
  norm_worst.add(n.type, error / size);
  char what[200];
  std::snprintf(what, sizeof what, "%s norm %d %s: rows %ld size %ld centred %d: error %g", level.name, number,
                n.type == Type::fp32 ? "fp32" : "bf16", n.rows, n.size, n.centred, error / size);
  expect(error / size <= (n.type == Type::fp32 ? 2e-6 : 4.5e-3), what);
}

// exp over all that softmax asks of it, in units of the last place.
void exponential_case(const Kernels& level) {
  constexpr int64_t count = 200003;
  std::vector<float> from(count), fine(count), coarse(count);
  for (int64_t i = 0; i < count; i++) from[static_cast<size_t>(i)] = -87.0f * static_cast<float>(i) / count;
  level.exponential(from.data(), fine.data(), count, false);
  level.exponential(from.data(), coarse.data(), count, true);
  double units = 0, relative = 0;
  for (size_t i = 0; i < from.size(); i++) {
    const double wanted = std::exp(static_cast<double>(from[i]));
    const double unit = std::ldexp(1.0, std::ilogb(wanted) - 23);
    units = std::max(units, std::abs(static_cast<double>(fine[i]) - wanted) / unit);
    relative = std::max(relative, std::abs(static_cast<double>(coarse[i]) / wanted - 1));
  }
  std::printf("%s: exp is wrong by at most %.2f units in the last place; the coarse one by %.1e\n", level.name, units,
              relative);
  expect(units <= 1.5, std::string(level.name) + " exp");
  expect(relative <= 2e-4, std::string(level.name) + " coarse exp");
  const float odd[] = {-HUGE_VALF, -3.4028235e38f, -1000.0f, NAN, 0.0f};
  float found[5];
  for (const bool is_coarse : {false, true}) {
    level.exponential(odd, found, 5, is_coarse);
    expect(found[0] == 0 && found[1] == 0 && found[2] == 0 && std::isnan(found[3]) && std::abs(found[4] - 1) < 1e-3f,
           std::string(level.name) + " exp of numbers out of range");
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 400;
  const unsigned seed = count > 2 ? static_cast<unsigned>(std::atoi(arguments[2])) : 7;
  for (int i = 0; i < available_levels(); i++) {
    const Kernels& level = *all_levels()[i];
    random_bits.seed(seed);
    attention_worst = norm_worst = Worst();
    exponential_case(level);
    for (int number = 0; number < cases; number++) {
      attention_case(level, number);
      norm_case(level, number);
    }
    std::printf("%s: %d cases each, worst error attention fp32 %.1e bf16 %.1e, norm fp32 %.1e bf16 %.1e\n", level.name,
                cases, attention_worst.fp32, attention_worst.bf16, norm_worst.fp32, norm_worst.bf16);
  }
  std::printf(failures ? "%d failures\n" : "all held\n", failures);
  return failures ? 1 : 0;
}
