// The gated form of a feed-forward layer on one level's vectors: activation(first half) * second half of each row.
#include "activation.h"
#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// The rows [first, last).
template <typename T, Activation activation>
void run(const Gated& g, int64_t first, int64_t last) {
  for (int64_t row = first; row < last; row++) {
    const T* gate = static_cast<const T*>(g.x) + row * g.x_row;
    const T* factor = gate + g.size;
    T* output = static_cast<T*>(g.output) + row * g.size;
    int64_t d = 0;
    for (; d + lanes <= g.size; d += lanes)
      store(output + d, multiply(activate<activation, sizeof(T) == 2>(load(gate + d)), load(factor + d)));
    if (d < g.size) {
      const int64_t here = g.size - d;
      write(output + d, multiply(activate<activation, sizeof(T) == 2>(read(gate + d, here)), read(factor + d, here)), here);
    }
  }
}

using Run = void (*)(const Gated&, int64_t, int64_t);

template <typename T>
Run run_of(Activation activation) {
  switch (activation) {
    case Activation::gelu: return run<T, Activation::gelu>;
    case Activation::gelu_tanh: return run<T, Activation::gelu_tanh>;
    case Activation::relu: return run<T, Activation::relu>;
    case Activation::silu: return run<T, Activation::silu>;
    case Activation::tanh: return run<T, Activation::tanh>;
    case Activation::sigmoid: return run<T, Activation::sigmoid>;
    case Activation::none: break;
  }
  return run<T, Activation::none>;
}

}  // namespace

void gated(const Gated& g, int64_t first_row, int64_t last_row) {
  const Run chosen = g.type == Type::fp32 ? run_of<float>(g.activation) : run_of<uint16_t>(g.activation);
  chosen(g, first_row, last_row);
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
