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
    if (type_ == Type::int8) {
      begin_[i] = static_cast<char>(static_cast<int>(x));
      return;
    }
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
    if (type_ == Type::int8) return static_cast<double>(static_cast<signed char>(begin_[i]));
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
  size_t size() const { return type_ == Type::fp32 ? 4 : type_ == Type::bf16 ? 2 : 1; }
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
    const int64_t keys = a.offsets ? queries : a.row_keys ? a.row_keys[row] : a.keys;
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t i = 0; i < queries; i++) {
        const int64_t kh = h / (a.heads / a.kv_heads);
        const int64_t position = a.positions ? a.positions[row * queries + i] : i + keys - queries;
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

Worst attention_worst, cached_worst, norm_worst, linear_worst, codes_worst, coded_worst;

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
  a.coarse = between(0, 2) == 0;
  const bool rounded = a.coarse && level.pairs && a.type == Type::fp32;
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
  // What the products are of: numbers that may be coarse are rounded first.
  const Type read_type = rounded ? Type::bf16 : a.type;
  Numbers queries(read_type, query.count());
  Numbers keys(read_type, joined ? query.count() - key_start : key.count());
  Numbers values(read_type, joined ? query.count() - value_start : value.count());
  const auto read = [](Numbers& to, const Numbers& from, int64_t start) {
    for (int64_t i = 0; i < to.count(); i++) to.set(i, static_cast<float>(from.get(start + i)));
  };
  read(queries, query, 0);
  read(keys, joined ? query : key, joined ? key_start : 0);
  read(values, joined ? query : value, joined ? value_start : 0);
  const std::vector<double> wanted = reference(a, queries, keys, values, masked ? &mask : nullptr);
  double error = 0, size = 1e-3;
  for (int64_t i = 0; i < output.count(); i++) {
    const double difference = std::abs(output.get(i) - wanted[static_cast<size_t>(i)]);
    error = difference <= error ? error : difference;  // NaN too
    size = std::max(size, std::abs(wanted[static_cast<size_t>(i)]));
  }
  attention_worst.add(rounded ? Type::bf16 : a.type, error / size);
  // A score of 256 products, added one after the other, is off by some roundings of fp32, and the softmax repeats that.
  const double bound = a.type == Type::fp32 && !rounded ? 3e-6 : 8e-3;
  char what[300];
  std::snprintf(what, sizeof what,
                "%s attention %d %s: rows %ld heads %ld/%ld queries %ld keys %ld width %ld/%ld segments %ld joined %d "
                "masked %d causal %d window %ld scale %g: error %g",
                level.name, number, a.type == Type::fp32 ? "fp32" : "bf16", a.rows, a.heads, a.kv_heads, a.queries,
                a.keys, a.width, a.value_width, a.segments, joined, masked, a.causal, a.window,
                static_cast<double>(a.scale), error / size);
  expect(error / size <= bound, what);
}

