// The parts of linears on one level's vectors: a tile of sums, copied rows, and what follows the product.
#pragma once

#include "activation.h"
#include "blocking.h"
#include "tiles.h"
#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

constexpr int tile_rows = linear_tile_rows;
constexpr int64_t columns = linear_columns, depth_block = linear_depth;
// Of copied rows, in lanes of 32 bits. Not a power of two: rows would fall on the same lines of the first-level cache.
constexpr int64_t row_stride = depth_block + 16;
// Panels whose sums are kept at a time.
constexpr int64_t kept_panels = 24;
constexpr int64_t line = 64;

// How products are computed: what a sum is, how many inputs a lane of 32 bits of a copied row holds, how many inputs
// and bytes of a panel make a step, how many inputs a block has, and whether tile registers compute it.
struct Floats {
  using Sum = Vec;
  using Number = float;
  static constexpr Type weights = Type::fp32;
  static constexpr int64_t inputs = 1, packed = 1, bytes = columns * 4, depth = linear_depth;
  static constexpr bool tiles = false;
};

// Weights of bf16, widened; two inputs at a time, for their weights lie in one lane.
struct WideHalves {
  using Sum = Vec;
  using Number = float;
  static constexpr Type weights = Type::bf16;
  static constexpr int64_t inputs = 1, packed = 2, bytes = columns * 4, depth = linear_half_depth;
  static constexpr bool tiles = false;
};

struct Pairs {
  using Sum = Vec;
  using Number = float;
  static constexpr Type weights = Type::bf16;
  static constexpr int64_t inputs = 2, packed = 2, bytes = columns * 4, depth = linear_half_depth;
  static constexpr bool tiles = false;
};

struct Codes {
  using Sum = Ints;
  using Number = int32_t;
  static constexpr Type weights = Type::int8;
  static constexpr int64_t inputs = codes_per_step, packed = codes_per_step, bytes = columns * codes_per_step;
  static constexpr int64_t depth = linear_code_depth;
  static constexpr bool tiles = false;
};

#if defined(EM_NATIVE_AMX)
struct TilePairs : Pairs {
  static constexpr bool tiles = true;
};

struct TileCodes : Codes {
  static constexpr bool tiles = true;
};
#endif

#if defined(EM_NATIVE_AVX512_BF16)
using Halves = Pairs;
#else
using Halves = WideHalves;
#endif

EM_NATIVE_INLINE Vec load_sum(const float* p) { return load(p); }
EM_NATIVE_INLINE Ints load_sum(const int32_t* p) { return load_ints(p); }
EM_NATIVE_INLINE void store_sum(float* p, Vec a) { store(p, a); }
EM_NATIVE_INLINE void store_sum(int32_t* p, Ints a) { store_ints(p, a); }
EM_NATIVE_INLINE void clear(Vec& a) { a = zero(); }
EM_NATIVE_INLINE void clear(Ints& a) { a = zero_ints(); }

template <class How, int rows>
EM_NATIVE_INLINE void step(const float* a, const char* b, typename How::Sum (*sums)[2]) {
  if constexpr (How::weights == Type::int8) {
    const int8_t* weights = reinterpret_cast<const int8_t*>(b);
    const Ints w0 = load_code_weights(weights), w1 = load_code_weights(weights + lanes * codes_per_step);
    const int32_t* codes = reinterpret_cast<const int32_t*>(a);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      const Ints x = all_ints(codes[i * row_stride]);
      sums[i][0] = multiply_add_codes(x, w0, sums[i][0]);
      sums[i][1] = multiply_add_codes(x, w1, sums[i][1]);
    }
  } else if constexpr (How::inputs == 2) {
#if defined(EM_NATIVE_AVX512_BF16)
    const Vec w0 = load(reinterpret_cast<const float*>(b)), w1 = load(reinterpret_cast<const float*>(b) + lanes);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      const Vec x = all(a[i * row_stride]);
      sums[i][0] = multiply_add_pairs(x, w0, sums[i][0]);
      sums[i][1] = multiply_add_pairs(x, w1, sums[i][1]);
    }
