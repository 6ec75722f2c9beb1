// Linears whose weights are codes of 8 or 4 bits, on one level's vectors: the codes are widened where they are used, and
// the inputs stay as they are.
//
// For few rows, such as the one token that a generation reads at a time, the time is that of reading the codes from
// memory: they are widened in registers, once for up to a tile of rows, and several panels are computed together where
// the sums of one would wait for each other. For many rows a panel is widened to fp32 in the thread's memory and goes
// through the same tile as a weight of fp32.
//
// A code of 8 bits is a number, and the output's scale comes last. Of codes of 4 bits each group has a sum of its own: a
// code is a number times a power of 16, so that no shift is needed, and the input was divided by that power; the group's
// zero takes part as the sum of its inputs.
//
// Few rows and many go through the same operations in the same order, blocks of inputs included, so that an output does
// not depend on the number of rows. Where there are tile registers, many rows go through those (coded_tiles.h).
#include "coded.h"
#include "coded_tiles.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// Behind the copied inputs of a row stand their sums per group, of which a block has at most 12.
constexpr int64_t sums_at = depth_block;
static_assert(depth_block / 32 <= row_stride - depth_block, "room for the sums of each group of 32");

constexpr int smaller_of(int a, int b) { return a < b ? a : b; }

// How many vectors of sums are computed together for so many rows, a part of a panel or several ones.
template <class Bits>
constexpr int together(int rows) {
  const int room = rows == 1 ? Bits::alone : rows == 2 ? 4 : rows == 3 ? smaller_of(4, panel_vectors) : 2;
  return room;
}

// sums (+)= copied rows at a * codes, for vectors beginning with number `first` of the block's first panel.
template <int rows, int vectors>
EM_NATIVE_INLINE void add_products(const Block& b, Eight, const float* a, int first, Vec (*sums)[vectors]) {
  const int8_t* from[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; v++)
    from[v] = reinterpret_cast<const int8_t*>(b.codes) + (first + v) / panel_vectors * b.panel_bytes +
              (first + v) % panel_vectors * lanes;
  auto one = [&](int64_t k) __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
      const Vec w = to_floats(load_ints(from[v] + k * code_columns));
#pragma GCC unroll 12
      for (int i = 0; i < rows; i++) sums[i][v] = multiply_add(all(a[i * row_stride + k]), w, sums[i][v]);
    }
  };
  int64_t k = 0;
  for (; k + 2 <= b.inputs; k += 2) {
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v += panel_vectors) __builtin_prefetch(from[v] + k * code_columns + ahead);
    one(k);
    one(k + 1);
  }
  if (k < b.inputs) one(k);
}

// The sums of a group: the zero's share first, then the products; and then all of it times the scale to what was there.
template <int rows, int vectors>
EM_NATIVE_INLINE void add_products(const Block& b, Four, const float* a, int first, Vec (*totals)[vectors]) {
  const char* from[vectors];
#pragma GCC unroll 8
  for (int v = 0; v < vectors; v++)
    from[v] = b.codes + (first + v) / panel_vectors * b.panel_bytes + (first + v) % panel_vectors * lanes * 4;
  for (int64_t start = 0; start < b.inputs; start += b.group) {
    Vec sums[rows][vectors], scale[vectors];
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) {
      Vec minus_zero;
      group_of(b, first + v, start / b.group, scale[v], minus_zero);
#pragma GCC unroll 12
      for (int i = 0; i < rows; i++)
        sums[i][v] = multiply(all(a[i * row_stride + sums_at + start / b.group]), minus_zero);
    }
    const int64_t end = smaller(b.inputs, start + b.group);
    for (int64_t k = start; k < end; k += 8) {
      Ints codes[vectors];
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) {
        const char* p = from[v] + k / 2 * code_columns;
        if (v % 2 == 0) __builtin_prefetch(p + ahead);
        codes[v] = load_ints(p);
      }
      auto one = [&](auto number) __attribute__((always_inline)) {
        constexpr int j = decltype(number)::value;
#pragma GCC unroll 8
        for (int v = 0; v < vectors; v++) {
          const Vec w = widen_code<j>(codes[v]);
          // Copied rows are 0 behind the last input.
#pragma GCC unroll 12
          for (int i = 0; i < rows; i++) sums[i][v] = multiply_add(all(a[i * row_stride + k + j]), w, sums[i][v]);
        }
      };
      one(Number<0>{}), one(Number<1>{}), one(Number<2>{}), one(Number<3>{});
      one(Number<4>{}), one(Number<5>{}), one(Number<6>{}), one(Number<7>{});
    }
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
      for (int v = 0; v < vectors; v++) totals[i][v] = multiply_add(sums[i][v], scale[v], totals[i][v]);
  }
}