// New tokens into a cache, each row at its own places, and what they see of it.
void cached_case(const Kernels& level, int number) {
  Attention a{};
  a.type = one_of({Type::fp32, Type::bf16});
  a.rows = between(1, 3), a.kv_heads = between(1, 3), a.heads = a.kv_heads * between(1, 5);
  const bool whole = number % 20 == 0;
  const int64_t length = whole ? between(1000, 2600) : one_of<int64_t>({1, 9, 140, between(1, 400)});
  a.queries = std::min(length, one_of<int64_t>({1, 1, 2, between(1, 9), between(1, 70)}));
  a.width = one_of<int64_t>({16, 64, 128, between(1, 256)});
  a.value_width = between(0, 1) ? a.width : between(1, 256);
  a.scale = one_of({1.0f / std::sqrt(static_cast<float>(a.width)), -0.1f});
  a.causal = true;
  a.window = between(0, 1) ? 0 : between(1, length);
  std::vector<int64_t> positions, row_keys;
  // One after the other, or anywhere, and then also twice.
  const bool anywhere = between(0, 4) == 0;
  for (int64_t row = 0; row < a.rows; row++) {
    const int64_t first = whole ? length - a.queries : between(0, length - a.queries);
    int64_t largest = 0;
    for (int64_t i = 0; i < a.queries; i++) {
      positions.push_back(anywhere ? between(0, length - 1) : first + i);
      largest = std::max(largest, positions.back());
    }
    row_keys.push_back(largest + 1);
  }
  a.positions = positions.data(), a.row_keys = row_keys.data();
  a.keys = *std::max_element(row_keys.begin(), row_keys.end());
  // Few queries may read a cache of bf16.
  a.cache_type = few_queries(a) && between(0, 1) ? Type::bf16 : a.type;
  Numbers query(a.type, a.rows * a.heads * a.queries * a.width);
  Numbers key(a.cache_type, a.rows * a.kv_heads * length * a.width);
  Numbers fresh(a.type, a.rows * a.kv_heads * a.queries * a.width);
  Numbers value(a.cache_type, a.rows * a.kv_heads * length * a.value_width);
  Numbers fresh_value(a.type, a.rows * a.kv_heads * a.queries * a.value_width);
  for (Numbers* each : {&query, &key, &fresh, &value, &fresh_value}) each->fill(1.0f);
  a.query = query.data(), a.key = key.data(), a.value = value.data();
  // As heads of one product stand: a token's beside each other.
  a.query_head = a.width, a.query_token = a.heads * a.width, a.query_row = a.queries * a.query_token;
  a.key_token = a.width, a.key_head = length * a.width, a.key_row = a.kv_heads * a.key_head;
  a.value_token = a.value_width, a.value_head = length * a.value_width, a.value_row = a.kv_heads * a.value_head;
  a.mask_type = between(0, 1) ? Type::fp32 : a.type;
  const int64_t mask_keys = between(a.keys, length);
  Numbers mask(a.mask_type, a.rows * a.queries * mask_keys);
  const bool masked = between(0, 2) == 0;
  if (masked) {
    mask.fill(1.0f);
    for (int64_t i = 0; i < mask.count(); i++)
      if (between(0, 3) == 0) mask.set(i, -HUGE_VALF);
    a.mask = mask.data();
    a.mask_key = 1, a.mask_query = mask_keys, a.mask_row = a.queries * mask_keys;
  }
  Numbers output(a.type, a.rows * a.queries * a.heads * a.value_width);
  a.output = output.data();
  a.output_head = a.value_width, a.output_token = a.heads * a.value_width, a.output_row = a.queries * a.output_token;
  bool held = true;
  Numbers written(a.cache_type, 1);
  for (const bool values : {false, true}) {
    Numbers& cache = values ? value : key;
    const Numbers& from = values ? fresh_value : fresh;
    const int64_t width = values ? a.value_width : a.width;
    std::vector<double> wanted;
    for (int64_t i = 0; i < cache.count(); i++) wanted.push_back(cache.get(i));
    CacheWrite w{};
    w.from = from.data(), w.to = cache.data();
    w.from_token = a.kv_heads * width, w.from_head = width, w.from_row = a.queries * w.from_token;
    w.to_token = width, w.to_head = length * width, w.to_row = a.kv_heads * w.to_head;
    w.rows = a.rows, w.heads = a.kv_heads, w.tokens = a.queries, w.width = width;
    w.positions = a.positions, w.element_size = a.cache_type == Type::fp32 ? 4 : 2;
    w.rounded = a.type != a.cache_type;
    write_cache(w, between(0, 1) ? serial : three_threads);
    for (int64_t row = 0; row < a.rows; row++)
      for (int64_t h = 0; h < a.kv_heads; h++)
        for (int64_t i = 0; i < a.queries; i++)
          for (int64_t d = 0; d < width; d++) {
            written.set(0, static_cast<float>(from.get(row * w.from_row + h * w.from_head + i * w.from_token + d)));
            const int64_t place = positions[static_cast<size_t>(row * a.queries + i)];
            wanted[static_cast<size_t>(row * w.to_row + h * w.to_head + place * width + d)] = written.get(0);
          }
    for (int64_t i = 0; i < cache.count(); i++) held = held && cache.get(i) == wanted[static_cast<size_t>(i)];
  }
  expect(held, std::string(level.name) + " writing to a cache, case " + std::to_string(number));
  const int threads = static_cast<int>(between(1, 5));
  attention_cached(level, a, threads, between(0, 1) ? serial : three_threads);
  const std::vector<double> wanted = reference(a, query, key, value, masked ? &mask : nullptr);
  double error = 0, size = 1e-3;
  for (int64_t i = 0; i < output.count(); i++) {
    const double difference = std::abs(output.get(i) - wanted[static_cast<size_t>(i)]);
    error = difference <= error ? error : difference;
    size = std::max(size, std::abs(wanted[static_cast<size_t>(i)]));
  }
  cached_worst.add(a.type, error / size);
  char what[300];
  std::snprintf(what, sizeof what,
                "%s over a cache %d %s: rows %ld heads %ld/%ld queries %ld length %ld keys %ld width %ld/%ld anywhere %d "
                "masked %d window %ld threads %d scale %g: error %g",
                level.name, number, a.type == Type::fp32 ? "fp32" : "bf16", a.rows, a.heads, a.kv_heads, a.queries,
                length, a.keys, a.width, a.value_width, anywhere, masked, a.window, threads,
                static_cast<double>(a.scale), error / size);
  expect(error / size <= (a.type == Type::fp32 ? 2e-6 : 8e-3), what);
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
  const bool coded = n.size <= 64 * 1024 && between(0, 1);
  Numbers codes(Type::int8, n.rows * n.size), scales(Type::fp32, 2 * n.rows);
  if (coded) n.codes = static_cast<uint8_t*>(codes.data()), n.scales = static_cast<float*>(scales.data());
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
      if (!coded || (n.centred && n.size < 8)) continue;
      const double scale = scales.get(2 * row);
      const double meant = (static_cast<double>(n.codes[row * n.size + j]) - scales.get(2 * row + 1)) * scale;
      if (!(std::abs(meant - wanted) <= 0.501 * scale + 1e-5 * std::abs(wanted) + 1e-5)) error = HUGE_VAL;
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

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::gelu: return x * 0.5 * std::erfc(-x * std::sqrt(0.5));
    case Activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::relu: return std::max(x, 0.0);
    case Activation::silu: return x / (1 + std::exp(-x));
    case Activation::tanh: return std::tanh(x);
    case Activation::sigmoid: return 1 / (1 + std::exp(-x));
    case Activation::none: break;
  }
  return x;
}

