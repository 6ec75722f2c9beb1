// Many rows times a weight of codes in tile registers, which multiply bf16: nearly as exact as in fp32, and faster.
// A number of fp32 is the sum of three of bf16. A code of 8 bits is one, so a product takes as many as the input has
// parts. Of 4 bits (code - zero) * scale is taken in two parts, as are the inputs; the product of both second ones
// is left out, so that an error is at most about 1e-5 of a product, and much less of a sum.
//
// Sums are added in another order than for few rows: their last digits differ.
#pragma once

#include "coded.h"

#if defined(EM_NATIVE_AMX)

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// From so many inputs on codes of 4 bits are multiplied in tiles: errors of two parts cancel each other in longer
// sums.
constexpr int64_t least_tiled_inputs = 128;
// Of a part of the copied rows, in lanes of 32 bits; not a power of two (`row_stride` says why).
constexpr int64_t part_stride = depth_block / 2 + 16;
constexpr int64_t panel_part_bytes = depth_block / 2 * columns * 4;

// Parts of an input of type T, and of a weight.
template <class Bits, typename T>
constexpr int input_parts() {
  if (sizeof(T) == 2) return 1;
  return Bits::continued ? 2 : 3;
}
template <class Bits>
constexpr int weight_parts() {
  return Bits::continued ? 2 : 1;
}

// `rows` rows of the inputs [start, start + count) in parts, which lie `part_size` lanes apart; zeros behind the
// last.
template <int parts_of_input, typename T>
void copy_in_parts(const Linear& l, int64_t first_row, int64_t rows, int64_t start, int64_t count, float* to,
                   int64_t part_size) {
  for (int64_t i = 0; i < rows; i++) {
    const T* from = static_cast<const T*>(l.x) + (first_row + i) * l.x_row + start;
    uint16_t* row = reinterpret_cast<uint16_t*>(to + i * part_stride);
    for (int64_t k = 0; k < round_up(count, 2 * lanes); k += lanes) {
      Vec x = read(from + k, larger(0, count - k));
      for (int part = 0; part < parts_of_input; part++) x = store_rounded(row + 2 * part * part_size + k, x);
    }
  }
}

// A block of the first panel, in steps of two inputs; zeros behind the last one.
void widen_in_parts(const Block& b, Eight, char* to) {
  const int8_t* from = reinterpret_cast<const int8_t*>(b.codes);
  float* step = reinterpret_cast<float*>(to);
  for (int64_t k = 0; k < round_up(b.inputs, 2 * lanes); k += 2, step += columns)
    for (int64_t v = 0; v < columns; v += lanes) {
      const Vec first = k < b.inputs ? to_floats(load_ints(from + k * code_columns + v)) : zero();
      const Vec second = k + 1 < b.inputs ? to_floats(load_ints(from + (k + 1) * code_columns + v)) : zero();
      store(step + v, pair_up(first, second));
    }
}

void widen_in_parts(const Block& b, Four, char* to) {
  for (int v = 0; v < panel_vectors; v++) {
    float* step = reinterpret_cast<float*>(to) + v * lanes;
    Vec scale = zero(), share = zero();
    const int64_t whole = round_up(b.inputs, 8);
    for (int64_t k = 0; k < whole; k += 8) {
      if (k % b.group == 0) {
        Vec minus_zero;
        group_of(b, v, k / b.group, scale, minus_zero);
        share = multiply(minus_zero, scale);
      }
      const Ints codes = load_ints(b.codes + k / 2 * code_columns + v * lanes * 4);
      auto pair = [&](auto number) __attribute__((always_inline)) {
        constexpr int j = decltype(number)::value;
        const Ints mask = all_ints(15);
        const Vec first = multiply_add(to_floats(both(shift_right<4 * j>(codes), mask)), scale, share);
        const Vec second = multiply_add(to_floats(both(shift_right<4 * j + 4>(codes), mask)), scale, share);
        const Vec near_first = rounded_to_bf16(first), near_second = rounded_to_bf16(second);
        float* here = step + (k + j) / 2 * columns;
        store(here, pair_up(near_first, near_second));
        store(here + panel_part_bytes / 4, pair_up_rounded(subtract(first, near_first), subtract(second, near_second)));
      };
      pair(Number<0>{}), pair(Number<2>{}), pair(Number<4>{}), pair(Number<6>{});
    }
    for (int64_t k = whole; k < round_up(b.inputs, 2 * lanes); k += 2) {
      store(step + k / 2 * columns, zero());
      store(step + k / 2 * columns + panel_part_bytes / 4, zero());
    }
  }
}

