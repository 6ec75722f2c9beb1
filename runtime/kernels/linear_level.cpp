// Linears with packed weights on one level's vectors: activation(x * weight^T + bias) + residual, for a range of tasks.
//
// A task is a block of rows and one panel of outputs; a run of tasks with the same rows is computed together. For each
// block of inputs the rows are copied (as the products want them: widened, or rounded to bf16) to the thread's memory,
// where they stay in the second-level cache, and each panel of the weight goes through the first-level cache. While one
// panel is computed, the next one is fetched. Sums lie in the thread's memory until the last block of inputs; then
// comes all that follows the product, in one pass.
//
// A sum does not depend on how rows and panels are cut: blocks of inputs are the same for every call.
#include "linear_tile.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// How far ahead of a weight that one tile of rows reads its next bytes are fetched: the hardware does not look beyond
// a page. 2 to 16 KB were as fast within what the machine varies.
constexpr int64_t fetch_distance = 4096;

template <class How>
struct Call {
  const Linear& l;
  int64_t height, panels;
  bool one_block;  // of inputs: the sums of a panel are used before the next one's
  void (*copy)(const Linear&, int64_t, int64_t, int64_t, int64_t, float*);
  Finish<How> finish;
  float* rows;
  typename How::Number* sums;
};

// Where the inputs from `start` on, a block of them, begin in a panel.
template <class How>
EM_NATIVE_INLINE const char* panel_at(const Call<How>& call, int64_t start, int64_t panel) {
  const int64_t depth = smaller(How::depth, call.l.inputs - start);
  const int64_t steps = (depth + How::packed - 1) / How::packed;
  return static_cast<const char*>(call.l.weight) + (start / How::packed * call.panels + panel * steps) * How::bytes;
}

#if defined(EM_NATIVE_AMX)
// A block of inputs of one panel, for `count` copied rows. The next panel is fetched in up to four parts.
template <class How>
void multiply_panel_in_tiles(const Call<How>& call, int64_t row, int64_t count, int64_t output, const char* b,
                             int64_t steps, typename How::Number* sums, bool accumulate, bool last_block,
                             const char* next) {
  constexpr bool codes = How::weights == Type::int8;
  constexpr int64_t pair = 2 * tile_side, sum_stride = columns * 4;
  const int64_t parts = smaller(4, (count + pair - 1) / pair), lines_of_step = tile_side * How::bytes / line;
  for (int64_t at = 0; at < count; at += pair) {
    const int64_t part = at / pair, fetched = part < parts ? lines_of_step / parts : 0;
    const char* ahead = next + part * (steps / tile_side) * fetched * line;
    const auto run = count - at > tile_side ? multiply_tiles<codes, 2, 2> : multiply_tiles<codes, 1, 2>;
    if (last_block) fetch_outputs(call.l, row + at, row + smaller(count, at + pair), output);
    run(call.rows + at * row_stride, row_stride * 4, b, steps, sums + at * columns, sum_stride, accumulate, ahead,
        fetched);
  }
}
#else
template <class How>
void multiply_panel_in_tiles(const Call<How>&, int64_t, int64_t, int64_t, const char*, int64_t, typename How::Number*,
                             bool, bool, const char*);
#endif

