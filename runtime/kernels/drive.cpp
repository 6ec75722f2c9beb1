// Cuts a call into tasks and hands them to the threads. Compiled for every x86-64.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels.h"

namespace em_native {
namespace {

// Below this many multiplications per thread a call is faster on one thread than woken on two.
constexpr double least_work = 2e5;
// The same for a norm, in elements.
constexpr int64_t least_elements = 16 * 1024;
// Shares per thread if tasks must be cut: enough to even out, few enough that keys are seldom packed twice.
constexpr int64_t shares = 4;

struct AttentionCall {
  const Kernels& kernels;
  const Attention& attention;
  AttentionPlan plan;
};

// Up to so many queries that share keys, these are read as they are; more are worth packing the keys.
constexpr int64_t few_lines = 24;
// Keys that are read by one thread. The same for every call, so that an answer depends on neither the threads nor the
// other rows.
constexpr int64_t part_keys = 256;
// Bytes that one thread copies faster than two are woken.
constexpr int64_t least_bytes = 64 * 1024;

struct PartsCall {
  const Kernels& kernels;
  const Attention& attention;
  PartsPlan plan;
};

struct LinearCall {
  const Kernels& kernels;
  const Linear& linear;
  LinearPlan plan;
};

struct CodedCall {
  const Kernels& kernels;
  const Linear& linear;
  const CodedWeight& weight;
  LinearPlan plan;
};

struct PackCall {
  const WeightLayout& layout;
  const Pack& pack;
  int64_t panels;
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The rows of work that takes each by itself, of so many numbers.
template <class Work>
void share_rows(void (*run)(const Work&, int64_t, int64_t), const Work& work, int64_t rows, int64_t numbers,
                ParallelFor parallel_for) {
  struct Call {
    void (*run)(const Work&, int64_t, int64_t);
    const Work& work;
  } call{run, work};
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const Call& c = *static_cast<const Call*>(context);
    c.run(c.work, begin, end);
  };
  parallel_for(0, rows, std::max<int64_t>(1, least_elements / std::max<int64_t>(1, numbers)), body, &call);
}

// Of the blocks that so many rows are cut into.
int64_t block_height(const Kernels& kernels, int64_t rows, int64_t most) {
  return divide_up(divide_up(rows, divide_up(rows, most)), kernels.linear_rows) * kernels.linear_rows;
}

// Tasks of a block of rows and a panel of outputs each.
void share_out(const Linear& l, const LinearPlan& plan, int64_t columns, ParallelFor parallel_for, Body body,
               void* call) {
  const int64_t tasks = divide_up(l.rows, plan.height) * divide_up(l.outputs, columns);
  const double per_task = static_cast<double>(std::min(l.rows, plan.height)) * static_cast<double>(columns) *
                          static_cast<double>(l.inputs);
  parallel_for(0, tasks, std::max<int64_t>(1, static_cast<int64_t>(least_work / std::max(1.0, per_task))), body, call);
}

// fp32 to bf16, to nearest, ties to even; NaN stays NaN.
void write_rounded(const char* from, char* to, int64_t count) {
  for (int64_t i = 0; i < count; i++) {
    uint32_t bits;
    std::memcpy(&bits, from + i * 4, 4);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint16_t rounded = nan ? 0x7fc0 : static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    std::memcpy(to + i * 2, &rounded, 2);
  }
}

// Inputs that stand next to each other for an output.
int64_t inputs_per_step(const WeightLayout& layout, Type type) {
  return type == Type::fp32 ? 1 : type == Type::bf16 ? 2 : layout.codes;
}

int64_t block_depth(const WeightLayout& layout, Type type) {
  return type == Type::fp32 ? layout.depth : type == Type::bf16 ? layout.half_depth : layout.code_depth;
}

// Where the sums of the codes begin, in bytes; or where the weight ends.
int64_t product_bytes(const WeightLayout& layout, Type type, int64_t outputs, int64_t inputs) {
  const int64_t step = inputs_per_step(layout, type), size = type == Type::fp32 ? 4 : type == Type::bf16 ? 2 : 1;
  return divide_up(outputs, layout.columns) * layout.columns * divide_up(inputs, step) * step * size;
}

// The panels [first, last) of a weight whose numbers have the size of N.
template <typename N>
void pack_panels(const WeightLayout& layout, const Pack& p, int64_t panels, int64_t first, int64_t last) {
  const N* weight = static_cast<const N*>(p.weight);
  const int64_t step = inputs_per_step(layout, p.type), block = block_depth(layout, p.type);
  for (int64_t panel = first; panel < last; panel++)
    for (int64_t start = 0; start < p.inputs; start += block) {
      const int64_t depth = std::min(block, p.inputs - start), whole = divide_up(depth, step) * step;
      // Blocks before this one are all of the full depth, a multiple of every step.
      N* to = static_cast<N*>(p.packed) + start * layout.columns * panels + panel * layout.columns * whole;
      for (int64_t k = 0; k < whole; k += step)
        for (int64_t c = 0; c < layout.columns; c++)
          for (int64_t i = k; i < k + step; i++) {
            const int64_t output = panel * layout.columns + c;
            *to++ = i < depth && output < p.outputs ? weight[output * p.inputs + start + i] : N{0};
          }
    }
}

void pack_sums(const WeightLayout& layout, const Pack& p, int64_t first, int64_t last) {
  const int8_t* weight = static_cast<const int8_t*>(p.weight);
  int32_t* sums = reinterpret_cast<int32_t*>(static_cast<char*>(p.packed) +
                                             product_bytes(layout, p.type, p.outputs, p.inputs));
  for (int64_t output = first * layout.columns; output < last * layout.columns; output++) {
    int32_t sum = 0;
    if (output < p.outputs)
      for (int64_t i = 0; i < p.inputs; i++) sum += weight[output * p.inputs + i];
    sums[output] = sum;
  }
}

}  // namespace

void attention(const Kernels& kernels, const Attention& a, int threads, ParallelFor parallel_for) {
  const int64_t group = a.heads / a.kv_heads;
  int64_t longest = a.queries, units = a.rows * a.kv_heads;
  double work = static_cast<double>(a.queries) * static_cast<double>(a.keys) * static_cast<double>(a.rows);
  if (a.offsets) {
    longest = 0;
    work = 0;
    for (int64_t i = 0; i < a.segments; i++) {
      const int64_t length = a.offsets[i + 1] - a.offsets[i];
      longest = std::max(longest, length);
      work += static_cast<double>(length) * static_cast<double>(length);
    }
    // The heads alone: where they divide evenly among the threads, so does the work.
    units = a.kv_heads;
  }
  if (longest == 0) return;
  work *= static_cast<double>(a.heads) * static_cast<double>(a.width + a.value_width);
  const int64_t blocks = divide_up(longest * group, kernels.query_block);
  int64_t parts = 1;
  if (units % threads != 0 && units < shares * threads) parts = std::min(blocks, divide_up(shares * threads, units));
  std::vector<int64_t> before;
  AttentionCall call{kernels, a, {}};
  call.plan.task_lines = divide_up(blocks, parts) * kernels.query_block;
  call.plan.longest_keys = a.offsets ? longest : a.keys;
  int64_t tasks;
  if (a.offsets) {
    before.reserve(static_cast<size_t>(a.segments) + 1);
    before.push_back(0);
    for (int64_t i = 0; i < a.segments; i++) {
      const int64_t lines = (a.offsets[i + 1] - a.offsets[i]) * group;
      before.push_back(before.back() + divide_up(lines, call.plan.task_lines));
    }
    call.plan.tasks_before = before.data();
    call.plan.tasks_per_head = before.back();
    tasks = before.back() * a.kv_heads;
  } else {
    call.plan.tasks_per_head = divide_up(a.queries * group, call.plan.task_lines);
    tasks = call.plan.tasks_per_head * units;
  }
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const AttentionCall& c = *static_cast<const AttentionCall*>(context);
    c.kernels.attention(c.attention, c.plan, begin, end);
  };
  // Tasks that make up `least_work` stay together.
  const double per_task = std::max(1.0, work / static_cast<double>(tasks));
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(std::min(least_work / per_task, 1e9)));
  parallel_for(0, tasks, grain, body, &call);
}

