// What the files that register operators have in common: the checks of arguments.
//
// A file from anywhere may call these operators with any arguments (operators.def, operator_allowlist.py), so nothing
// is computed before every size, stride, type and offset was checked. Each refusal is one line.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <ostream>
#include <string>
#include <utility>

#include "kernels.h"

namespace em_native {

using at::Tensor;

constexpr int64_t widest = 256;
constexpr int64_t largest_size = std::numeric_limits<int32_t>::max();

// As TORCH_CHECK, for the operator and the argument by name.
#define EM_NATIVE_CHECK(condition, ...) TORCH_CHECK(condition, "em_native::", __VA_ARGS__)

// An argument of an operator, put together only where a message needs it.
struct Name {
  const char* operation;
  const char* argument;
};

inline std::ostream& operator<<(std::ostream& to, const Name& name) {
  return to << name.operation << ": " << name.argument;
}

inline void parallel_for(int64_t begin, int64_t end, int64_t grain, Body body, void* context) {
  at::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) { body(context, from, to); });
}

// Not sizes().vec() in a message: an untrusted tensor may have any number of axes.
inline std::string shape_of(const Tensor& x) {
  std::string text = "[";
  const int64_t axes = std::min<int64_t>(x.dim(), 8);
  for (int64_t i = 0; i < axes; i++) text += (i ? ", " : "") + std::to_string(x.size(i));
  return text + (axes < x.dim() ? ", ...]" : "]");
}

// That reading it by its sizes and strides stays within its memory.
inline void check_memory(const Name& name, const Tensor& x) {
  EM_NATIVE_CHECK(x.defined() && x.device().is_cpu() && x.layout() == at::kStrided, name,
                  " must be a dense tensor on the CPU");
  if (x.numel() == 0) return;
  const int64_t size = static_cast<int64_t>(x.element_size());
  const int64_t available = static_cast<int64_t>(x.storage().nbytes()) / size - x.storage_offset();
  int64_t left = available - 1;
  for (int64_t i = 0; i < x.dim(); i++) {
    const int64_t steps = x.size(i) - 1, stride = x.stride(i);
    if (steps == 0 || stride == 0) continue;
    EM_NATIVE_CHECK(stride > 0 && left >= 0 && steps <= left / stride, name, " reaches beyond its memory");
    left -= steps * stride;
  }
  EM_NATIVE_CHECK(left >= 0, name, " reaches beyond its memory");
}

inline Type type_of(const Name& name, const Tensor& x) {
  EM_NATIVE_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, name, " is ",
                  c10::toString(x.scalar_type()), "; it must be Float or BFloat16");
  return x.scalar_type() == at::kFloat ? Type::fp32 : Type::bf16;
}

inline Tensor last_axis_contiguous(const Tensor& x) {
  return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : x.contiguous();
}

// The mask's strides, with 0 where it repeats. From axis `longer` on it may have more than is wanted.
inline void take_mask(const char* operation, Attention& a, const Tensor& mask, int64_t queries, int64_t keys,
                      int longer) {
  EM_NATIVE_CHECK(mask.dim() == 4, operation, ": mask is ", shape_of(mask), "; it must have 4 axes");
  const int64_t wanted[] = {a.rows, a.heads, queries, keys};
  const char* const axes[] = {"rows", "heads", "queries", "keys"};
  int64_t* const strides[] = {&a.mask_row, &a.mask_head, &a.mask_query, &a.mask_key};
  for (int i = 0; i < 4; i++) {
    const bool repeats = mask.size(i) == 1;
    const bool fits = i >= longer ? mask.size(i) >= wanted[i] : mask.size(i) == wanted[i];
    EM_NATIVE_CHECK(repeats || fits, operation, ": mask is ", shape_of(mask), "; its ", axes[i], " must be 1 or ",
                    i >= longer ? "at least " : "", wanted[i]);
    *strides[i] = repeats ? 0 : mask.stride(i);
  }
  a.mask = mask.const_data_ptr();
}

// What an attention is told beside its tensors.
inline void check_settings(const char* operation, double scale, int64_t window) {
  EM_NATIVE_CHECK(std::isfinite(static_cast<float>(scale)), operation, ": scale is ", scale,
                  "; it must be a finite number of fp32");
  EM_NATIVE_CHECK(window >= 0, operation, ": window is ", window, "; it must be at least 0 (0: no window)");
}

// Query, keys and values of an attention, one type and of sizes that go together.
inline void check_attention(const char* operation, const Tensor& query, const Tensor& key, const Tensor& value,
                            double scale, int64_t window) {
  const std::pair<const char*, const Tensor&> all[] = {{"query", query}, {"key", key}, {"value", value}};
  for (const auto& [argument, x] : all) {
    const Name name{operation, argument};
    check_memory(name, x);
    type_of(name, x);
    EM_NATIVE_CHECK(x.dim() == 4, name, " is ", shape_of(x), "; it must have 4 axes");
    EM_NATIVE_CHECK(x.scalar_type() == query.scalar_type(), name, " is ", c10::toString(x.scalar_type()),
                    " and query is ", c10::toString(query.scalar_type()), "; they must be of one type");
    for (int64_t i = 0; i < 4; i++)
      EM_NATIVE_CHECK(x.size(i) <= largest_size, name, " is ", shape_of(x), "; no axis may be over ", largest_size);
    EM_NATIVE_CHECK(x.size(3) >= 1 && x.size(3) <= widest, name, " is ", shape_of(x),
                    "; the last axis must be from 1 to ", widest);
    EM_NATIVE_CHECK(x.size(0) == query.size(0), name, " has ", x.size(0), " rows and query has ", query.size(0),
                    "; they must be equal");
  }
  EM_NATIVE_CHECK(key.size(3) == query.size(3), operation, ": key has width ", key.size(3), " and query has ",
                  query.size(3), "; they must be equal");
  EM_NATIVE_CHECK(key.size(1) == value.size(1) && key.size(2) == value.size(2), operation, ": key is ", shape_of(key),
                  " and value is ", shape_of(value), "; they must have the same heads and keys");
  EM_NATIVE_CHECK(key.size(1) >= 1 && query.size(1) % key.size(1) == 0, operation, ": query has ", query.size(1),
                  " heads and key has ", key.size(1), "; the first must be a multiple of the second");
  check_settings(operation, scale, window);
}

inline Activation activation_of(const char* operation, c10::string_view name) {
  const std::pair<const char*, Activation> known[] = {
      {"none", Activation::none}, {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh},
      {"relu", Activation::relu}, {"silu", Activation::silu}, {"tanh", Activation::tanh},
      {"sigmoid", Activation::sigmoid}};
  for (const auto& [text, found] : known)
    if (name == text) return found;
  TORCH_CHECK(false, "em_native::", operation,
              ": activation is unknown; it must be none, gelu, gelu_tanh, relu, silu, tanh or sigmoid");
}

}  // namespace em_native
