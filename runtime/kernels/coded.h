// Weights of codes on one level: what their products with few rows, with many, and in tile registers have in common.
#pragma once

#include "linear_tile.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// Vectors per panel of codes, and panels of sums (`columns`) in it.
constexpr int panel_vectors = code_columns / lanes;
constexpr int64_t parts = code_columns / columns;
// From so many rows on a panel is widened first. Fewer are one block, so that a task is a panel.
constexpr int64_t few = 2 * tile_rows;
// How far ahead of the codes that are read the next ones are fetched, in bytes.
constexpr int64_t ahead = 2048;

// Panels whose sums are kept at a time, for many rows.
constexpr int64_t kept_code_panels = kept_panels / parts;

// The codes of one block of inputs, from a panel on.
struct Block {
  const char* codes;
  int64_t panel_bytes;  // from one panel to the next
  int64_t inputs;
  const uint16_t* scales;
  const uint16_t* zeros;
  int64_t panel_scales;  // from one panel to the next
  int64_t group;
};

template <int number>
struct Number {
  static constexpr int value = number;
};

struct Eight {
  // Vectors of sums that are computed together for one row: as many as hide the latency of an addition.
  static constexpr int alone = 8;
  // Whether what was there takes part in a block's sums from the beginning, or is added at the end.
  static constexpr bool continued = false;
};

struct Four {
  static constexpr int alone = 4;
  static constexpr bool continued = true;
};

// The scale of a group for one vector of outputs, and its zero with the other sign.
EM_NATIVE_INLINE void group_of(const Block& b, int vector, int64_t group, Vec& scale, Vec& minus_zero) {
  const int64_t at = vector / panel_vectors * b.panel_scales + group * code_columns + vector % panel_vectors * lanes;
  scale = load_fp16(b.scales + at);
  minus_zero = subtract(zero(), load_fp16(b.zeros + at));
}

// Code number j of each lane as a number times 16^j, for which the copied inputs are divided by that; the last is not.
template <int j>
EM_NATIVE_INLINE Vec widen_code(Ints codes) {
  if constexpr (j == 7) return to_floats(shift_right<28>(codes));
  return to_floats(both(codes, all_ints(15 << 4 * j)));
}

// The inputs from `start` on, a block of them, in a panel.
EM_NATIVE_INLINE Block block_at(const Linear& l, const CodedWeight& w, int64_t start, int64_t panel) {
  Block b{};
  b.inputs = smaller(depth_block, l.inputs - start);
  b.panel_bytes = w.bits == 8 ? l.inputs * code_columns : (l.inputs + 7) / 8 * 4 * code_columns;
  const int64_t before = (w.bits == 8 ? start : start / 2) * code_columns;
  b.codes = static_cast<const char*>(w.codes) + panel * b.panel_bytes + before;
  if (w.bits == 4) {
    b.group = w.group;
    b.panel_scales = (l.inputs + b.group - 1) / b.group * code_columns;
    const int64_t at = panel * b.panel_scales + start / b.group * code_columns;
    b.scales = w.scales + at;
    b.zeros = w.zeros + at;
  }
  return b;
}

struct CodedCall {
  const Linear& l;
  const CodedWeight& w;
  void (*copy)(const Linear&, int64_t, int64_t, int64_t, int64_t, float*);
  Finish<Floats> finish;
};

}  // namespace
}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