#endif
  } else {
    const float* weights = reinterpret_cast<const float*>(b);
    Vec w0, w1;
    auto all_rows = [&](int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 12
      for (int i = 0; i < rows; i++) {
        const Vec x = all(a[i * row_stride + k]);
        sums[i][0] = multiply_add(x, w0, sums[i][0]);
        sums[i][1] = multiply_add(x, w1, sums[i][1]);
      }
    };
    if constexpr (How::weights == Type::fp32) {
      w0 = load(weights), w1 = load(weights + lanes);
      all_rows(0);
    } else {
      w0 = low_bf16(load_ints(weights)), w1 = low_bf16(load_ints(weights + lanes));
      all_rows(0);
      w0 = high_bf16(load_ints(weights)), w1 = high_bf16(load_ints(weights + lanes));
      all_rows(1);
    }
  }
}

// sums (+)= a * b: `rows` copied rows, and `steps` steps of a panel at b. `ahead`: what to fetch meanwhile, `share`
// quarters of as many bytes as b has.
template <class How, int rows>
void tile(const float* a, const char* b, int64_t steps, typename How::Number* to, bool accumulate, const char* ahead,
          int64_t share) {
  constexpr int64_t lanes_per_step = How::packed / How::inputs;
  typename How::Sum sums[rows][2];
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) clear(sums[i][v]);
  int64_t k = 0;
  for (; k + 4 <= steps; k += 4) {
    for (int64_t i = 0; i < share * How::bytes; i += line) __builtin_prefetch(ahead + k / 4 * share * How::bytes + i);
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++)
      step<How, rows>(a + (k + j) * lanes_per_step, b + (k + j) * How::bytes, sums);
  }
  for (; k < steps; k++) step<How, rows>(a + k * lanes_per_step, b + k * How::bytes, sums);
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      typename How::Number* p = to + i * columns + v * lanes;
      store_sum(p, accumulate ? add(load_sum(p), sums[i][v]) : sums[i][v]);
    }
}

template <class How>
using Tile = void (*)(const float*, const char*, int64_t, typename How::Number*, bool, const char*, int64_t);

template <class How>
EM_NATIVE_INLINE Tile<How> tile_of(int64_t rows) {
  static constexpr Tile<How> tiles[] = {
      tile<How, 1>, tile<How, 2>, tile<How, 3>, tile<How, 4>,  tile<How, 5>,  tile<How, 6>,
#if defined(EM_NATIVE_AVX512)
      tile<How, 7>, tile<How, 8>, tile<How, 9>, tile<How, 10>, tile<How, 11>, tile<How, 12>,
#endif
  };
  return tiles[rows - 1];
}

// `count` numbers of one row, from any type to what the products take; filled up with zeros to whole steps.
template <class How, typename T>
EM_NATIVE_INLINE void copy_row(const T* from, float* to, int64_t count) {
  if constexpr (How::weights == Type::int8) {
    if constexpr (codes_per_step == 4) {
      uint8_t* codes = reinterpret_cast<uint8_t*>(to);
      __builtin_memcpy(codes, from, static_cast<size_t>(count));
      for (int64_t k = count; k % 4 != 0; k++) codes[k] = 0;
    } else {
      uint16_t* codes = reinterpret_cast<uint16_t*>(to);
      for (int64_t k = 0; k < count; k++) codes[k] = from[k];
      if (count % 2 != 0) codes[count] = 0;
    }
  } else if constexpr (How::inputs == 2) {
#if defined(EM_NATIVE_AVX512_BF16)
    // A whole vector fits: the stride is longer than a block. It is 0 beyond the row.
    for (int64_t k = 0; k < count; k += 2 * lanes) store(to + k / 2, load_pairs(from + k, count - k));
#endif
  } else {
    for (int64_t k = 0; k < count; k += lanes) store(to + k, read(from + k, count - k));
  }
}

template <class How, typename T>
void copy_rows(const Linear& l, int64_t first_row, int64_t rows, int64_t start, int64_t count, float* to) {
  const T* from = static_cast<const T*>(l.x) + first_row * l.x_row + start;
  for (int64_t i = 0; i < rows; i++) copy_row<How>(from + i * l.x_row, to + i * row_stride, count);
}

