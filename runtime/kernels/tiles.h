// The tile registers of AMX: eight of 16 rows x 64 bytes. A product takes a tile of rows (16 x 32 numbers of bf16,
// or 64 codes) and one of a packed weight (16 steps x 16 outputs, a step's inputs next to each other in a lane of 32
// bits), and adds to a tile of 16 x 16 sums.
//
// Their functions are written here and not taken from the compiler's header, which does not tell the compiler that a
// load reads memory.
#pragma once

#include "vector.h"

#if defined(EM_NATIVE_AMX)

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

constexpr int64_t tile_side = 16;   // rows of a tile, and lanes of 32 bits in a row
constexpr int64_t tile_bytes = 64;  // of a row

#if !defined(EM_NATIVE_EMULATED)

// Gives the calling thread its tiles, all eight of them whole: for each range of tasks, since others may have
// configured them. No object with a destructor, which would need the standard library's (vector.h says why not);
// nothing in between may throw.
EM_NATIVE_INLINE void configure_tiles() {
  struct alignas(64) {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
  } configuration = {};
  configuration.palette = 1;
  for (int i = 0; i < 8; i++) {
    configuration.bytes[i] = static_cast<uint16_t>(tile_bytes);
    configuration.rows[i] = static_cast<uint8_t>(tile_side);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(configuration));
}

// Otherwise the system would save them at every change of threads.
EM_NATIVE_INLINE void release_tiles() { __asm__ volatile("tilerelease"); }

template <int tile>
EM_NATIVE_INLINE void clear_tile() {
  __asm__ volatile("tilezero %%tmm%c0" : : "n"(tile));
}

template <int tile>
EM_NATIVE_INLINE void load_tile(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(from), "r"(stride), "n"(tile) : "memory");
}

template <int tile>
EM_NATIVE_INLINE void store_tile(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" : : "r"(to), "r"(stride), "n"(tile) : "memory");
}

template <int sums, int rows, int weights>
EM_NATIVE_INLINE void multiply_pair_tiles() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(sums), "n"(rows), "n"(weights));
}

template <int sums, int rows, int weights>
EM_NATIVE_INLINE void multiply_code_tiles() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "n"(sums), "n"(rows), "n"(weights));
}

#else
#include "emulated_amx.h"
#endif

// Tiles 0 to 3 are the sums of up to 32 rows and 32 columns, 4 and 5 the rows, 6 and 7 the weight.
template <int row_tiles, int column_tiles>
EM_NATIVE_INLINE void begin_sums(const char* sums, int64_t stride, bool accumulate) {
  const char* lower = sums + tile_side * stride;
  if (accumulate) {
    load_tile<0>(sums, stride);
    if constexpr (column_tiles > 1) load_tile<1>(sums + tile_bytes, stride);
    if constexpr (row_tiles > 1) load_tile<2>(lower, stride);
    if constexpr (row_tiles > 1 && column_tiles > 1) load_tile<3>(lower + tile_bytes, stride);
  } else {
    clear_tile<0>();
    if constexpr (column_tiles > 1) clear_tile<1>();
    if constexpr (row_tiles > 1) clear_tile<2>();
    if constexpr (row_tiles > 1 && column_tiles > 1) clear_tile<3>();
  }
}

template <int row_tiles, int column_tiles>
EM_NATIVE_INLINE void store_sums(char* sums, int64_t stride) {
  char* lower = sums + tile_side * stride;
  store_tile<0>(sums, stride);
  if constexpr (column_tiles > 1) store_tile<1>(sums + tile_bytes, stride);
  if constexpr (row_tiles > 1) store_tile<2>(lower, stride);
  if constexpr (row_tiles > 1 && column_tiles > 1) store_tile<3>(lower + tile_bytes, stride);
}

template <bool codes, int sums, int rows, int weights>
EM_NATIVE_INLINE void multiply_tile_registers() {
  if constexpr (codes)
    multiply_code_tiles<sums, rows, weights>();
  else
    multiply_pair_tiles<sums, rows, weights>();
}

// sums (+)= rows * weights for up to 32 rows and 32 columns, of which the last 16 may not be wanted. `steps`, of 32
// bits a row, is a multiple of 16. All strides are in bytes; a step of the weight has 32 columns (or 16), one behind
// the other. From `ahead` on `fetched` lines are fetched for each tile of steps. Rows that are not there are read,
// and their sums are written: there must be room for whole tiles.
template <bool codes, int row_tiles, int column_tiles>
void multiply_tiles(const void* rows, int64_t row_stride, const void* weights, int64_t steps, void* sums,
                    int64_t sum_stride, bool accumulate, const char* ahead, int64_t fetched) {
  constexpr int64_t step_bytes = column_tiles * tile_bytes;
  const char* a = static_cast<const char*>(rows);
  const char* b = static_cast<const char*>(weights);
  begin_sums<row_tiles, column_tiles>(static_cast<const char*>(sums), sum_stride, accumulate);
  for (int64_t k = 0; k < steps; k += tile_side) {
    load_tile<4>(a + k * 4, row_stride);
    load_tile<6>(b + k * step_bytes, step_bytes);
    multiply_tile_registers<codes, 0, 4, 6>();
    if constexpr (column_tiles > 1) {
      load_tile<7>(b + k * step_bytes + tile_bytes, step_bytes);
      multiply_tile_registers<codes, 1, 4, 7>();
    }
    if constexpr (row_tiles > 1) {
      load_tile<5>(a + tile_side * row_stride + k * 4, row_stride);
      multiply_tile_registers<codes, 2, 5, 6>();
      if constexpr (column_tiles > 1) multiply_tile_registers<codes, 3, 5, 7>();
    }
    for (int64_t i = 0; i < fetched; i++) __builtin_prefetch(ahead + (k / tile_side * fetched + i) * 64);
  }
  store_sums<row_tiles, column_tiles>(static_cast<char*>(sums), sum_stride);
}

}  // namespace
}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native

#endif
