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

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
