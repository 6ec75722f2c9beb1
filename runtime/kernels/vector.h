// A vector of floats of the level that is being compiled, with the few operations that the kernels need.
//
// An own wrapper and not a library such as Highway: the kernels need some thirty operations on one type, and the levels
// are five; a library would be one more thing to have at build time. Everything lies in a namespace of the level, and
// nothing here or in the kernels uses a template or inline function of the standard library: the linker keeps one copy
// of such a function, and it could be the one compiled with AVX-512.
#pragma once

#if defined(EM_NATIVE_EMULATED)
// For tests on processors without AVX-512 (EM_NATIVE_EMULATE in CMakeLists.txt, which says what the level has): its
// functions, written with AVX2.
#include "emulated_avx512.h"
#else
#include <immintrin.h>
#if defined(__AVX512F__)
#define EM_NATIVE_AVX512
#endif
#if defined(__AVX512VNNI__)
#define EM_NATIVE_AVX512_VNNI
#endif
#if defined(__AVX512BF16__)
#define EM_NATIVE_AVX512_BF16
#endif
#endif

#include <cstdint>

#include "kernels.h"

#ifndef EM_NATIVE_LEVEL
#error "EM_NATIVE_LEVEL must name the level: avx2, avx512, avx512_vnni, avx512_bf16 or amx"
#endif
#define EM_NATIVE_TEXT_(name) #name
#define EM_NATIVE_TEXT(name) EM_NATIVE_TEXT_(name)
#define EM_NATIVE_INLINE static inline __attribute__((always_inline))