Activation any_activation() {
  return one_of({Activation::none, Activation::gelu, Activation::gelu_tanh, Activation::relu, Activation::silu,
                 Activation::tanh, Activation::sigmoid});
}

// A packed weight, of which nothing was left unwritten.
void pack_into(const Kernels& level, const Numbers& weight, Type type, int64_t outputs, int64_t inputs,
               Numbers& packed) {
  std::memset(packed.data(), 0x7f, static_cast<size_t>(packed.count()));
  Pack p{};
  p.type = type, p.weight = weight.data(), p.packed = packed.data(), p.outputs = outputs, p.inputs = inputs;
  pack(level.weight_layout, p, between(0, 1) ? serial : three_threads);
}

void linear_case(const Kernels& level, int number) {
  Linear l{};
  l.weight_type = one_of({Type::fp32, Type::bf16, Type::int8});
  l.type = l.weight_type == Type::fp32 ? Type::fp32 : one_of({Type::fp32, Type::bf16});
  const bool coded = l.weight_type == Type::int8;
  l.rows = number % 25 == 0 ? between(90, 300) : one_of<int64_t>({1, 2, 5, 12, between(1, 40)});
  l.inputs = one_of<int64_t>({1, 2, 3, 255, 384, 385, between(1, 300), 64 * between(1, 5)});
  if (number % 25 == 1) l.inputs = between(700, 1700);
  if (number % 25 == 2) l.inputs = 64 * between(9, 40);
  l.outputs = one_of<int64_t>({1, 16, 17, 33, 64, between(1, 130)});
  l.activation = any_activation();
  l.x_row = l.inputs + one_of<int64_t>({0, 0, 5, 40});
  l.output_row = l.outputs;
  l.residual_row = between(0, 3) ? l.outputs + between(0, 2) : 0;
  l.bias_type = between(0, 1) ? Type::fp32 : l.type;
  const int64_t x_row = l.x_row;
  Numbers x(l.type, (l.rows - 1) * x_row + l.inputs), weight(l.weight_type, l.outputs * l.inputs), bias(l.bias_type, l.outputs);
  Numbers residual(l.type, (l.rows - 1) * l.residual_row + l.outputs), output(l.type, l.rows * l.outputs);
  Numbers codes(Type::int8, l.rows * l.inputs), row_scales(Type::fp32, 2 * l.rows), scales(Type::fp32, l.outputs);
  x.fill(1.0f, one_of({0.0f, 0.5f})), bias.fill(1.0f), residual.fill(1.0f);
  weight.fill(coded ? 40.0f : 0.1f);
  for (int64_t i = 0; i < l.outputs; i++) scales.set(i, 0.001f * static_cast<float>(between(1, 5)));
  Numbers packed(Type::int8, packed_bytes(level.weight_layout, l.weight_type, l.outputs, l.inputs));
  pack_into(level, weight, l.weight_type, l.outputs, l.inputs, packed);
  l.x = x.data(), l.weight = packed.data(), l.output = output.data();
  l.bias = between(0, 3) ? bias.data() : nullptr;
  l.residual = between(0, 1) ? residual.data() : nullptr;
  if (coded) {
    Quantise q{};
    q.type = l.type, q.x = x.data(), q.x_row = l.x_row, q.rows = l.rows, q.size = l.inputs;
    q.codes = static_cast<uint8_t*>(codes.data()), q.scales = static_cast<float*>(row_scales.data());
    quantise(level, q, between(0, 1) ? serial : three_threads);
    l.x = codes.data(), l.x_row = l.inputs, l.row_scales = q.scales;
    l.weight_scales = static_cast<const float*>(scales.data());
  }
  linear(level, l, 3, between(0, 1) ? serial : three_threads);
  double error = 0, size = 1e-3;
  for (int64_t i = 0; i < l.rows; i++)
    for (int64_t n = 0; n < l.outputs; n++) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < l.inputs; k++) {
        double number_at = 0;
        if (coded) {
          const int code = static_cast<const uint8_t*>(codes.data())[i * l.inputs + k];
          number_at = (code - row_scales.get(2 * i + 1)) * row_scales.get(2 * i);
          const double given = x.get(i * x_row + k);
          if (!(std::abs(number_at - given) <= 0.501 * row_scales.get(2 * i))) error = HUGE_VAL;
        } else {
          number_at = x.get(i * l.x_row + k);
        }
        sum += number_at * weight.get(n * l.inputs + k) * (coded ? scales.get(n) : 1.0);
        magnitude += std::abs(number_at * weight.get(n * l.inputs + k)) * (coded ? scales.get(n) : 1.0);
      }
      const double wanted = activated(l.activation, sum + (l.bias ? bias.get(n) : 0)) +
                            (l.residual ? residual.get(i * l.residual_row + n) : 0);
      const double difference = std::abs(output.get(i * l.outputs + n) - wanted);
      error = difference <= error ? error : difference;
      size = std::max({size, std::abs(wanted), magnitude});
    }
  // Products of bf16 pairs round inputs of fp32.
  const bool halves = l.type == Type::bf16 || (l.weight_type == Type::bf16 && level.pairs);
  (coded ? codes_worst : linear_worst).add(halves ? Type::bf16 : Type::fp32, error / size);
  char what[300];
  std::snprintf(what, sizeof what,
                "%s linear %d type %d weight %d: rows %ld inputs %ld outputs %ld activation %d bias %d residual %d: "
                "error %g",
                level.name, number, static_cast<int>(l.type), static_cast<int>(l.weight_type), l.rows, l.inputs,
                l.outputs, static_cast<int>(l.activation), l.bias != nullptr, l.residual != nullptr, error / size);
  expect(error / size <= (halves ? 8e-3 : 2e-6), what);
}

