// The AVX-512 functions that the kernels call, written with AVX2: most of them by SIMDe (Debian: libsimde-dev), and here
// those that its version 0.7.4 lacks, as Intel's manual defines them. So the code of the AVX-512 levels runs, and is
// tested, on a processor without them. What the compiler makes of it there, and how fast it is, is not.
#pragma once

#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>
#include <simde/x86/fma.h>

#define EM_NATIVE_AVX512

namespace em_emulated {

template <typename To, typename From>
static inline To bits(const From& from) {
  static_assert(sizeof(To) == sizeof(From), "the same size");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

struct Floats { float at[16]; };
struct Words { uint32_t at[16]; };
struct Halves { uint16_t at[16]; };
struct Bytes { uint8_t at[64]; };

template <typename F>
static inline __m512 each(__m512 a, F f) {
  Floats x = bits<Floats>(a);
  for (float& number : x.at) number = f(number);
  return bits<__m512>(x);
}

static inline float reduce_add(__m512 a) {
  Floats x = bits<Floats>(a);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) x.at[i] += x.at[i + width];
  return x.at[0];
}

static inline float reduce_max(__m512 a) {
  Floats x = bits<Floats>(a);
  for (int width = 8; width > 0; width /= 2)
    for (int i = 0; i < width; i++) x.at[i] = x.at[i] > x.at[i + width] ? x.at[i] : x.at[i + width];
  return x.at[0];
}

static inline __m512i widen_words(__m256i a) {
  const Halves x = bits<Halves>(a);
  Words y;
  for (int i = 0; i < 16; i++) y.at[i] = x.at[i];
  return bits<__m512i>(y);
}

static inline __m512i widen_signed_words(__m256i a) {
  const Halves x = bits<Halves>(a);
  Words y;
  for (int i = 0; i < 16; i++) y.at[i] = static_cast<uint32_t>(static_cast<int16_t>(x.at[i]));
  return bits<__m512i>(y);
}

static inline __m512i widen_signed_bytes(__m128i a) {
  int8_t x[16];
  __builtin_memcpy(x, &a, 16);
  Words y;
  for (int i = 0; i < 16; i++) y.at[i] = static_cast<uint32_t>(x[i]);
  return bits<__m512i>(y);
}

static inline __m256i narrow_words(__m512i a) {
  const Words x = bits<Words>(a);
  Halves y;
  for (int i = 0; i < 16; i++) y.at[i] = static_cast<uint16_t>(x.at[i]);
  return bits<__m256i>(y);
}

static inline __m128i narrow_bytes(__m512i a) {
  const Words x = bits<Words>(a);
  uint8_t y[16];
  for (int i = 0; i < 16; i++) y[i] = static_cast<uint8_t>(x.at[i]);
  __m128i z;
  __builtin_memcpy(&z, y, 16);
  return z;
}

// As the processor does, memory that the mask leaves out is not touched.
template <typename Vector, typename Number>
static inline Vector masked_load(uint64_t mask, const void* p) {
  Vector found;
  __builtin_memset(&found, 0, sizeof found);
  for (size_t i = 0; i < sizeof(Vector) / sizeof(Number); i++)
    if (mask >> i & 1)
      __builtin_memcpy(reinterpret_cast<char*>(&found) + i * sizeof(Number), static_cast<const Number*>(p) + i,
                       sizeof(Number));
  return found;
}

template <typename Number, typename Vector>
static inline void masked_store(void* p, uint64_t mask, Vector a) {
  for (size_t i = 0; i < sizeof(Vector) / sizeof(Number); i++)
    if (mask >> i & 1)
      __builtin_memcpy(static_cast<Number*>(p) + i, reinterpret_cast<const char*>(&a) + i * sizeof(Number),
                       sizeof(Number));
}

static inline __m512 scale(__m512 a, __m512 n) {
  Floats x = bits<Floats>(a);
  const Floats power = bits<Floats>(n);
  for (int i = 0; i < 16; i++) {
    if (power.at[i] != power.at[i]) {
      x.at[i] = power.at[i];
    } else {
      const float whole = __builtin_floorf(power.at[i]);
      x.at[i] = __builtin_ldexpf(x.at[i], whole < -1000 ? -1000 : whole > 1000 ? 1000 : static_cast<int>(whole));
    }
  }
  return bits<__m512>(x);
}

// To nearest, ties to even, numbers below the normal ones to 0, as the instruction does.
static inline uint16_t half(float x) {
  uint32_t word = bits<uint32_t>(x);
  if (x != x) return static_cast<uint16_t>(word >> 16 | 0x40);
  if ((word & 0x7f800000) == 0) return static_cast<uint16_t>(word >> 16 & 0x8000);
  return static_cast<uint16_t>((word + 0x7fff + (word >> 16 & 1)) >> 16);
}

static inline __m256i to_halves(__m512 a) {
  const Floats x = bits<Floats>(a);
  Halves y;
  for (int i = 0; i < 16; i++) y.at[i] = half(x.at[i]);
  return bits<__m256i>(y);
}

static inline float wide(uint32_t upper) { return bits<float>(upper & 0xffff0000u); }

// Two products of bf16 per lane, the lower one first.
template <typename Pairs>
static inline __m512 dot_halves(__m512 c, Pairs a, Pairs b) {
  Floats sum = bits<Floats>(c);
  const Words x = bits<Words>(a), y = bits<Words>(b);
  for (int i = 0; i < 16; i++) {
    sum.at[i] += wide(x.at[i] << 16) * wide(y.at[i] << 16);
    sum.at[i] += wide(x.at[i]) * wide(y.at[i]);
  }
  return bits<__m512>(sum);
}

// Four products of codes per lane: a without sign, b with.
static inline __m512i dot_codes(__m512i c, __m512i a, __m512i b) {
  Words sum = bits<Words>(c);
  const Bytes x = bits<Bytes>(a), y = bits<Bytes>(b);
  for (int i = 0; i < 64; i++)
    sum.at[i / 4] += static_cast<uint32_t>(static_cast<int>(x.at[i]) * static_cast<int8_t>(y.at[i]));
  return bits<__m512i>(sum);
}

static inline __m512i widen_codes(__m256i a) {
  int8_t x[32];
  __builtin_memcpy(x, &a, 32);
  int16_t y[32];
  for (int i = 0; i < 32; i++) y[i] = x[i];
  return bits<__m512i>(y);
}

// Two products of 16 bits per lane.
static inline __m512i dot_words(__m512i a, __m512i b) {
  int16_t x[32], y[32];
  __builtin_memcpy(x, &a, 64);
  __builtin_memcpy(y, &b, 64);
  Words sum;
  for (int i = 0; i < 16; i++)
    sum.at[i] = static_cast<uint32_t>(x[2 * i] * y[2 * i]) + static_cast<uint32_t>(x[2 * i + 1] * y[2 * i + 1]);
  return bits<__m512i>(sum);
}

static inline __m512 nearest_whole(__m512 a) { return each(a, [](float x) { return __builtin_rintf(x); }); }
static inline __m512 part_over_floor(__m512 a) {
  return each(a, [](float x) { return __builtin_isinf(x) ? 0.0f : x - __builtin_floorf(x); });
}
static inline __m512i to_whole(__m512 a) {
  const Floats x = bits<Floats>(a);
  Words y;
  for (int i = 0; i < 16; i++)
    y.at[i] = x.at[i] >= -2147483648.0f && x.at[i] < 2147483648.0f
                  ? static_cast<uint32_t>(static_cast<int32_t>(__builtin_rintf(x.at[i])))
                  : 0x80000000u;
  return bits<__m512i>(y);
}

static inline __m512 to_numbers(__m512i a) {
  const Words x = bits<Words>(a);
  Floats y;
  for (int i = 0; i < 16; i++) y.at[i] = static_cast<float>(static_cast<int32_t>(x.at[i]));
  return bits<__m512>(y);
}

// Quarters of a, then of b, by two bits each.
static inline __m512 shuffle(__m512 a, __m512 b, int which) {
  const Floats x = bits<Floats>(a), y = bits<Floats>(b);
  Floats z;
  for (int i = 0; i < 16; i++) z.at[i] = (i < 8 ? x : y).at[(which >> i / 4 * 2 & 3) * 4 + i % 4];
  return bits<__m512>(z);
}

}  // namespace em_emulated