// The rows [row, row + count) and the panels [first, last).
template <class How>
void multiply_panels(const Call<How>& call, int64_t row, int64_t count, int64_t first, int64_t last) {
  const Linear& l = call.l;
  const char* weight = static_cast<const char*>(l.weight);
  const int64_t all_inputs = (l.inputs + How::packed - 1) / How::packed * How::packed;
  const int64_t tiles = (count + tile_rows - 1) / tile_rows;
  for (int64_t start = 0; start < l.inputs; start += How::depth) {
    const int64_t depth = smaller(How::depth, l.inputs - start);
    const int64_t steps = (depth + How::packed - 1) / How::packed;
    const bool last_block = start + depth >= l.inputs;
    call.copy(l, row, count, start, depth, call.rows);
    for (int64_t panel = first; panel < last; panel++) {
      const char* b = panel_at(call, start, panel);
      // What is read next, which is the first panel again at the end.
      const char* next = panel + 1 < last ? panel_at(call, start, panel + 1)
                         : !last_block    ? panel_at(call, start + depth, first)
                                          : panel_at(call, 0, last < call.panels ? last : 0);
      typename How::Number* sums = call.sums + (call.one_block ? 0 : panel - first) * call.height * columns;
      if constexpr (How::tiles) {
        multiply_panel_in_tiles<How>(call, row, count, panel * columns, b, steps, sums, start > 0, last_block, next);
      } else {
        int64_t at = 0;
        for (int64_t t = 0; t < tiles; t++) {
          const int64_t end = count * (t + 1) / tiles;
          if (last_block) fetch_outputs(l, row + at, row + end, panel * columns);
          const int64_t share = tiles == 1 ? 4 : tiles == 2 ? 2 : 1;
          const char* ahead = tiles == 1 ? b + fetch_distance : next + smaller(t * share, 3) * (steps / 4) * How::bytes;
          tile_of<How>(end - at)(call.rows + at * row_stride, b, steps, sums + at * columns, start > 0, ahead, share);
          at = end;
        }
      }
      if (last_block) {
        const int32_t* code_sums = reinterpret_cast<const int32_t*>(weight + all_inputs * columns * call.panels);
        call.finish(l, row, count, panel * columns, sums, code_sums);
      }
    }
  }
}

template <class How, typename T>
void run(const Linear& l, const LinearPlan& plan, int64_t first_task, int64_t last_task) {
  const bool one_block = l.inputs <= How::depth;
  Call<How> call{l,       plan.height, (l.outputs + columns - 1) / columns,
                 one_block, nullptr,     finish_of<How, T>(l.activation),
                 nullptr, nullptr};
  if constexpr (How::weights == Type::int8)
    call.copy = copy_rows<How, uint8_t>;
  else
    call.copy = copy_rows<How, T>;
  const int64_t together = one_block ? call.panels : kept_panels;
  const int64_t kept = one_block ? 1 : kept_panels;
  const int64_t counts[] = {plan.height * row_stride, kept * plan.height * columns};
  call.rows = static_cast<float*>(scratch(static_cast<size_t>(counts[0] + counts[1]) * sizeof(float)));
  call.sums = reinterpret_cast<typename How::Number*>(call.rows + counts[0]);
#if defined(EM_NATIVE_AMX)
  if constexpr (How::tiles) configure_tiles();
#endif
  for (int64_t task = first_task; task < last_task;) {
    const int64_t block = task / call.panels, panel = task % call.panels;
    const int64_t row = block * plan.height, last = smaller(call.panels, panel + last_task - task);
    for (int64_t first = panel; first < last; first += together)
      multiply_panels<How>(call, row, smaller(plan.height, l.rows - row), first, smaller(last, first + together));
    task += last - panel;
  }
#if defined(EM_NATIVE_AMX)
  if constexpr (How::tiles) release_tiles();
#endif
}

// For inputs of either type.
template <class How>
void run_either(const Linear& l, const LinearPlan& plan, int64_t first_task, int64_t last_task) {
  if (l.type == Type::bf16)
    run<How, uint16_t>(l, plan, first_task, last_task);
  else
    run<How, float>(l, plan, first_task, last_task);
}

}  // namespace

void linear(const Linear& l, const LinearPlan& plan, int64_t first_task, int64_t last_task) {
#if defined(EM_NATIVE_AMX)
  // Whole tiles of inputs; a step of other numbers would need tiles of another shape.
  if (l.weight_type == Type::int8 && l.inputs % (tile_side * TileCodes::packed) == 0)
    return run_either<TileCodes>(l, plan, first_task, last_task);
  if (l.weight_type == Type::bf16 && l.inputs % (tile_side * TilePairs::packed) == 0)
    return run_either<TilePairs>(l, plan, first_task, last_task);
#endif
  if (l.weight_type == Type::int8)
    run_either<Codes>(l, plan, first_task, last_task);
  else if (l.weight_type == Type::bf16)
    run_either<Halves>(l, plan, first_task, last_task);
  else
    run<Floats, float>(l, plan, first_task, last_task);
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