void gated_case(const Kernels& level, int number) {
  Gated g{};
  g.type = one_of({Type::fp32, Type::bf16});
  g.rows = one_of<int64_t>({1, 2, between(1, 40)});
  g.size = one_of<int64_t>({1, 15, 16, 17, 384, between(1, 100)});
  g.x_row = 2 * g.size + one_of<int64_t>({0, 0, 5});
  g.activation = any_activation();
  Numbers x(g.type, (g.rows - 1) * g.x_row + 2 * g.size), output(g.type, g.rows * g.size);
  x.fill(2.0f);
  g.x = x.data(), g.output = output.data();
  gated(level, g, between(0, 1) ? serial : three_threads);
  double error = 0, size = 1e-3;
  for (int64_t i = 0; i < output.count(); i++) {
    const int64_t at = i / g.size * g.x_row + i % g.size;
    const double gate = x.get(at), factor = x.get(at + g.size);
    const double wanted = activated(g.activation, gate) * factor;
    error = std::max(error, std::abs(output.get(i) - wanted));
    // Of what is multiplied too: the activation of one number may be next to nothing.
    size = std::max({size, std::abs(gate * factor), std::abs(wanted)});
  }
  char what[200];
  std::snprintf(what, sizeof what, "%s gated %d: type %d rows %ld size %ld activation %d: error %g", level.name, number,
                static_cast<int>(g.type), g.rows, g.size, static_cast<int>(g.activation), error / size);
  expect(error / size <= (g.type == Type::fp32 ? 2e-6 : 8e-3), what);
}

