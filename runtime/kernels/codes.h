// A row of numbers to codes from 0 to 255, with a scale and a zero of its own.
#pragma once

#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {

// `row(j, count)` gives the numbers from j on; all but the last vector are whole.
//
// The scale spans from the least to the largest number and includes 0, which is a code: padding and the zeros of an
// activation stay exact. A row with an infinite number or NaN gets a scale of NaN, so that its outputs are NaN too.
template <typename Row>
EM_NATIVE_INLINE void to_codes(int64_t size, Row row, uint8_t* codes, float* scale_and_zero) {
  Vec low = zero(), high = zero(), poison = zero();
  for (int64_t j = 0; j < size; j += lanes) {
    const Vec x = row(j, smaller(lanes, size - j));
    low = minimum(x, low);
    high = maximum(x, high);
    poison = multiply_add(x, zero(), poison);
  }
  const float least = -largest_of(subtract(zero(), low)), largest = largest_of(high);
  float scale = (largest - least) / 255.0f;
  // A row of zeros may have any scale; and the inverse must be finite.
  if (scale < 1e-30f) scale = 1e-30f;
  const Vec inverse = all(1.0f / scale);
  const Vec shift = nearest(multiply(all(-least), inverse));
  for (int64_t j = 0; j < size; j += lanes) {
    const int64_t count = smaller(lanes, size - j);
    const Vec rounded = add(nearest(multiply(row(j, count), inverse)), shift);
    store_codes(codes + j, to_ints(minimum(all(255.0f), maximum(zero(), rounded))), count);
  }
  float shifts[lanes];
  store(shifts, shift);
  scale_and_zero[0] = scale + sum_of(poison);
  scale_and_zero[1] = shifts[0];
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