// The sums of some rows in a block, for vectors from number `first` on; they lie in parts of `columns` outputs.
template <class Bits, int rows, int vectors>
void few_rows(const Block& b, const float* a, int first, float* to, int64_t part_size, bool accumulate) {
  Vec sums[rows][vectors];
  auto place = [&](int i, int v) __attribute__((always_inline)) {
    return to + (first + v) / 2 * part_size + i * columns + (first + v) % 2 * lanes;
  };
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++) sums[i][v] = Bits::continued && accumulate ? load(place(i, v)) : zero();
  add_products<rows, vectors>(b, Bits{}, a, first, sums);
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; v++)
      store(place(i, v), !Bits::continued && accumulate ? add(load(place(i, v)), sums[i][v]) : sums[i][v]);
}

// All vectors of some panels, as many at a time as fit.
template <class Bits, int rows>
void few_rows_panels(const Block& b, const float* a, int panels, float* to, int64_t part_size, bool accumulate) {
  constexpr int most = together<Bits>(rows);
  int v = 0;
  for (; v + most <= panels * panel_vectors; v += most)
    few_rows<Bits, rows, most>(b, a, v, to, part_size, accumulate);
  // `most` may be several panels; what is left are whole ones.
  if constexpr (most > panel_vectors)
    for (; v < panels * panel_vectors; v += panel_vectors)
      few_rows<Bits, rows, panel_vectors>(b, a, v, to, part_size, accumulate);
}

template <class Bits>
using FewRows = void (*)(const Block&, const float*, int, float*, int64_t, bool);

template <class Bits>
EM_NATIVE_INLINE FewRows<Bits> few_rows_of(int64_t rows) {
  static constexpr FewRows<Bits> all_of_them[] = {
      few_rows_panels<Bits, 1>, few_rows_panels<Bits, 2>,  few_rows_panels<Bits, 3>,
      few_rows_panels<Bits, 4>, few_rows_panels<Bits, 5>,  few_rows_panels<Bits, 6>,
#if defined(EM_NATIVE_AVX512)
      few_rows_panels<Bits, 7>, few_rows_panels<Bits, 8>,  few_rows_panels<Bits, 9>,
      few_rows_panels<Bits, 10>, few_rows_panels<Bits, 11>, few_rows_panels<Bits, 12>,
#endif
  };
  return all_of_them[rows - 1];
}

// A part of the block's first panel as numbers: [inputs, columns].
void widen(const Block& b, Eight, int64_t part, float* to) {
  const int8_t* from = reinterpret_cast<const int8_t*>(b.codes) + part * columns;
  for (int64_t k = 0; k < b.inputs; k++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) store(to + k * columns + v * lanes, to_floats(load_ints(from + k * code_columns + v * lanes)));
}

// Codes alone, each times the power of 16 that its copied input was divided by; behind them come for each group two
// vectors of scales and two of zeros with the other sign.
void widen(const Block& b, Four, int64_t part, float* to) {
  const char* from = b.codes + part * columns * 4;
  float* groups = to + (depth_block + 8) * columns;
  for (int64_t k = 0; k < b.inputs; k += 8)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      const Ints codes = load_ints(from + k / 2 * code_columns + v * lanes * 4);
      // Up to 7 inputs behind the last one: there is room for them, and they are not read.
      auto one = [&](auto number) __attribute__((always_inline)) {
        constexpr int j = decltype(number)::value;
        store(to + (k + j) * columns + v * lanes, widen_code<j>(codes));
      };
      one(Number<0>{}), one(Number<1>{}), one(Number<2>{}), one(Number<3>{});
      one(Number<4>{}), one(Number<5>{}), one(Number<6>{}), one(Number<7>{});
    }
  for (int64_t group = 0; group * b.group < b.inputs; group++)
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      Vec scale, minus_zero;
      group_of(b, static_cast<int>(2 * part) + v, group, scale, minus_zero);
      store(groups + group * 2 * columns + v * lanes, scale);
      store(groups + group * 2 * columns + columns + v * lanes, minus_zero);
    }
}