// Products of codes are whole numbers: exact, and so the same on every level, up to the largest sum there is.
void exact_case(int number) {
  const bool extreme = number % 4 == 0;
  Linear l{};
  l.type = Type::fp32, l.weight_type = Type::int8;
  l.rows = between(1, 14), l.outputs = between(1, 40), l.inputs = 64 * between(1, 20);
  if (extreme) l.inputs = 65536 - between(0, 2);
  if (number % 4 == 1) l.inputs = between(1, 900);
  l.x_row = l.inputs, l.output_row = l.outputs;
  Numbers x(Type::int8, l.rows * l.inputs), weight(Type::int8, l.outputs * l.inputs);
  Numbers row_scales(Type::fp32, 2 * l.rows), scales(Type::fp32, l.outputs), output(Type::fp32, l.rows * l.outputs);
  uint8_t* codes = static_cast<uint8_t*>(x.data());
  for (int64_t i = 0; i < x.count(); i++) codes[i] = static_cast<uint8_t>(extreme ? 255 : between(0, 255));
  const int64_t sign = between(0, 1) ? 127 : -127;
  for (int64_t i = 0; i < weight.count(); i++)
    weight.set(i, static_cast<float>(extreme ? sign : between(-127, 127)));
  for (int64_t i = 0; i < l.rows; i++) {
    row_scales.set(2 * i, 1.0f);
    row_scales.set(2 * i + 1, static_cast<float>(extreme ? 0 : between(0, 255)));
  }
  for (int64_t i = 0; i < l.outputs; i++) scales.set(i, 1.0f);
  l.x = codes, l.output = output.data(), l.row_scales = static_cast<const float*>(row_scales.data());
  l.weight_scales = static_cast<const float*>(scales.data());
  for (int i = 0; i < available_levels(); i++) {
    const Kernels& level = *all_levels()[i];
    Numbers packed(Type::int8, packed_bytes(level.weight_layout, Type::int8, l.outputs, l.inputs));
    pack_into(level, weight, Type::int8, l.outputs, l.inputs, packed);
    l.weight = packed.data();
    linear(level, l, 1, serial);
    bool held = true;
    for (int64_t row = 0; row < l.rows; row++)
      for (int64_t n = 0; n < l.outputs; n++) {
        int64_t sum = 0;
        const int64_t zero = static_cast<int64_t>(row_scales.get(2 * row + 1));
        for (int64_t k = 0; k < l.inputs; k++)
          sum += (codes[row * l.inputs + k] - zero) * static_cast<int64_t>(weight.get(n * l.inputs + k));
        held = held && output.get(row * l.outputs + n) == static_cast<double>(static_cast<float>(sum));
      }
    expect(held, std::string(level.name) + " exact sums of codes, case " + std::to_string(number));
  }
}