#define _mm512_reduce_add_ps em_emulated::reduce_add
#define _mm512_reduce_max_ps em_emulated::reduce_max
#define _mm512_cvtepu16_epi32 em_emulated::widen_words
#undef _mm512_cvtepi16_epi32
#define _mm512_cvtepi16_epi32 em_emulated::widen_signed_words
#undef _mm512_cvtepi8_epi32
#define _mm512_cvtepi8_epi32 em_emulated::widen_signed_bytes
#undef _mm512_cvtepi32_epi16
#define _mm512_cvtepi32_epi16 em_emulated::narrow_words
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8 em_emulated::narrow_bytes
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32 em_emulated::to_whole
#undef _mm512_maskz_loadu_ps
#define _mm512_maskz_loadu_ps (em_emulated::masked_load<__m512, float>)
#undef _mm512_maskz_loadu_epi16
#define _mm512_maskz_loadu_epi16 (em_emulated::masked_load<__m512i, uint16_t>)
#undef _mm256_maskz_loadu_epi16
#define _mm256_maskz_loadu_epi16 (em_emulated::masked_load<__m256i, uint16_t>)
#undef _mm512_mask_storeu_ps
#define _mm512_mask_storeu_ps em_emulated::masked_store<float>
#undef _mm256_mask_storeu_epi16
#define _mm256_mask_storeu_epi16 em_emulated::masked_store<uint16_t>
#undef _mm_mask_storeu_epi8
#define _mm_mask_storeu_epi8 em_emulated::masked_store<uint8_t>
#undef _mm512_scalef_ps
#define _mm512_scalef_ps em_emulated::scale
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, how) em_emulated::nearest_whole(a)
#define _mm512_reduce_ps(a, how) em_emulated::part_over_floor(a)
#undef _mm512_dpbusd_epi32
#define _mm512_dpbusd_epi32 em_emulated::dot_codes
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh em_emulated::to_halves
#undef _mm512_dpbf16_ps
#define _mm512_dpbf16_ps em_emulated::dot_halves
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps em_emulated::to_numbers
#undef _mm512_shuffle_f32x4
#define _mm512_shuffle_f32x4 em_emulated::shuffle
#undef _mm512_cvtepi8_epi16
#define _mm512_cvtepi8_epi16 em_emulated::widen_codes
#undef _mm512_madd_epi16
#define _mm512_madd_epi16 em_emulated::dot_words
