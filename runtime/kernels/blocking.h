// How linears are cut on one level: what packed weights look like depends on it.
#pragma once

#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {

// Registers hold a tile of rows x 2 vectors of sums, two vectors of the weight and one broadcast number. A panel of the
// weight, with as many inputs as a block has, takes at most three quarters of the first-level cache.
#if defined(EM_NATIVE_AVX512)
constexpr int linear_tile_rows = 12;
constexpr int64_t linear_depth = 256;
#else
constexpr int linear_tile_rows = 6;
constexpr int64_t linear_depth = 384;
#endif
constexpr int64_t linear_columns = 2 * lanes;
// Rows of a block at most: with as many inputs as a block has, they stay in the second-level cache.
constexpr int64_t linear_block = 96;
#if defined(EM_NATIVE_AMX)
// Tile registers take 32 bits of a row where the others take a number, so a block has as many lanes of each type; and
// rows come in pairs of tiles.
constexpr int64_t linear_half_depth = 2 * linear_depth, linear_code_depth = 4 * linear_depth;
constexpr int64_t linear_rows = 32;
// Products in tiles are so fast that the time is that of reading the weight: many rows share one reading.
constexpr int64_t linear_tiled_block = 256;
#else
constexpr int64_t linear_half_depth = linear_depth, linear_code_depth = linear_depth;
constexpr int64_t linear_rows = linear_tile_rows;
constexpr int64_t linear_tiled_block = linear_block;
#endif

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