// fp16 of numbers that it has exactly.
uint16_t fp16(double x) {
  if (x == 0) return 0;
  // The smallest ones have the exponent of the smallest normal one, and fewer digits.
  const int exponent = std::max(std::ilogb(x), -14);
  const long digits = std::lround(std::ldexp(std::abs(x), 10 - exponent));
  return static_cast<uint16_t>((x < 0 ? 0x8000 : 0) | (digits < 1024 ? 0 : (exponent + 15) << 10) | (digits & 1023));
}

// A weight of codes in panels, which all end where their memory ends, and the numbers that they stand for.
struct CodedNumbers {
  CodedWeight weight{};
  Numbers codes, scales, zeros, output_scales;
  std::vector<double> numbers;  // [outputs, inputs]

  static int64_t panels(int64_t outputs) { return (outputs + code_columns - 1) / code_columns; }

  CodedNumbers(int bits, int64_t outputs, int64_t inputs, int64_t group)
      : codes(Type::int8, panels(outputs) * code_columns * (bits == 8 ? inputs : (inputs + 7) / 8 * 4)),
        scales(Type::bf16, bits == 8 ? 0 : panels(outputs) * code_columns * ((inputs + group - 1) / group)),
        zeros(Type::bf16, scales.count()),
        output_scales(Type::fp32, outputs),
        numbers(static_cast<size_t>(outputs * inputs)) {
    const int64_t groups = (inputs + group - 1) / group;
    uint8_t* bytes = static_cast<uint8_t*>(codes.data());
    for (int64_t i = 0; i < codes.count(); i++) bytes[i] = static_cast<uint8_t>(between(0, 255));
    for (int64_t i = 0; i < outputs; i++) output_scales.set(i, 0.001f * static_cast<float>(between(1, 9)));
    uint16_t *group_scales = static_cast<uint16_t*>(scales.data()), *group_zeros = static_cast<uint16_t*>(zeros.data());
    std::vector<double> scale(static_cast<size_t>(scales.count())), zero(scale.size());
    for (size_t i = 0; i < scale.size(); i++) {
      scale[i] = std::ldexp(static_cast<double>(between(1, 2047)), -17);
      zero[i] = static_cast<double>(between(-100, 1100)) / 64;
      group_scales[i] = fp16(scale[i]), group_zeros[i] = fp16(zero[i]);
    }
    for (int64_t n = 0; n < outputs; n++)
      for (int64_t k = 0; k < inputs; k++) {
        const int64_t panel = n / code_columns, c = n % code_columns;
        double& number = numbers[static_cast<size_t>(n * inputs + k)];
        if (bits == 8) {
          number = static_cast<double>(static_cast<int8_t>(bytes[(panel * inputs + k) * code_columns + c])) *
                   output_scales.get(n);
        } else {
          const uint8_t pair = bytes[((panel * ((inputs + 7) / 8) + k / 8) * code_columns + c) * 4 + k % 8 / 2];
          const size_t at = static_cast<size_t>((panel * groups + k / group) * code_columns + c);
          number = (static_cast<double>(k % 2 ? pair >> 4 : pair & 15) - zero[at]) * scale[at];
        }
      }
    weight = {codes.data(), bits, group_scales, group_zeros, group};
  }
};