// As `tile`, for what `widen` made of codes of 4 bits.
template <int rows>
void group_tile(const float* a, const float* panel, int64_t inputs, int64_t group, float* to, bool accumulate) {
  const float* groups = panel + (depth_block + 8) * columns;
  for (int64_t start = 0; start < inputs; start += group, groups += 2 * columns) {
    Vec sums[rows][2];
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++)
        sums[i][v] = multiply(all(a[i * row_stride + sums_at + start / group]), load(groups + columns + v * lanes));
    const int64_t end = smaller(inputs, start + group);
    int64_t k = start;
    for (; k + 4 <= end; k += 4)
#pragma GCC unroll 4
      for (int j = 0; j < 4; j++)
        step<Floats, rows>(a + k + j, reinterpret_cast<const char*>(panel + (k + j) * columns), sums);
    for (; k < end; k++) step<Floats, rows>(a + k, reinterpret_cast<const char*>(panel + k * columns), sums);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++) {
        float* p = to + i * columns + v * lanes;
        store(p, multiply_add(sums[i][v], load(groups + v * lanes), accumulate || start > 0 ? load(p) : zero()));
      }
  }
}

using GroupTile = void (*)(const float*, const float*, int64_t, int64_t, float*, bool);

EM_NATIVE_INLINE GroupTile group_tile_of(int64_t rows) {
  static constexpr GroupTile tiles[] = {
      group_tile<1>, group_tile<2>, group_tile<3>, group_tile<4>,  group_tile<5>,  group_tile<6>,
#if defined(EM_NATIVE_AVX512)
      group_tile<7>, group_tile<8>, group_tile<9>, group_tile<10>, group_tile<11>, group_tile<12>,
#endif
  };
  return tiles[rows - 1];
}

EM_NATIVE_INLINE void multiply_tile(const Block&, Eight, const float* a, int64_t rows, const float* panel, int64_t depth,
                                    float* to, bool accumulate) {
  const char* numbers = reinterpret_cast<const char*>(panel);
  tile_of<Floats>(rows)(a, numbers, depth, to, accumulate, numbers, 0);
}

EM_NATIVE_INLINE void multiply_tile(const Block& b, Four, const float* a, int64_t rows, const float* panel,
                                    int64_t depth, float* to, bool accumulate) {
  group_tile_of(rows)(a, panel, depth, b.group, to, accumulate);
}

// Copied inputs as the products with codes take them.
EM_NATIVE_INLINE void prepare_rows(const CodedWeight&, Eight, int64_t, int64_t, float*) {}

// A row's sums per group, and then each input divided by its power of 16.
void prepare_rows(const CodedWeight& w, Four, int64_t rows, int64_t inputs, float* copied) {
  float powers[lanes];
  for (int64_t i = 0; i < lanes; i++) powers[i] = i % 8 == 7 ? 1.0f : 1.0f / static_cast<float>(1 << 4 * (i % 8));
  const Vec factors = load(powers);
  for (int64_t i = 0; i < rows; i++) {
    float* row = copied + i * row_stride;
    for (int64_t start = 0; start < inputs; start += w.group) {
      Vec sum = zero();
      for (int64_t k = start; k < smaller(inputs, start + w.group); k += lanes) {
        const Vec x = load(row + k);
        sum = add(sum, x);
        store(row + k, multiply(x, factors));
      }
      row[sums_at + start / w.group] = sum_of(sum);
    }
  }
}

// Sums of `panels` panels to outputs.
EM_NATIVE_INLINE void finish_panels(const CodedCall& call, int64_t row, int64_t count, int64_t panel, int64_t panels,
                                    const float* sums, int64_t part_size) {
  for (int64_t part = 0; part < panels * parts; part++) {
    const int64_t output = panel * code_columns + part * columns;
    if (output < call.l.outputs) call.finish(call.l, row, count, output, sums + part * part_size, nullptr);
  }
}