bool few_queries(const Attention& a) { return a.queries * (a.heads / a.kv_heads) <= few_lines; }

void attention_cached(const Kernels& kernels, const Attention& a, int threads, ParallelFor parallel_for) {
  const int64_t lines = a.queries * (a.heads / a.kv_heads), units = a.rows * a.kv_heads;
  if (!few_queries(a)) return attention(kernels, a, threads, parallel_for);
  double keys = 0;
  for (int64_t row = 0; row < a.rows; row++) keys += static_cast<double>(a.row_keys[row]);
  const double work = keys * static_cast<double>(a.heads * a.queries * (a.width + a.value_width));
  PartsCall call{kernels, a, {}};
  call.plan.parts = divide_up(a.keys, part_keys);
  call.plan.part_keys = part_keys;
  const int64_t tasks = units * call.plan.parts;
  std::vector<float> partial;
  if (call.plan.parts > 1) {
    call.plan.partial_columns = divide_up(a.value_width, 16) * 16;
    partial.resize(static_cast<size_t>(tasks * lines * (2 + call.plan.partial_columns)));
    call.plan.partial = partial.data();
  }
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const PartsCall& c = *static_cast<const PartsCall*>(context);
    c.kernels.attention_parts(c.attention, c.plan, begin, end);
  };
  const double per_task = std::max(1.0, work / static_cast<double>(tasks));
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(std::min(least_work / per_task, 1e9)));
  parallel_for(0, tasks, grain, body, &call);
  if (call.plan.parts == 1) return;
  const Body combine = [](void* context, int64_t begin, int64_t end) {
    const PartsCall& c = *static_cast<const PartsCall*>(context);
    c.kernels.combine_parts(c.attention, c.plan, begin, end);
  };
  const int64_t numbers = call.plan.parts * lines * call.plan.partial_columns;
  parallel_for(0, units, std::max<int64_t>(1, least_elements / numbers), combine, &call);
}

