// What the kernels of attention have in common: which keys a query sees, and the softmax over a part of them.
#pragma once

#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// What stands before and after the keys of one query, and where its mask begins.
struct Line {
  int64_t head, query, first_key, last_key;
};

struct Segment {
  int64_t row, start, queries, keys;
};

EM_NATIVE_INLINE Line line_at(const Attention& a, const Segment& segment, int64_t kv_head, int64_t line) {
  Line found;
  found.head = kv_head;
  found.query = line;
  if (a.heads != a.kv_heads) {
    found.head = kv_head * (a.heads / a.kv_heads) + line / segment.queries;
    found.query = line % segment.queries;
  }
  const int64_t position = a.positions ? a.positions[segment.row * a.queries + found.query]
                                       : found.query + segment.keys - segment.queries;
  found.first_key = 0;
  found.last_key = segment.keys;
  if (a.causal) found.last_key = larger(0, smaller(segment.keys, position + 1));
  if (a.window > 0) {
    found.first_key = larger(0, position - a.window + 1);
    if (!a.causal) found.last_key = larger(0, smaller(segment.keys, position + a.window));
  }
  return found;
}

// `lanes` numbers of the mask from column j on, of which those before `to` exist.
EM_NATIVE_INLINE Vec load_mask(const Attention& a, const char* mask, int64_t j, int64_t to) {
  if (a.mask_type == Type::fp32) {
    const float* p = reinterpret_cast<const float*>(mask);
    if (a.mask_key == 0) return all(*p);
    return j + lanes <= to ? load(p + j) : load_first(p + j, larger(0, to - j));
  }
  const uint16_t* p = reinterpret_cast<const uint16_t*>(mask);
  if (a.mask_key == 0) return all(sum_of(load_first(p, 1)));
  return j + lanes <= to ? load(p + j) : load_first(p + j, larger(0, to - j));
}

// Scores of one query become probabilities (not yet divided by their sum): columns [from, to) of [0, count), the others
// become 0. The maximum and sum so far are at `top` and `total`. The result: the factor for what was summed before.
// `raw`: the scores have yet to be multiplied by the scale.
template <bool pairs, bool raw = false>
EM_NATIVE_INLINE float softmax(const Attention& a, float* scores, const char* mask, int64_t from, int64_t to,
                               int64_t count, bool started, float* top, float* total) {
  Vec largest = all(minus_infinity());
  for (int64_t j = 0; j < count; j += lanes) {
    const bool edge = j < from || j + lanes > to;
    Vec x = load(scores + j);
    if constexpr (raw) x = multiply(x, all(a.scale));
    if (!edge && !mask) {
      if constexpr (raw) store(scores + j, x);
      largest = maximum(x, largest);
      continue;
    }
    if (mask) x = add(x, load_mask(a, mask, j, to));
    if (edge) {
      const int64_t here = smaller(lanes, larger(0, from - j)), end = smaller(lanes, larger(0, to - j));
      x = keep(x, here, end, all(minus_infinity()));
    }
    store(scores + j, x);
    largest = maximum(x, largest);
  }
  const float before = started ? *top : minus_infinity();
  float now = largest_of(largest);
  if (!(now > before)) now = before;
  *top = now;
  // Nothing but -inf so far: exp(-inf - 0) is 0, and NaN stays NaN.
  const float base = now == minus_infinity() ? 0.0f : now;
  const Vec shift = all(base);
  Vec sum = zero();
#if defined(EM_NATIVE_AVX512_BF16)
  if constexpr (pairs) {
    // In place: 16 numbers are read before their 16 halves are written at or before them.
    uint16_t* halves = reinterpret_cast<uint16_t*>(scores);
    for (int64_t j = 0; j < count; j += lanes) {
      const Vec e = exponential_coarse(subtract(load(scores + j), shift));
      sum = add(sum, e);
      store(halves + j, e);
    }
  } else
#endif
  {
    for (int64_t j = 0; j < count; j += lanes) {
      const Vec e = exponential(subtract(load(scores + j), shift));
      sum = add(sum, e);
      store(scores + j, e);
    }
  }
  if (!started) {
    *total = sum_of(sum);
    return 0.0f;
  }
  if (now == before) {
    *total += sum_of(sum);
    return 1.0f;
  }
  float factor[lanes];
  store(factor, exponential(all(before - base)));
  *total = *total * factor[0] + sum_of(sum);
  return factor[0];
}

}  // namespace
}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
