// SHA-256 (FIPS 180-4), with the processor's own instructions for it where there are some.
//
// Own code, because nothing else is everywhere where this library is: libtorch exports no SHA-256, and OpenSSL's
// headers or the kernel's interface may be absent; a check that is compiled away where a package is missing would be
// none (docs/decisions/cpp.md). tests/cpp has the vectors of NIST for both forms.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>

#if defined(__x86_64__) && defined(__GNUC__)
#define EXPORTED_MODEL_SHA_NI 1
#include <cpuid.h>
#include <immintrin.h>
#endif

namespace exported_model::detail {

class Sha256 {
 public:
  // `instructions` false computes without the processor's instructions, for tests.
  explicit Sha256(bool instructions = true) : instructions_(instructions && has_instructions()) {}

  void update(const void* data, std::size_t size) {
    const auto* bytes = static_cast<const unsigned char*>(data);
    length_ += size;
    if (pending_ > 0) {
      const std::size_t taken = std::min(size, kBlock - pending_);
      std::memcpy(block_.data() + pending_, bytes, taken);
      pending_ += taken, bytes += taken, size -= taken;
      if (pending_ < kBlock) return;
      compress(block_.data(), 1);
    }
    compress(bytes, size / kBlock);
    pending_ = size % kBlock;
    if (pending_ > 0) std::memcpy(block_.data(), bytes + (size - pending_), pending_);
  }

  // In hexadecimal. Nothing may be added after it.
  std::string hex() {
    const std::uint64_t bits = length_ * 8;
    unsigned char tail[kBlock + 8] = {0x80};
    const std::size_t zeros = (2 * kBlock - 8 - pending_ - 1) % kBlock;
    for (std::size_t index = 0; index < 8; ++index)
      tail[1 + zeros + index] = static_cast<unsigned char>(bits >> (56 - 8 * index));
    update(tail, 1 + zeros + 8);
    std::string text;
    for (const std::uint32_t word : state_)
      for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
    return text;
  }

 private:
  static constexpr std::size_t kBlock = 64;
  static constexpr std::uint32_t kRound[64] = {
      0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
      0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
      0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
      0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
      0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
      0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
      0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
      0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

  void compress(const unsigned char* blocks, std::size_t count) {
#ifdef EXPORTED_MODEL_SHA_NI
    if (instructions_) return compress_with_instructions(blocks, count);
#endif
    for (; count > 0; --count, blocks += kBlock) compress_block(blocks);
  }

  static std::uint32_t turned(std::uint32_t word, int by) { return word >> by | word << (32 - by); }

  void compress_block(const unsigned char* block) {
    std::uint32_t w[64];
    for (int t = 0; t < 16; ++t, block += 4)
      w[t] = std::uint32_t{block[0]} << 24 | std::uint32_t{block[1]} << 16 | std::uint32_t{block[2]} << 8 | block[3];
    for (int t = 16; t < 64; ++t) {
      const std::uint32_t low = turned(w[t - 15], 7) ^ turned(w[t - 15], 18) ^ w[t - 15] >> 3;
      const std::uint32_t high = turned(w[t - 2], 17) ^ turned(w[t - 2], 19) ^ w[t - 2] >> 10;
      w[t] = w[t - 16] + low + w[t - 7] + high;
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (int t = 0; t < 64; ++t) {
      const std::uint32_t chosen = (e & f) ^ (~e & g);
      const std::uint32_t one = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + chosen + kRound[t] + w[t];
      const std::uint32_t two = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    const std::array<std::uint32_t, 8> sums = {a, b, c, d, e, f, g, h};
    for (std::size_t index = 0; index < 8; ++index) state_[index] += sums[index];
  }

#ifdef EXPORTED_MODEL_SHA_NI
  static bool has_instructions() {
    static const bool found = [] {
      unsigned a = 0, b = 0, c = 0, d = 0;
      return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_SSE4_1) != 0 &&
             __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
    }();
    return found;
  }

  // The instructions take the state as two vectors, a b e f and c d g h, and do four rounds at a time.
  __attribute__((target("sha,sse4.1")))
  void compress_with_instructions(const unsigned char* blocks, std::size_t count) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    auto* state = reinterpret_cast<__m128i*>(state_.data());
    const __m128i low = _mm_shuffle_epi32(_mm_loadu_si128(state), 0xB1);
    const __m128i high = _mm_shuffle_epi32(_mm_loadu_si128(state + 1), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; count > 0; --count, blocks += kBlock) {
      const __m128i old_abef = abef, old_cdgh = cdgh;
      __m128i w[4];
#pragma GCC unroll 16
      for (int group = 0; group < 16; ++group) {
        __m128i& now = w[group % 4];
        if (group < 4) {
          now = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks) + group), big_endian);
        } else {
          const __m128i newest = w[(group + 3) % 4];
          now = _mm_sha256msg1_epu32(now, w[(group + 1) % 4]);
          now = _mm_add_epi32(now, _mm_alignr_epi8(newest, w[(group + 2) % 4], 4));
          now = _mm_sha256msg2_epu32(now, newest);
        }
        const __m128i sum = _mm_add_epi32(now, _mm_loadu_si128(reinterpret_cast<const __m128i*>(kRound) + group));
        cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sum);
        abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sum, 0x0E));
      }
      abef = _mm_add_epi32(abef, old_abef);
      cdgh = _mm_add_epi32(cdgh, old_cdgh);
    }
    const __m128i feba = _mm_shuffle_epi32(abef, 0x1B), dchg = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128(state, _mm_blend_epi16(feba, dchg, 0xF0));
    _mm_storeu_si128(state + 1, _mm_alignr_epi8(dchg, feba, 8));
  }
#else
  static bool has_instructions() { return false; }
#endif

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, kBlock> block_{};
  std::size_t pending_ = 0;  // bytes of block_ that wait for more
  std::uint64_t length_ = 0;
  bool instructions_;
};

}  // namespace exported_model::detail