// Weights of codes: right, and the same numbers however many rows and threads there are. In tile registers, which many
// rows go through: nearly the same.
void coded_case(const Kernels& level, int number) {
  Linear l{};
  l.type = one_of({Type::fp32, Type::bf16});
  const int bits = one_of({8, 4});
  const int64_t group = one_of<int64_t>({32, 64, 128});
  l.rows = number % 25 == 0 ? between(90, 300) : one_of<int64_t>({1, 2, 3, 12, 24, between(1, 40)});
  l.inputs = number % 25 == 1 ? between(700, 1700) : one_of<int64_t>({1, 2, 3, 33, 255, 384, 385, between(1, 300)});
  if (number % 5 == 0) l.rows = between(24, 90);
  l.outputs = one_of<int64_t>({1, 31, 32, 33, 64, 100, between(1, 400)});
  l.activation = any_activation();
  l.x_row = l.inputs + one_of<int64_t>({0, 0, 5});
  l.output_row = l.outputs;
  l.residual_row = between(0, 3) ? l.outputs + between(0, 2) : 0;
  l.bias_type = between(0, 1) ? Type::fp32 : l.type;
  Numbers x(l.type, (l.rows - 1) * l.x_row + l.inputs), bias(l.bias_type, l.outputs);
  Numbers residual(l.type, (l.rows - 1) * l.residual_row + l.outputs);
  Numbers output(l.type, l.rows * l.outputs), alone(l.type, l.outputs);
  x.fill(1.0f, one_of({0.0f, 0.5f})), bias.fill(1.0f), residual.fill(1.0f);
  const CodedNumbers coded(bits, l.outputs, l.inputs, group);
  l.x = x.data(), l.output = output.data();
  l.bias = between(0, 3) ? bias.data() : nullptr;
  l.residual = between(0, 1) ? residual.data() : nullptr;
  if (bits == 8) l.weight_scales = static_cast<const float*>(coded.output_scales.data());
  linear_codes(level, l, coded.weight, between(0, 1) ? serial : three_threads);
  double error = 0, size = 1e-3;
  for (int64_t i = 0; i < l.rows; i++)
    for (int64_t n = 0; n < l.outputs; n++) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < l.inputs; k++) {
        const double product = x.get(i * l.x_row + k) * coded.numbers[static_cast<size_t>(n * l.inputs + k)];
        sum += product;
        magnitude += std::abs(product);
      }
      const double wanted = activated(l.activation, sum + (l.bias ? bias.get(n) : 0)) +
                            (l.residual ? residual.get(i * l.residual_row + n) : 0);
      const double difference = std::abs(output.get(i * l.outputs + n) - wanted);
      error = difference <= error ? error : difference;
      size = std::max({size, std::abs(wanted), magnitude});
    }
  coded_worst.add(l.type, error / size);
  char what[300];
  std::snprintf(what, sizeof what,
                "%s linear of codes %d type %d bits %d group %ld: rows %ld inputs %ld outputs %ld activation %d bias %d "
                "residual %d: error %g",
                level.name, number, static_cast<int>(l.type), bits, group, l.rows, l.inputs, l.outputs,
                static_cast<int>(l.activation), l.bias != nullptr, l.residual != nullptr, error / size);
  expect(error / size <= (l.type == Type::bf16 ? 8e-3 : 2e-6), what);
  const int64_t bytes = l.type == Type::fp32 ? 4 : 2, rows = l.rows;
  l.rows = 1, l.output = alone.data();
  for (int64_t i = 0; i < rows; i += between(1, 9)) {
    l.x = static_cast<char*>(x.data()) + i * l.x_row * bytes;
    if (l.residual) l.residual = static_cast<char*>(residual.data()) + i * l.residual_row * bytes;
    linear_codes(level, l, coded.weight, serial);
    bool same = std::memcmp(alone.data(), static_cast<char*>(output.data()) + i * l.outputs * bytes,
                            static_cast<size_t>(l.outputs * bytes)) == 0;
    if (level.tiles && !same) {
      same = true;
      const double bound = (l.type == Type::bf16 ? 8e-3 : 4e-6) * size;
      for (int64_t n = 0; n < l.outputs; n++)
        same = same && std::abs(alone.get(n) - output.get(i * l.outputs + n)) <= bound;
    }
    expect(same,
           std::string(what) + ": row " + std::to_string(i) + " alone is different");
  }
}

