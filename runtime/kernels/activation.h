// Activation functions on one level's vectors, for the end of a linear.
#pragma once

#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {

// x * P(x^2) / Q(x^2) between -1 and 1, for x between -top and top; beyond those it stays. The coefficients begin with
// that of the highest power.
template <int of_p, int of_q>
EM_NATIVE_INLINE Vec odd_ratio(Vec x, float top, const float (&p)[of_p], const float (&q)[of_q]) {
  // Where x is NaN it is the second one.
  x = minimum(all(top), maximum(all(-top), x));
  const Vec t = multiply(x, x);
  Vec above = all(p[0]), below = all(q[0]);
#pragma GCC unroll 8
  for (int i = 1; i < of_p; i++) above = multiply_add(above, t, all(p[i]));
#pragma GCC unroll 8
  for (int i = 1; i < of_q; i++) below = multiply_add(below, t, all(q[i]));
  return minimum(all(1.0f), maximum(all(-1.0f), divide_quickly(multiply(x, above), below)));
}

// erf(x) to 3e-7; exactly 1 and -1 from 4 on.
EM_NATIVE_INLINE Vec error_function(Vec x) {
  constexpr float p[] = {2.01174134e-6f, 2.87601346e-4f, 3.91733879e-3f, 5.32071218e-2f, 1.94036156e-1f, 1.12837899f};
  constexpr float q[] = {3.78397381e-5f, 1.19820645e-3f, 1.52707426e-2f, 1.15590945e-1f, 5.05291522e-1f, 1.0f};
  return odd_ratio(x, 4.0f, p, q);
}

// erf(x / sqrt(2)) to 1e-5, a hundredth of what rounding to bf16 loses; exactly 1 and -1 from 4.5 on.
EM_NATIVE_INLINE Vec error_function_coarse(Vec x) {
  constexpr float p[] = {6.667405e-5f, 7.6644924e-3f, 5.476771e-2f, 0.7978721f};
  constexpr float q[] = {1.16681e-3f, 2.3806585e-2f, 0.2352852f, 1.0f};
  return odd_ratio(x, 4.5f, p, q);
}

// 1 / (1 + exp(-x)), without exp of a number over 0.
EM_NATIVE_INLINE Vec sigmoid(Vec x) {
  const Vec e = exponential(where_negative(x, x, subtract(zero(), x)));
  return divide_quickly(where_negative(x, e, all(1.0f)), add(e, all(1.0f)));
}

// `coarse`: the result will be rounded to bf16.
template <Activation activation, bool coarse = false>
EM_NATIVE_INLINE Vec activate(Vec x) {
  if constexpr (activation == Activation::gelu) {
    const Vec half = multiply(x, all(0.5f));
    if constexpr (coarse) return multiply_add(half, error_function_coarse(x), half);
    return multiply_add(half, error_function(multiply(x, all(0.70710678118654752f))), half);
  }
  if constexpr (activation == Activation::gelu_tanh) {
    // x * (1 + tanh(u)) / 2 is x * sigmoid(2u).
    const Vec cube = multiply(multiply(x, x), multiply(x, all(0.044715f)));
    return multiply(x, sigmoid(multiply(add(x, cube), all(1.5957691216057308f))));
  }
  // Where x is NaN it is the second one.
  if constexpr (activation == Activation::relu) return maximum(zero(), x);
  if constexpr (activation == Activation::silu) return multiply(x, sigmoid(x));
  if constexpr (activation == Activation::sigmoid) return sigmoid(x);
  if constexpr (activation == Activation::tanh) {
    // (1 - e) / (1 + e) with e = exp(-2|x|), and the sign of x.
    const Vec size = where_negative(x, subtract(zero(), x), x);
    const Vec e = exponential(multiply(size, all(-2.0f)));
    const Vec whole = divide_quickly(subtract(all(1.0f), e), add(all(1.0f), e));
    return where_negative(x, subtract(zero(), whole), whole);
  }
  return x;
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