// All rows of the call, and the panels [first, last): each panel's codes are read from one end to the other.
template <class Bits>
void multiply_few(const CodedCall& call, int64_t first, int64_t last) {
  const Linear& l = call.l;
  constexpr int64_t most = Bits::alone > panel_vectors ? Bits::alone / panel_vectors : 1;
  const int64_t rows = l.rows, block_size = rows * row_stride, part_size = rows * columns;
  const int64_t blocks = (l.inputs + depth_block - 1) / depth_block, tiles = (rows + tile_rows - 1) / tile_rows;
  const int64_t count = blocks * block_size + most * parts * part_size;
  float* copied = static_cast<float*>(scratch(static_cast<size_t>(count) * sizeof(float)));
  float* sums = copied + blocks * block_size;
  for (int64_t i = 0; i < blocks; i++) {
    const int64_t depth = smaller(depth_block, l.inputs - i * depth_block);
    call.copy(l, 0, rows, i * depth_block, depth, copied + i * block_size);
    prepare_rows(call.w, Bits{}, rows, depth, copied + i * block_size);
  }
  for (int64_t panel = first; panel < last; panel += most) {
    const int64_t panels = smaller(most, last - panel);
    for (int64_t i = 0; i < blocks; i++) {
      const Block b = block_at(l, call.w, i * depth_block, panel);
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t at = rows * t / tiles, end = rows * (t + 1) / tiles;
        few_rows_of<Bits>(end - at)(b, copied + i * block_size + at * row_stride, static_cast<int>(panels),
                                    sums + at * columns, part_size, i > 0);
      }
    }
    finish_panels(call, 0, rows, panel, panels, sums, part_size);
  }
}

// A block of rows, and the panels [first, last), at most `kept_code_panels`.
template <class Bits>
void multiply_many(const CodedCall& call, int64_t height, int64_t row, int64_t count, int64_t first, int64_t last) {
  const Linear& l = call.l;
  const int64_t tiles = (count + tile_rows - 1) / tile_rows, part_size = height * columns;
  const int64_t sizes[] = {height * row_stride, kept_code_panels * parts * part_size,
                           (depth_block + 8 + 2 * depth_block / 32) * columns};
  float* rows = static_cast<float*>(scratch(static_cast<size_t>(sizes[0] + sizes[1] + sizes[2]) * sizeof(float)));
  float *sums = rows + sizes[0], *numbers = sums + sizes[1];
  for (int64_t start = 0; start < l.inputs; start += depth_block) {
    const int64_t depth = smaller(depth_block, l.inputs - start);
    call.copy(l, row, count, start, depth, rows);
    prepare_rows(call.w, Bits{}, count, depth, rows);
    for (int64_t part = 0; part < (last - first) * parts; part++) {
      const Block b = block_at(l, call.w, start, first + part / parts);
      widen(b, Bits{}, part % parts, numbers);
      for (int64_t t = 0; t < tiles; t++) {
        const int64_t at = count * t / tiles, end = count * (t + 1) / tiles;
        if (start + depth >= l.inputs) fetch_outputs(l, row + at, row + end, first * code_columns + part * columns);
        multiply_tile(b, Bits{}, rows + at * row_stride, end - at, numbers, depth,
                      sums + part * part_size + at * columns, start > 0);
      }
    }
  }
  finish_panels(call, row, count, first, last - first, sums, part_size);
}

template <class Bits, typename T>
void run(const Linear& l, const CodedWeight& w, const LinearPlan& plan, int64_t first_task, int64_t last_task) {
  const CodedCall call{l, w, copy_rows<Floats, T>, finish_of<Floats, T>(l.activation)};
  if (l.rows < few) return multiply_few<Bits>(call, first_task, last_task);
  const int64_t panels = (l.outputs + code_columns - 1) / code_columns;
  for (int64_t task = first_task; task < last_task;) {
    const int64_t row = task / panels * plan.height, first = task % panels;
    const int64_t last = smaller(smaller(panels, first + last_task - task), first + kept_code_panels);
    const int64_t count = smaller(plan.height, l.rows - row);
#if defined(EM_NATIVE_AMX)
    if (!Bits::continued || l.inputs >= least_tiled_inputs)
      multiply_many_in_tiles<Bits, T>(call, plan.height, row, count, first, last);
    else
#endif
      multiply_many<Bits>(call, plan.height, row, count, first, last);
    task += last - first;
  }
}

}  // namespace

void linear_codes(const Linear& l, const CodedWeight& w, const LinearPlan& plan, int64_t first_task, int64_t last_task) {
  const bool halves = l.type == Type::bf16;
  if (w.bits == 8)
    halves ? run<Eight, uint16_t>(l, w, plan, first_task, last_task) : run<Eight, float>(l, w, plan, first_task, last_task);
  else
    halves ? run<Four, uint16_t>(l, w, plan, first_task, last_task) : run<Four, float>(l, w, plan, first_task, last_task);
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