// Rows of a table of codes: one product, so exact.
void look_up_case(int number) {
  const int64_t rows = between(1, 100), size = between(1, 70), count = between(0, 40);
  const CodedNumbers table(8, rows, size, 32);
  std::vector<int64_t> wanted(static_cast<size_t>(count));
  for (int64_t& row : wanted) row = between(0, rows - 1);
  Numbers output(Type::fp32, count * size);
  look_up({wanted.data(), count, size, static_cast<const int8_t*>(table.codes.data()),
           static_cast<const float*>(table.output_scales.data()), static_cast<float*>(output.data())},
          between(0, 1) ? serial : three_threads);
  bool held = true;
  for (int64_t i = 0; i < count; i++)
    for (int64_t k = 0; k < size; k++)
      held = held && output.get(i * size + k) ==
                         static_cast<double>(static_cast<float>(
                             table.numbers[static_cast<size_t>(wanted[static_cast<size_t>(i)] * size + k)]));
  expect(held, "rows of a table of codes, case " + std::to_string(number));
}

// Rows that have no usable scale.
void odd_rows(const Kernels& level) {
  constexpr int64_t size = 37;
  Numbers x(Type::fp32, 5 * size), scales(Type::fp32, 10), codes(Type::int8, 5 * size);
  x.fill(1.0f);
  for (int64_t j = 0; j < size; j++) x.set(j, 0.0f), x.set(3 * size + j, 5.0f);
  x.set(size + 36, NAN), x.set(2 * size + 1, -HUGE_VALF);
  for (int64_t j = 0; j < size; j++) x.set(4 * size + j, 1e-38f);
  Quantise q{};
  q.type = Type::fp32, q.x = x.data(), q.x_row = size, q.rows = 5, q.size = size;
  q.codes = static_cast<uint8_t*>(codes.data()), q.scales = static_cast<float*>(scales.data());
  quantise(level, q, serial);
  expect(scales.get(0) > 0 && scales.get(1) == 0 && q.codes[0] == 0, std::string(level.name) + " codes of zeros");
  expect(std::isnan(scales.get(2)) && std::isnan(scales.get(4)), std::string(level.name) + " codes of NaN, infinity");
  expect(std::abs(scales.get(6) * 255 - 5) < 1e-5 && scales.get(7) == 0 && q.codes[3 * size] == 255,
         std::string(level.name) + " codes of equal numbers");
  expect(scales.get(8) > 0 && q.codes[4 * size] == 0, std::string(level.name) + " codes of tiny numbers");
}

}  // namespace

int main(int count, char** arguments) {
  const int cases = count > 1 ? std::atoi(arguments[1]) : 400;
  const unsigned seed = count > 2 ? static_cast<unsigned>(std::atoi(arguments[2])) : 7;
  for (int i = 0; i < available_levels(); i++) {
    const Kernels& level = *all_levels()[i];
    random_bits.seed(seed);
    attention_worst = cached_worst = norm_worst = linear_worst = codes_worst = coded_worst = Worst();
    exponential_case(level);
    odd_rows(level);
    for (int number = 0; number < cases; number++) {
      attention_case(level, number);
      cached_case(level, number);
      norm_case(level, number);
      linear_case(level, number);
      coded_case(level, number);
      look_up_case(number);
    }
    for (int number = 0; number < cases; number++) gated_case(level, number);
    std::printf("%s: %d cases each, worst error attention fp32 %.1e bf16 %.1e, over a cache fp32 %.1e bf16 %.1e, norm fp32 %.1e bf16 %.1e, linear fp32 "
                "%.1e bf16 %.1e, on codes fp32 %.1e bf16 %.1e, of codes fp32 %.1e bf16 %.1e\n",
                level.name, cases, attention_worst.fp32, attention_worst.bf16, cached_worst.fp32, cached_worst.bf16,
                norm_worst.fp32, norm_worst.bf16, linear_worst.fp32, linear_worst.bf16, codes_worst.fp32,
                codes_worst.bf16, coded_worst.fp32, coded_worst.bf16);
  }
  random_bits.seed(seed);
  for (int number = 0; number < std::min(cases, 40); number++) exact_case(number);
  std::printf(failures ? "%d failures\n" : "all held\n", failures);
  return failures ? 1 : 0;
}
