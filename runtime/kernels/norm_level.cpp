// Residual + layer norm or RMS norm on one level's vectors, for a range of rows; and rows to codes, in the same pass or
// alone.
//
// A row is read once from memory: its sum with the residual is kept in fp32 in the thread's memory (at most 64 Ki
// numbers; longer rows are added again). The variance is taken from the differences to the mean, so that a large mean
// does not cancel it.
#include "codes.h"
#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

constexpr int64_t longest_kept = 64 * 1024;

// Calls f(j, count) for each vector of a row; all but the last are whole, which the compiler sees.
template <typename F>
EM_NATIVE_INLINE void each_vector(int64_t size, F f) {
  int64_t j = 0;
  for (; j + lanes <= size; j += lanes) f(j, lanes);
  if (j < size) f(j, size - j);
}

// The same with four sums in turn, which do not wait for each other: f(j, count, sum). The result: all of them added.
template <typename F>
EM_NATIVE_INLINE float sum_over_vectors(int64_t size, F f) {
  Vec sums[4] = {zero(), zero(), zero(), zero()};
  int64_t j = 0;
  for (; j + 4 * lanes <= size; j += 4 * lanes) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) f(j + i * lanes, lanes, sums[i]);
  }
  for (; j + lanes <= size; j += lanes) f(j, lanes, sums[0]);
  if (j < size) f(j, size - j, sums[1]);
  return sum_of(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

template <typename T, typename W, bool has_residual, bool centred, bool kept>
EM_NATIVE_INLINE void normalise(const Norm& n, int64_t row, float* buffer) {
  const int64_t start = row * n.size;
  const T* x = static_cast<const T*>(n.x) + start;
  const T* residual = has_residual ? static_cast<const T*>(n.residual) + start : nullptr;
  T* output = static_cast<T*>(n.output) + start;
  T* sum = n.sum ? static_cast<T*>(n.sum) + start : nullptr;
  const W* weight = static_cast<const W*>(n.weight);
  const W* bias = static_cast<const W*>(n.bias);
  auto added = [&](int64_t j, int64_t count) __attribute__((always_inline)) {
    const Vec a = read(x + j, count);
    return has_residual ? add(a, read(residual + j, count)) : a;
  };
  auto again = [&](int64_t j, int64_t count) __attribute__((always_inline)) {
    return kept ? read(buffer + j, count) : added(j, count);
  };
  const float size = static_cast<float>(n.size);
  float mean = 0.0f;
  // The sum, or the sum of the squares.
  float total = sum_over_vectors(n.size, [&](int64_t j, int64_t count, Vec& to) __attribute__((always_inline)) {
    const Vec v = added(j, count);
    if (kept) write(buffer + j, v, count);
    if (sum) write(sum + j, v, count);
    to = centred ? add(to, v) : multiply_add(v, v, to);
  });
  if (centred) {
    mean = total / size;
    const Vec middle = all(mean);
    total = sum_over_vectors(n.size, [&](int64_t j, int64_t count, Vec& to) __attribute__((always_inline)) {
      Vec v = subtract(again(j, count), middle);
      if (count < lanes) v = keep(v, 0, count, zero());
      to = multiply_add(v, v, to);
    });
  }
  const Vec middle = all(mean);
  const Vec factor = all(1.0f / __builtin_sqrtf(total / size + n.epsilon));
  each_vector(n.size, [&](int64_t j, int64_t count) __attribute__((always_inline)) {
    Vec v = again(j, count);
    v = multiply(centred ? subtract(v, middle) : v, factor);
    if (weight) v = multiply(v, read(weight + j, count));
    if (bias) v = add(v, read(bias + j, count));
    write(output + j, v, count);
    if (kept && n.codes) write(buffer + j, v, count);
  });
  if (kept && n.codes)
    to_codes(
        n.size, [&](int64_t j, int64_t count) __attribute__((always_inline)) { return read(buffer + j, count); },
        n.codes + start, n.scales + 2 * row);
}

template <typename T, typename W, bool has_residual, bool centred>
void rows(const Norm& n, int64_t first_row, int64_t last_row) {
  if (n.size > longest_kept) {
    for (int64_t row = first_row; row < last_row; row++)
      normalise<T, W, has_residual, centred, false>(n, row, nullptr);
    return;
  }
  float* buffer = static_cast<float*>(scratch(static_cast<size_t>(n.size) * sizeof(float)));
  for (int64_t row = first_row; row < last_row; row++) normalise<T, W, has_residual, centred, true>(n, row, buffer);
}

template <typename T, typename W>
void run(const Norm& n, int64_t first_row, int64_t last_row) {
  if (n.centred)
    n.residual ? rows<T, W, true, true>(n, first_row, last_row) : rows<T, W, false, true>(n, first_row, last_row);
  else
    n.residual ? rows<T, W, true, false>(n, first_row, last_row) : rows<T, W, false, false>(n, first_row, last_row);
}

}  // namespace

void norm(const Norm& n, int64_t first_row, int64_t last_row) {
  if (n.type == Type::fp32)
    run<float, float>(n, first_row, last_row);
  else if (n.weight_type == Type::fp32)
    run<uint16_t, float>(n, first_row, last_row);
  else
    run<uint16_t, uint16_t>(n, first_row, last_row);
}

void quantise(const Quantise& q, int64_t first_row, int64_t last_row) {
  for (int64_t row = first_row; row < last_row; row++) {
    uint8_t* codes = q.codes + row * q.size;
    float* scales = q.scales + 2 * row;
    if (q.type == Type::fp32) {
      const float* x = static_cast<const float*>(q.x) + row * q.x_row;
      to_codes(
          q.size, [&](int64_t j, int64_t count) __attribute__((always_inline)) { return read(x + j, count); }, codes,
          scales);
    } else {
      const uint16_t* x = static_cast<const uint16_t*>(q.x) + row * q.x_row;
      to_codes(
          q.size, [&](int64_t j, int64_t count) __attribute__((always_inline)) { return read(x + j, count); }, codes,
          scales);
    }
  }
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