// Numbers of either type, as many as there are; 0 beyond them and where there is no tensor.
EM_NATIVE_INLINE Vec read_either(const void* p, Type type, int64_t at, int64_t count) {
  if (!p || count <= 0) return zero();
  if (type == Type::fp32) return read(static_cast<const float*>(p) + at, count);
  return read(static_cast<const uint16_t*>(p) + at, count);
}

// Sums of one panel to outputs: scales of codes, bias, activation, residual.
template <class How, typename T, Activation activation>
void finish(const Linear& l, int64_t first_row, int64_t rows, int64_t first_output, const typename How::Number* sums,
            const int32_t* code_sums) {
  const int64_t count[2] = {l.outputs - first_output, l.outputs - first_output - lanes};
  Vec bias[2], scale[2];
  Ints weight_sums[2];
#pragma GCC unroll 2
  for (int v = 0; v < 2; v++) {
    bias[v] = read_either(l.bias, l.bias_type, first_output + v * lanes, count[v]);
    if (l.weight_scales) scale[v] = read_either(l.weight_scales, Type::fp32, first_output + v * lanes, count[v]);
    if constexpr (How::weights == Type::int8) weight_sums[v] = load_ints(code_sums + first_output + v * lanes);
  }
  for (int64_t i = 0; i < rows; i++) {
    const int64_t row = first_row + i;
    T* output = static_cast<T*>(l.output) + row * l.output_row + first_output;
    const T* residual = l.residual ? static_cast<const T*>(l.residual) + row * l.residual_row + first_output : nullptr;
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      if (count[v] <= 0) continue;
      Vec y;
      if constexpr (How::weights == Type::int8) {
        // The zero of the codes stands for 0: its share of the sum is taken off, exactly.
        const Ints whole = load_ints(sums + i * columns + v * lanes);
        const Ints share = multiply(to_ints(all(l.row_scales[2 * row + 1])), weight_sums[v]);
        y = multiply_add(to_floats(subtract(whole, share)), multiply(all(l.row_scales[2 * row]), scale[v]), bias[v]);
      } else {
        const Vec sum = load(sums + i * columns + v * lanes);
        y = l.weight_scales ? multiply_add(sum, scale[v], bias[v]) : add(sum, bias[v]);
      }
      y = activate<activation, sizeof(T) == 2>(y);
      if (count[v] >= lanes) {
        if (residual) y = add(y, load(residual + v * lanes));
        store(output + v * lanes, y);
      } else {
        if (residual) y = add(y, load_first(residual + v * lanes, count[v]));
        store_first(output + v * lanes, y, count[v]);
      }
    }
  }
}

template <class How>
using Finish = void (*)(const Linear&, int64_t, int64_t, int64_t, const typename How::Number*, const int32_t*);

template <class How, typename T>
EM_NATIVE_INLINE Finish<How> finish_of(Activation activation) {
  switch (activation) {
    case Activation::gelu: return finish<How, T, Activation::gelu>;
    case Activation::gelu_tanh: return finish<How, T, Activation::gelu_tanh>;
    case Activation::relu: return finish<How, T, Activation::relu>;
    case Activation::silu: return finish<How, T, Activation::silu>;
    case Activation::tanh: return finish<How, T, Activation::tanh>;
    case Activation::sigmoid: return finish<How, T, Activation::sigmoid>;
    case Activation::none: break;
  }
  return finish<How, T, Activation::none>;
}

// What a tile's rows will write, and add, in a panel: each row's is on a line of its own, which takes long to come.
EM_NATIVE_INLINE void fetch_outputs(const Linear& l, int64_t first_row, int64_t last_row, int64_t output) {
  const int64_t size = l.type == Type::fp32 ? 4 : 2;
  const int64_t bytes = smaller(columns, l.outputs - output) * size;
  for (int64_t row = first_row; row < last_row; row++)
    for (int64_t i = 0; i < bytes; i += line) {
      __builtin_prefetch(static_cast<const char*>(l.output) + (row * l.output_row + output) * size + i, 1);
      if (l.residual)
        __builtin_prefetch(static_cast<const char*>(l.residual) + (row * l.residual_row + output) * size + i);
    }
}

}  // namespace
}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