namespace em_native {
namespace EM_NATIVE_LEVEL {

EM_NATIVE_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
EM_NATIVE_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
EM_NATIVE_INLINE int64_t round_up(int64_t a, int64_t multiple) { return (a + multiple - 1) / multiple * multiple; }
EM_NATIVE_INLINE float minus_infinity() { return -__builtin_inff(); }

#if defined(EM_NATIVE_AVX512)

using Vec = __m512;
constexpr int64_t lanes = 16;

// The first `count` lanes, 0 to 16.
EM_NATIVE_INLINE __mmask16 first(int64_t count) { return static_cast<__mmask16>((1u << count) - 1); }

EM_NATIVE_INLINE Vec zero() { return _mm512_setzero_ps(); }
EM_NATIVE_INLINE Vec all(float x) { return _mm512_set1_ps(x); }
EM_NATIVE_INLINE Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
EM_NATIVE_INLINE Vec subtract(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
EM_NATIVE_INLINE Vec multiply(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
EM_NATIVE_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// The second one where either is NaN.
EM_NATIVE_INLINE Vec maximum(Vec a, Vec b) { return _mm512_max_ps(a, b); }
EM_NATIVE_INLINE Vec minimum(Vec a, Vec b) { return _mm512_min_ps(a, b); }
EM_NATIVE_INLINE Vec divide(Vec a, Vec b) { return _mm512_div_ps(a, b); }
// The same to about one unit in the last place, for b from 1e-30 to 1e30; a division takes longer than these together.
EM_NATIVE_INLINE Vec divide_quickly(Vec a, Vec b) {
#if defined(EM_NATIVE_EMULATED)
  return divide(a, b);
#else
  Vec r = _mm512_rcp14_ps(b);
  r = _mm512_fmadd_ps(_mm512_fnmadd_ps(b, r, _mm512_set1_ps(1.0f)), r, r);
  const Vec q = _mm512_mul_ps(a, r);
  return _mm512_fmadd_ps(_mm512_fnmadd_ps(b, q, a), r, q);
#endif
}
// `then` where a < 0, `otherwise` where not (and where a is NaN).
EM_NATIVE_INLINE Vec where_negative(Vec a, Vec then, Vec otherwise) {
  return _mm512_mask_mov_ps(otherwise, _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_LT_OQ), then);
}
EM_NATIVE_INLINE float sum_of(Vec a) { return _mm512_reduce_add_ps(a); }
EM_NATIVE_INLINE float largest_of(Vec a) { return _mm512_reduce_max_ps(a); }

EM_NATIVE_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
EM_NATIVE_INLINE Vec widen(__m256i x) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
EM_NATIVE_INLINE Vec load(const uint16_t* p) {
  return widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// The first `count` lanes; the others are 0, and their memory is not touched.
EM_NATIVE_INLINE Vec load_first(const float* p, int64_t count) { return _mm512_maskz_loadu_ps(first(count), p); }
EM_NATIVE_INLINE Vec load_first(const uint16_t* p, int64_t count) {
  return widen(_mm256_maskz_loadu_epi16(first(count), p));
}
EM_NATIVE_INLINE void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
EM_NATIVE_INLINE void store_first(float* p, Vec a, int64_t count) { _mm512_mask_storeu_ps(p, first(count), a); }

#if defined(EM_NATIVE_AVX512_BF16)
EM_NATIVE_INLINE __m256i narrow(Vec a) { return (__m256i)_mm512_cvtneps_pbh(a); }
// Both hold pairs of bf16 in each lane: c + a.low * b.low + a.high * b.high.
EM_NATIVE_INLINE Vec multiply_add_pairs(Vec a, Vec b, Vec c) {
  return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b);
}
EM_NATIVE_INLINE Vec rounded_to_bf16(Vec a) { return widen(narrow(a)); }
// Stores it rounded to bf16. The result: what the rounding left.
EM_NATIVE_INLINE Vec store_rounded(uint16_t* p, Vec a) {
  const __m256i halves = narrow(a);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), halves);
  return _mm512_sub_ps(a, widen(halves));
}
// As many bf16 as fit, up to `count`, in pairs.
EM_NATIVE_INLINE Vec load_pairs(const uint16_t* p, int64_t count) {
  if (count >= 2 * lanes) return _mm512_castsi512_ps(_mm512_loadu_si512(p));
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1ull << count) - 1), p));
}
// The same of fp32, rounded to bf16.
EM_NATIVE_INLINE Vec load_pairs(const float* p, int64_t count) {
  const __m256i low = narrow(count >= lanes ? load(p) : load_first(p, count));
  const __m256i high = count <= lanes       ? _mm256_setzero_si256()
                       : count >= 2 * lanes ? narrow(load(p + lanes))
                                            : narrow(load_first(p + lanes, count - lanes));
  return _mm512_castsi512_ps(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
// Lane i: a pair of a[i] and b[i], which are widened bf16.
EM_NATIVE_INLINE Vec pair_up(Vec a, Vec b) {
  const __m512i low = _mm512_srli_epi32(_mm512_castps_si512(a), 16);
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_castps_si512(b)));
}
// The same of any numbers, rounded to bf16.
EM_NATIVE_INLINE Vec pair_up_rounded(Vec a, Vec b) {
  const __m512i low = _mm512_cvtepu16_epi32(narrow(a)), high = _mm512_cvtepu16_epi32(narrow(b));
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}
#else
// To nearest, ties to even; NaN stays NaN.
EM_NATIVE_INLINE __m256i narrow(Vec a) {
  const __m512i bits = _mm512_castps_si512(a);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  rounded = _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded, 16));
}
#endif
EM_NATIVE_INLINE void store(uint16_t* p, Vec a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a)); }
EM_NATIVE_INLINE void store_first(uint16_t* p, Vec a, int64_t count) {
  _mm256_mask_storeu_epi16(p, first(count), narrow(a));
}

// Lanes from `from` on and before `to` are kept, the others are `other`; both 0 to 16.
EM_NATIVE_INLINE Vec keep(Vec a, int64_t from, int64_t to, Vec other) {
  return _mm512_mask_mov_ps(other, static_cast<__mmask16>(first(to) & ~first(from)), a);
}

EM_NATIVE_INLINE Vec nearest(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT); }
// a * 2^floor(n); to 0 where that is too small.
EM_NATIVE_INLINE Vec times_power_of_two(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }

EM_NATIVE_INLINE void transpose(Vec* rows) {
  Vec t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) {
    t[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
  auto low = [](Vec a, Vec b) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
  auto high = [](Vec a, Vec b) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
  };
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    rows[4 * i] = low(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 1] = high(t[4 * i], t[4 * i + 2]);
    rows[4 * i + 2] = low(t[4 * i + 1], t[4 * i + 3]);
    rows[4 * i + 3] = high(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(rows[i], rows[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(rows[i + 8], rows[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(rows[i + 8], rows[i + 12], 0xdd);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    rows[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    rows[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    rows[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

// Whole numbers of 32 bits, of which sums and products wrap around.
using Ints = __m512i;
EM_NATIVE_INLINE Ints zero_ints() { return _mm512_setzero_si512(); }
EM_NATIVE_INLINE Ints all_ints(int32_t x) { return _mm512_set1_epi32(x); }
EM_NATIVE_INLINE Ints load_ints(const void* p) { return _mm512_loadu_si512(p); }
EM_NATIVE_INLINE void store_ints(void* p, Ints a) { _mm512_storeu_si512(p, a); }
EM_NATIVE_INLINE Ints add(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
EM_NATIVE_INLINE Ints subtract(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
EM_NATIVE_INLINE Ints multiply(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
EM_NATIVE_INLINE Vec to_floats(Ints a) { return _mm512_cvtepi32_ps(a); }
EM_NATIVE_INLINE Ints both(Ints a, Ints b) { return _mm512_and_si512(a, b); }
template <int bits>
EM_NATIVE_INLINE Ints shift_right(Ints a) {
  return _mm512_srli_epi32(a, bits);
}
template <int bits>
EM_NATIVE_INLINE Ints shift_left(Ints a) {
  return _mm512_slli_epi32(a, bits);
}
EM_NATIVE_INLINE Vec bits_to_floats(Ints a) { return _mm512_castsi512_ps(a); }
// As many numbers of 8 or 16 bits as a vector has lanes.
EM_NATIVE_INLINE Ints load_ints(const int8_t* p) {
  return _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
EM_NATIVE_INLINE Ints load_ints(const int16_t* p) {
  return _mm512_cvtepi16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
// The nearest, ties to even.
EM_NATIVE_INLINE Ints to_ints(Vec a) { return _mm512_cvtps_epi32(a); }
// The lower and the upper bf16 of each lane.
EM_NATIVE_INLINE Vec low_bf16(Ints a) { return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16)); }
EM_NATIVE_INLINE Vec high_bf16(Ints a) {
  return _mm512_castsi512_ps(_mm512_and_si512(a, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// Lanes from 0 to 255 as bytes.
EM_NATIVE_INLINE void store_codes(uint8_t* p, Ints a, int64_t count) {
  _mm_mask_storeu_epi8(p, first(count), _mm512_cvtepi32_epi8(a));
}
#if defined(EM_NATIVE_AVX512_VNNI)
// A step of codes takes four inputs: of each lane of a four numbers from 0 to 255, of b four from -128 to 127.
constexpr int64_t codes_per_step = 4;
EM_NATIVE_INLINE Ints load_code_weights(const int8_t* p) { return _mm512_loadu_si512(p); }
EM_NATIVE_INLINE Ints multiply_add_codes(Ints a, Ints b, Ints c) { return _mm512_dpbusd_epi32(c, a, b); }
#else
// A step of codes takes two inputs, widened to 16 bits.
constexpr int64_t codes_per_step = 2;
EM_NATIVE_INLINE Ints load_code_weights(const int8_t* p) {
  return _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
EM_NATIVE_INLINE Ints multiply_add_codes(Ints a, Ints b, Ints c) {
  c = _mm512_add_epi32(c, _mm512_madd_epi16(a, b));
#if !defined(EM_NATIVE_EMULATED)
  // Else the compiler adds the products of several steps first, for which there are not enough registers.
  __asm__("" : "+v"(c));
#endif
  return c;
}
#endif

#else  // AVX2 and FMA

using Vec = __m256;
constexpr int64_t lanes = 8;

// The first `count` lanes, 0 to 8.
EM_NATIVE_INLINE __m256i first(int64_t count) {
  const __m256i number = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), number);
}

EM_NATIVE_INLINE Vec zero() { return _mm256_setzero_ps(); }
EM_NATIVE_INLINE Vec all(float x) { return _mm256_set1_ps(x); }
EM_NATIVE_INLINE Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
EM_NATIVE_INLINE Vec subtract(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
EM_NATIVE_INLINE Vec multiply(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
EM_NATIVE_INLINE Vec multiply_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
EM_NATIVE_INLINE Vec maximum(Vec a, Vec b) { return _mm256_max_ps(a, b); }
EM_NATIVE_INLINE Vec minimum(Vec a, Vec b) { return _mm256_min_ps(a, b); }
EM_NATIVE_INLINE Vec divide(Vec a, Vec b) { return _mm256_div_ps(a, b); }
EM_NATIVE_INLINE Vec divide_quickly(Vec a, Vec b) { return divide(a, b); }
EM_NATIVE_INLINE Vec where_negative(Vec a, Vec then, Vec otherwise) {
  return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(a, _mm256_setzero_ps(), _CMP_LT_OQ));
}
EM_NATIVE_INLINE float sum_of(Vec a) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}
EM_NATIVE_INLINE float largest_of(Vec a) {
  __m128 s = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  s = _mm_max_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_max_ss(s, _mm_shuffle_ps(s, s, 1)));
}

EM_NATIVE_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
EM_NATIVE_INLINE Vec widen(__m128i x) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
EM_NATIVE_INLINE Vec load(const uint16_t* p) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))); }
EM_NATIVE_INLINE Vec load_first(const float* p, int64_t count) { return _mm256_maskload_ps(p, first(count)); }
EM_NATIVE_INLINE Vec load_first(const uint16_t* p, int64_t count) {
  uint16_t all_of_them[8] = {};
  for (int64_t i = 0; i < count; i++) all_of_them[i] = p[i];
  return load(all_of_them);
}
EM_NATIVE_INLINE void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
EM_NATIVE_INLINE void store_first(float* p, Vec a, int64_t count) { _mm256_maskstore_ps(p, first(count), a); }
// To nearest, ties to even; NaN stays NaN.
EM_NATIVE_INLINE __m128i narrow(Vec a) {
  const __m256i bits = _mm256_castps_si256(a);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
  rounded = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc00000), nan), 16);
  return _mm_packus_epi32(_mm256_castsi256_si128(rounded), _mm256_extracti128_si256(rounded, 1));
}
EM_NATIVE_INLINE void store(uint16_t* p, Vec a) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(a)); }
EM_NATIVE_INLINE void store_first(uint16_t* p, Vec a, int64_t count) {
  uint16_t all_of_them[8];
  store(all_of_them, a);
  for (int64_t i = 0; i < count; i++) p[i] = all_of_them[i];
}

EM_NATIVE_INLINE Vec keep(Vec a, int64_t from, int64_t to, Vec other) {
  const __m256i kept = _mm256_andnot_si256(first(from), first(to));
  return _mm256_blendv_ps(other, a, _mm256_castsi256_ps(kept));
}

EM_NATIVE_INLINE Vec nearest(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
EM_NATIVE_INLINE Vec times_power_of_two(Vec a, Vec n) {
  // Below the smallest exponent: to 0. NaN stays, for it is not smaller.
  const Vec least = all(-126.0f);
  const Vec too_small = _mm256_cmp_ps(n, least, _CMP_LT_OQ);
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  const Vec power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  return _mm256_andnot_ps(too_small, _mm256_mul_ps(a, power));
}

EM_NATIVE_INLINE void transpose(Vec* rows) {
  Vec t[8];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
    t[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    rows[4 * i] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0x44);
    rows[4 * i + 1] = _mm256_shuffle_ps(t[4 * i], t[4 * i + 2], 0xee);
    rows[4 * i + 2] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0x44);
    rows[4 * i + 3] = _mm256_shuffle_ps(t[4 * i + 1], t[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm256_permute2f128_ps(rows[i], rows[i + 4], 0x20);
    t[i + 4] = _mm256_permute2f128_ps(rows[i], rows[i + 4], 0x31);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) rows[i] = t[i];
}

using Ints = __m256i;
EM_NATIVE_INLINE Ints zero_ints() { return _mm256_setzero_si256(); }
EM_NATIVE_INLINE Ints all_ints(int32_t x) { return _mm256_set1_epi32(x); }
EM_NATIVE_INLINE Ints load_ints(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
EM_NATIVE_INLINE void store_ints(void* p, Ints a) { _mm256_storeu_si256(static_cast<__m256i*>(p), a); }
EM_NATIVE_INLINE Ints add(Ints a, Ints b) { return _mm256_add_epi32(a, b); }
EM_NATIVE_INLINE Ints subtract(Ints a, Ints b) { return _mm256_sub_epi32(a, b); }
EM_NATIVE_INLINE Ints multiply(Ints a, Ints b) { return _mm256_mullo_epi32(a, b); }
EM_NATIVE_INLINE Vec to_floats(Ints a) { return _mm256_cvtepi32_ps(a); }
EM_NATIVE_INLINE Ints both(Ints a, Ints b) { return _mm256_and_si256(a, b); }
template <int bits>
EM_NATIVE_INLINE Ints shift_right(Ints a) {
  return _mm256_srli_epi32(a, bits);
}
template <int bits>
EM_NATIVE_INLINE Ints shift_left(Ints a) {
  return _mm256_slli_epi32(a, bits);
}
EM_NATIVE_INLINE Vec bits_to_floats(Ints a) { return _mm256_castsi256_ps(a); }
EM_NATIVE_INLINE Ints load_ints(const int8_t* p) {
  return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
EM_NATIVE_INLINE Ints load_ints(const int16_t* p) {
  return _mm256_cvtepi16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
EM_NATIVE_INLINE Ints to_ints(Vec a) { return _mm256_cvtps_epi32(a); }
EM_NATIVE_INLINE Vec low_bf16(Ints a) { return _mm256_castsi256_ps(_mm256_slli_epi32(a, 16)); }
EM_NATIVE_INLINE Vec high_bf16(Ints a) {
  return _mm256_castsi256_ps(_mm256_and_si256(a, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}
EM_NATIVE_INLINE void store_codes(uint8_t* p, Ints a, int64_t count) {
  const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
  uint8_t all_of_them[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(all_of_them), _mm_packus_epi16(halves, halves));
  if (count >= lanes)
    __builtin_memcpy(p, all_of_them, lanes);
  else
    for (int64_t i = 0; i < count; i++) p[i] = all_of_them[i];
}
constexpr int64_t codes_per_step = 2;
EM_NATIVE_INLINE Ints load_code_weights(const int8_t* p) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
EM_NATIVE_INLINE Ints multiply_add_codes(Ints a, Ints b, Ints c) {
  c = _mm256_add_epi32(c, _mm256_madd_epi16(a, b));
  // Else the compiler adds the products of several steps first, for which there are not enough registers.
  __asm__("" : "+x"(c));
  return c;
}

#endif

// Numbers of fp16 without an infinity. Their exponent is moved to where fp32 has its own, and then put right by a product.
EM_NATIVE_INLINE Vec load_fp16(const uint16_t* p) {
  const Ints moved = shift_left<13>(load_ints(reinterpret_cast<const int16_t*>(p)));
  const Ints kept = both(moved, all_ints(static_cast<int32_t>(0x8fffe000u)));
  return multiply(bits_to_floats(kept), all(5.192296858534828e33f));
}

// exp(x) for x <= 0 to about one unit in the last place; 0 below about -87 (AVX2) or -104; NaN stays NaN.
EM_NATIVE_INLINE Vec exponential(Vec x) {
  // Where x is NaN it is the second one.
  x = maximum(all(-110.0f), x);
  const Vec n = nearest(multiply(x, all(1.44269504088896341f)));
  // ln 2 in two parts: the product with a whole number up to 159 is exact in a fused operation.
  Vec r = multiply_add(n, all(-0.693147182464599609375f), x);
  r = multiply_add(n, all(1.904654323148236e-9f), r);
  Vec p = all(1.9875691500e-4f);
  p = multiply_add(p, r, all(1.3981999507e-3f));
  p = multiply_add(p, r, all(8.3334519073e-3f));
  p = multiply_add(p, r, all(4.1665795894e-2f));
  p = multiply_add(p, r, all(1.6666665459e-1f));
  p = multiply_add(p, r, all(5.0000001201e-1f));
  p = add(multiply_add(p, multiply(r, r), r), all(1.0f));
  return times_power_of_two(p, n);
}

// The same to about 1e-4, a twentieth of what rounding to bf16 loses; for products of bf16 pairs, so AVX-512 alone.
EM_NATIVE_INLINE Vec exponential_coarse(Vec x) {
#if defined(EM_NATIVE_AVX512)
  const Vec t = multiply(x, all(1.44269504088896341f));
  // t - floor(t), and 0 for -inf; scalef multiplies with 2^floor(t).
  const Vec f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  Vec p = all(0.0780245194f);
  p = multiply_add(p, f, all(0.2260671785f));
  p = multiply_add(p, f, all(0.6958335220f));
  p = multiply_add(p, f, all(0.9999252214f));
  return times_power_of_two(p, t);
#else
  return exponential(x);
#endif
}

// A vector of the next `count` numbers, all lanes or fewer.
template <typename T>
EM_NATIVE_INLINE Vec read(const T* p, int64_t count) {
  return count >= lanes ? load(p) : load_first(p, count);
}

// To where there is room for `count` more numbers.
template <typename T>
EM_NATIVE_INLINE void write(T* p, Vec a, int64_t count) {
  if (count >= lanes)
    store(p, a);
  else
    store_first(p, a, count);
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
