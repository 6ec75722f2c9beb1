// Rotary positions on one level's vectors: halves of each head's features, turned by an angle per token and feature.
#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// The tokens [first, last) of all rows.
template <typename T, typename A>
void run(const Rotate& r, int64_t first, int64_t last) {
  const int64_t half = r.width / 2;
  for (int64_t number = first; number < last; number++) {
    const int64_t row = number / r.tokens, token = number % r.tokens;
    const A* cosines = static_cast<const A*>(r.cosines) + row * r.angle_row + token * r.angle_token;
    const A* sines = static_cast<const A*>(r.sines) + row * r.angle_row + token * r.angle_token;
    for (int64_t head = 0; head < r.heads; head++) {
      const T* x = static_cast<const T*>(r.x) + row * r.x_row + head * r.x_head + token * r.x_token;
      T* output = static_cast<T*>(r.output) + (number * r.heads + head) * r.width;
      for (int64_t d = 0; d < half; d += lanes) {
        const int64_t here = half - d;
        const Vec one = read(x + d, here), other = read(x + half + d, here);
        const Vec turned = multiply(other, read(sines + d, here));
        write(output + d, subtract(multiply(one, read(cosines + d, here)), turned), here);
        const Vec back = multiply(one, read(sines + half + d, here));
        write(output + half + d, multiply_add(other, read(cosines + half + d, here), back), here);
      }
    }
  }
}

}  // namespace

void rotate(const Rotate& r, int64_t first, int64_t last) {
  const bool wide = r.angle_type == Type::fp32;
  if (r.type == Type::fp32)
    run<float, float>(r, first, last);
  else if (wide)
    run<uint16_t, float>(r, first, last);
  else
    run<uint16_t, uint16_t>(r, first, last);
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