void write_cache(const CacheWrite& w, ParallelFor parallel_for) {
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const CacheWrite& c = *static_cast<const CacheWrite*>(context);
    const int64_t size = c.element_size, from_size = c.rounded ? 4 : size;
    for (int64_t unit = begin; unit < end; unit++) {
      const int64_t row = unit / c.heads, head = unit % c.heads;
      const char* from = static_cast<const char*>(c.from) + (row * c.from_row + head * c.from_head) * from_size;
      char* to = static_cast<char*>(c.to) + (row * c.to_row + head * c.to_head) * size;
      // In their order: of two tokens at one place the later one stays.
      for (int64_t token = 0; token < c.tokens; token++) {
        char* place = to + c.positions[row * c.tokens + token] * c.to_token * size;
        const char* number = from + token * c.from_token * from_size;
        if (c.rounded)
          write_rounded(number, place, c.width);
        else
          std::memcpy(place, number, static_cast<size_t>(c.width * size));
      }
    }
  };
  const int64_t bytes = std::max<int64_t>(1, w.tokens * w.width * w.element_size);
  parallel_for(0, w.rows * w.heads, std::max<int64_t>(1, least_bytes / bytes), body, const_cast<CacheWrite*>(&w));
}

void rotate(const Kernels& kernels, const Rotate& r, ParallelFor parallel_for) {
  share_rows(kernels.rotate, r, r.rows * r.tokens, r.heads * r.width, parallel_for);
}

void norm(const Kernels& kernels, const Norm& n, ParallelFor parallel_for) {
  share_rows(kernels.norm, n, n.rows, n.size, parallel_for);
}

void linear(const Kernels& kernels, const Linear& l, int, ParallelFor parallel_for) {
  if (l.rows == 0 || l.outputs == 0) return;
  const int64_t most = l.weight_type == Type::fp32 ? kernels.linear_block : kernels.tiled_block;
  LinearCall call{kernels, l, {block_height(kernels, l.rows, most)}};
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const LinearCall& c = *static_cast<const LinearCall*>(context);
    c.kernels.linear(c.linear, c.plan, begin, end);
  };
  share_out(l, call.plan, kernels.weight_layout.columns, parallel_for, body, &call);
}

void linear_codes(const Kernels& kernels, const Linear& l, const CodedWeight& weight, ParallelFor parallel_for) {
  if (l.rows == 0 || l.outputs == 0) return;
  CodedCall call{kernels, l, weight, {block_height(kernels, l.rows, kernels.tiled_block)}};
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const CodedCall& c = *static_cast<const CodedCall*>(context);
    c.kernels.linear_codes(c.linear, c.weight, c.plan, begin, end);
  };
  share_out(l, call.plan, code_columns, parallel_for, body, &call);
}

void look_up(const Lookup& lookup, ParallelFor parallel_for) {
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const Lookup& l = *static_cast<const Lookup*>(context);
    for (int64_t i = begin; i < end; i++) {
      const int64_t row = l.rows[i];
      const int8_t* from = l.codes + row / code_columns * l.size * code_columns + row % code_columns;
      for (int64_t k = 0; k < l.size; k++)
        l.output[i * l.size + k] = static_cast<float>(from[k * code_columns]) * l.scales[row];
    }
  };
  parallel_for(0, lookup.count, std::max<int64_t>(1, least_elements / std::max<int64_t>(1, lookup.size)), body,
               const_cast<Lookup*>(&lookup));
}

void quantise(const Kernels& kernels, const Quantise& q, ParallelFor parallel_for) {
  share_rows(kernels.quantise, q, q.rows, q.size, parallel_for);
}

void gated(const Kernels& kernels, const Gated& g, ParallelFor parallel_for) {
  share_rows(kernels.gated, g, g.rows, g.size, parallel_for);
}

int64_t packed_bytes(const WeightLayout& layout, Type type, int64_t outputs, int64_t inputs) {
  const int64_t sums = divide_up(outputs, layout.columns) * layout.columns * static_cast<int64_t>(sizeof(int32_t));
  return product_bytes(layout, type, outputs, inputs) + (type == Type::int8 ? sums : 0);
}

void pack(const WeightLayout& layout, const Pack& p, ParallelFor parallel_for) {
  PackCall call{layout, p, divide_up(p.outputs, layout.columns)};
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const PackCall& c = *static_cast<const PackCall*>(context);
    if (c.pack.type == Type::fp32)
      pack_panels<uint32_t>(c.layout, c.pack, c.panels, begin, end);
    else if (c.pack.type == Type::bf16)
      pack_panels<uint16_t>(c.layout, c.pack, c.panels, begin, end);
    else
      pack_panels<uint8_t>(c.layout, c.pack, c.panels, begin, end);
    if (c.pack.type == Type::int8) pack_sums(c.layout, c.pack, begin, end);
  };
  parallel_for(0, call.panels, std::max<int64_t>(1, least_elements / (layout.columns * std::max<int64_t>(1, p.inputs))),
               body, &call);
}

}  // namespace em_native