template <int row_tiles>
EM_NATIVE_INLINE void add_tiles(const char* a) {
  load_tile<4>(a, part_stride * 4);
  multiply_pair_tiles<0, 4, 6>();
  multiply_pair_tiles<1, 4, 7>();
  if constexpr (row_tiles > 1) {
    load_tile<5>(a + tile_side * part_stride * 4, part_stride * 4);
    multiply_pair_tiles<2, 5, 6>();
    multiply_pair_tiles<3, 5, 7>();
  }
}

// sums (+)= rows * weight in all parts, for up to 32 rows; `steps` is a multiple of 16.
template <int row_tiles, int parts_of_input, int parts_of_weight>
void multiply_parts(const float* rows, int64_t part_size, const char* weight, int64_t steps, float* sums,
                    bool accumulate) {
  const char* a = reinterpret_cast<const char*>(rows);
  constexpr int64_t stride = columns * 4;
  begin_sums<row_tiles, 2>(reinterpret_cast<char*>(sums), stride, accumulate);
  for (int64_t k = 0; k < steps; k += tile_side)
    // The small ones first.
    for (int w = parts_of_weight - 1; w >= 0; w--) {
      const char* b = weight + w * panel_part_bytes + k * stride;
      load_tile<6>(b, stride);
      load_tile<7>(b + tile_bytes, stride);
      for (int64_t part = larger(parts_of_input - w, 1) - 1; part >= 0; part--)
        add_tiles<row_tiles>(a + (part * part_size + k) * 4);
    }
  store_sums<row_tiles, 2>(reinterpret_cast<char*>(sums), stride);
}

// A block of rows, and the panels [first, last), at most `kept_code_panels`.
template <class Bits, typename T>
void multiply_many_in_tiles(const CodedCall& call, int64_t height, int64_t row, int64_t count, int64_t first,
                            int64_t last) {
  constexpr int of_input = input_parts<Bits, T>(), of_weight = weight_parts<Bits>();
  constexpr int64_t pair = 2 * tile_side;
  const Linear& l = call.l;
  const int64_t part_size = height * part_stride, sums_size = height * columns;
  const int64_t sizes[] = {of_input * part_size, kept_code_panels * sums_size, of_weight * panel_part_bytes / 4};
  float* rows = static_cast<float*>(scratch(static_cast<size_t>(sizes[0] + sizes[1] + sizes[2]) * sizeof(float)));
  float* sums = rows + sizes[0];
  char* panel = reinterpret_cast<char*>(sums + sizes[1]);
  configure_tiles();
  for (int64_t start = 0; start < l.inputs; start += depth_block) {
    const int64_t depth = smaller(depth_block, l.inputs - start), steps = round_up(depth, 2 * lanes) / 2;
    copy_in_parts<of_input, T>(l, row, count, start, depth, rows, part_size);
    for (int64_t number = first; number < last; number++) {
      widen_in_parts(block_at(l, call.w, start, number), Bits{}, panel);
      for (int64_t at = 0; at < count; at += pair) {
        if (start + depth >= l.inputs) fetch_outputs(l, row + at, row + smaller(count, at + pair), number * columns);
        const auto run = count - at > tile_side ? multiply_parts<2, of_input, of_weight>
                                                : multiply_parts<1, of_input, of_weight>;
        run(rows + at * part_stride, part_size, panel, steps, sums + (number - first) * sums_size + at * columns,
            start > 0);
      }
    }
  }
  release_tiles();
  for (int64_t number = first; number < last; number++)
    call.finish(l, row, count, number * columns, sums + (number - first) * sums_size, nullptr);
}

}  // namespace
}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native

#endif
