// The operators as PyTorch knows them: checks every argument, then calls the kernels.
//
// A file from anywhere may call these operators with any arguments (operators.def, operator_allowlist.py), so nothing
// is computed before every size, stride, type and offset was checked. Each refusal is one line.
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "kernels.h"

namespace em_native {
namespace {

using at::Tensor;

// Raised when the meaning of an operator changes; an artifact names the version that it needs.
constexpr int64_t operators_version = 4;
constexpr int64_t widest = 256;
constexpr int64_t largest_size = std::numeric_limits<int32_t>::max();
// Products of codes, up to 255 * 127 each, are added in 32 bits.
constexpr int64_t most_codes = 64 * 1024;

// As TORCH_CHECK, for the operator and the argument by name.
#define EM_NATIVE_CHECK(condition, ...) TORCH_CHECK(condition, "em_native::", __VA_ARGS__)

// An argument of an operator, put together only where a message needs it.
struct Name {
  const char* operation;
  const char* argument;
};

std::ostream& operator<<(std::ostream& to, const Name& name) { return to << name.operation << ": " << name.argument; }

void parallel_for(int64_t begin, int64_t end, int64_t grain, Body body, void* context) {
  at::parallel_for(begin, end, grain, [&](int64_t from, int64_t to) { body(context, from, to); });
}

// Not sizes().vec() in a message: an untrusted tensor may have any number of axes.
std::string shape_of(const Tensor& x) {
  std::string text = "[";
  const int64_t axes = std::min<int64_t>(x.dim(), 8);
  for (int64_t i = 0; i < axes; i++) text += (i ? ", " : "") + std::to_string(x.size(i));
  return text + (axes < x.dim() ? ", ...]" : "]");
}

// That reading it by its sizes and strides stays within its memory.
void check_memory(const Name& name, const Tensor& x) {
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

Type type_of(const Name& name, const Tensor& x) {
  EM_NATIVE_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, name, " is ",
                  c10::toString(x.scalar_type()), "; it must be Float or BFloat16");
  return x.scalar_type() == at::kFloat ? Type::fp32 : Type::bf16;
}

Tensor last_axis_contiguous(const Tensor& x) { return x.size(-1) <= 1 || x.stride(-1) == 1 ? x : x.contiguous(); }

// A copy: what was checked must stay as it is, whatever other threads write into the tensor.
std::vector<int64_t> checked_offsets(const Tensor& offsets, int64_t tokens) {
  check_memory({"attention", "offsets"}, offsets);
  EM_NATIVE_CHECK(offsets.scalar_type() == at::kLong, "attention: offsets is ", c10::toString(offsets.scalar_type()),
                  "; it must be Long");
  EM_NATIVE_CHECK(offsets.dim() == 1 && offsets.size(0) >= 1 && offsets.is_contiguous(), "attention: offsets is ",
                  shape_of(offsets), "; it must be one contiguous axis of at least 1 number");
  const int64_t* begin = offsets.const_data_ptr<int64_t>();
  const std::vector<int64_t> p(begin, begin + offsets.size(0));
  EM_NATIVE_CHECK(p[0] == 0, "attention: offsets begins with ", p[0], "; it must begin with 0");
  for (size_t i = 1; i < p.size(); i++)
    EM_NATIVE_CHECK(p[i] >= p[i - 1], "attention: offsets falls from ", p[i - 1], " to ", p[i], " at ", i,
                    "; it must not fall");
  EM_NATIVE_CHECK(p.back() <= tokens, "attention: offsets ends with ", p.back(), " of ", tokens,
                  " tokens; it must end within them");
  return p;
}

// The mask's strides, with 0 where it repeats. From axis `longer` on it may have more than is wanted.
void take_mask(const char* operation, Attention& a, const Tensor& mask, int64_t queries, int64_t keys, int longer) {
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

// Query, keys and values of an attention, one type and of sizes that go together.
void check_attention(const char* operation, const Tensor& query, const Tensor& key, const Tensor& value, double scale,
                     int64_t window) {
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
  EM_NATIVE_CHECK(std::isfinite(static_cast<float>(scale)), operation, ": scale is ", scale,
                  "; it must be a finite number of fp32");
  EM_NATIVE_CHECK(window >= 0, operation, ": window is ", window, "; it must be at least 0 (0: no window)");
}

Tensor attention_operator(const Tensor& query_, const Tensor& key_, const Tensor& value_,
                          const std::optional<Tensor>& offsets, const std::optional<Tensor>& mask_, double scale,
                          bool causal, int64_t window, bool coarse) {
  const Kernels& level = kernels();
  check_attention("attention", query_, key_, value_, scale, window);
  const int64_t rows = query_.size(0), heads = query_.size(1), queries = query_.size(2), keys = key_.size(2);
  const int64_t value_width = value_.size(3);
  Attention a{};
  a.type = type_of({"attention", "query"}, query_);
  a.rows = rows;
  a.heads = heads;
  a.kv_heads = key_.size(1);
  a.queries = queries;
  a.keys = keys;
  a.width = query_.size(3);
  a.value_width = value_width;
  a.scale = static_cast<float>(scale);
  a.causal = causal;
  // As long as everything: the same as none, and no sum of it overflows.
  a.window = std::min(window, queries + keys);
  a.coarse = coarse;
  std::vector<int64_t> segment_starts;
  int64_t covered = queries, longest_queries = queries, longest_keys = keys;
  if (offsets) {
    EM_NATIVE_CHECK(rows == 1 && keys == queries, "attention: with offsets query is ", shape_of(query_), " and key is ",
                    shape_of(key_), "; there must be 1 row, and as many keys as queries");
    segment_starts = checked_offsets(*offsets, queries);
    a.offsets = segment_starts.data();
    a.segments = static_cast<int64_t>(segment_starts.size()) - 1;
    covered = a.offsets[a.segments];
    longest_keys = 0;
    for (int64_t i = 0; i < a.segments; i++) longest_keys = std::max(longest_keys, a.offsets[i + 1] - a.offsets[i]);
    longest_queries = longest_keys;
  }
  Tensor mask;
  if (mask_) {
    check_memory({"attention", "mask"}, *mask_);
    a.mask_type = type_of({"attention", "mask"}, *mask_);
    EM_NATIVE_CHECK(a.mask_type == Type::fp32 || a.mask_type == a.type,
                    "attention: mask is BFloat16 and query is Float; mask must be Float");
    // A last axis that repeats one number (stride 0) is read as it is.
    mask = mask_->dim() == 4 && mask_->stride(3) != 0 ? last_axis_contiguous(*mask_) : *mask_;
    // With offsets it may be made for longer segments than there are.
    take_mask("attention", a, mask, longest_queries, longest_keys, a.offsets ? 2 : 4);
  }
  const Tensor query = last_axis_contiguous(query_), key = last_axis_contiguous(key_);
  const Tensor value = last_axis_contiguous(value_);
  const Tensor output = at::empty({rows, queries, heads, value_width}, query.options());
  const Tensor view = output.transpose(1, 2);
  if (output.numel() == 0) return view;
  if (covered < queries) output.narrow(1, covered, queries - covered).zero_();
  a.query = query.const_data_ptr();
  a.key = key.const_data_ptr();
  a.value = value.const_data_ptr();
  a.output = output.mutable_data_ptr();
  a.query_row = query.stride(0), a.query_head = query.stride(1), a.query_token = query.stride(2);
  a.key_row = key.stride(0), a.key_head = key.stride(1), a.key_token = key.stride(2);
  a.value_row = value.stride(0), a.value_head = value.stride(1), a.value_token = value.stride(2);
  a.output_row = output.stride(0), a.output_head = output.stride(2), a.output_token = output.stride(1);
  attention(level, a, at::get_num_threads(), parallel_for);
  return view;
}

// The bytes from a tensor's first number to behind its last one; check_memory has held.
std::pair<const char*, const char*> bytes_of(const Tensor& x) {
  int64_t last = 0;
  for (int64_t i = 0; i < x.dim(); i++) last += (x.size(i) - 1) * x.stride(i);
  const char* begin = static_cast<const char*>(x.const_data_ptr());
  return {begin, x.numel() == 0 ? begin : begin + (last + 1) * static_cast<int64_t>(x.element_size())};
}

void check_apart(const Tensor& cache, const char* cache_name, const Tensor& other, const char* other_name) {
  const auto [begin, end] = bytes_of(cache);
  const auto [other_begin, other_end] = bytes_of(other);
  const bool empty = begin == end || other_begin == other_end;
  EM_NATIVE_CHECK(empty || end <= other_begin || other_end <= begin, "attend_cached: ", cache_name, " and ", other_name,
                  " share memory; what is written must be apart from what is read");
}

// A cache of keys or values, which the new ones fit.
void check_cache(const char* argument, const Tensor& cache, const Tensor& fresh, const char* fresh_name) {
  const Name name{"attend_cached", argument};
  check_memory(name, cache);
  EM_NATIVE_CHECK(cache.scalar_type() == fresh.scalar_type(), name, " is ", c10::toString(cache.scalar_type()), " and ",
                  fresh_name, " is ", c10::toString(fresh.scalar_type()), "; they must be of one type");
  EM_NATIVE_CHECK(cache.dim() == 4 && cache.size(0) == fresh.size(0) && cache.size(1) == fresh.size(1) &&
                      cache.size(3) == fresh.size(3) && cache.size(2) <= largest_size && cache.is_contiguous(),
                  name, " is ", shape_of(cache), "; it must be contiguous, [", fresh.size(0), ", ", fresh.size(1),
                  ", length, ", fresh.size(3), "], the length at most ", largest_size);
}

// A copy: what was checked must stay as it is.
std::vector<int64_t> checked_positions(const Tensor& positions, int64_t rows, int64_t tokens, int64_t length) {
  const int64_t* p = positions.const_data_ptr<int64_t>();
  std::vector<int64_t> found(static_cast<size_t>(rows * tokens));
  for (int64_t row = 0; row < rows; row++)
    for (int64_t token = 0; token < tokens; token++) {
      const int64_t at = p[row * positions.stride(0) + token * positions.stride(1)];
      EM_NATIVE_CHECK(at >= 0 && at < length, "attend_cached: positions holds ", at, "; the caches have ", length,
                      " tokens, from 0 on");
      found[static_cast<size_t>(row * tokens + token)] = at;
    }
  return found;
}

void write_new(const Tensor& fresh, const Tensor& cache, const std::vector<int64_t>& positions) {
  CacheWrite w{};
  w.from = fresh.const_data_ptr();
  w.from_row = fresh.stride(0), w.from_head = fresh.stride(1), w.from_token = fresh.stride(2);
  w.to = cache.mutable_data_ptr();
  w.to_row = cache.stride(0), w.to_head = cache.stride(1), w.to_token = cache.stride(2);
  w.rows = fresh.size(0), w.heads = fresh.size(1), w.tokens = fresh.size(2), w.width = fresh.size(3);
  w.positions = positions.data();
  w.element_size = static_cast<int64_t>(fresh.element_size());
  write_cache(w, parallel_for);
}

Tensor attend_cached(const Tensor& query_, const Tensor& key_, const Tensor& value_, const Tensor& keys,
                     const Tensor& values, const Tensor& positions_, const std::optional<Tensor>& mask_, double scale,
                     int64_t window) {
  const Kernels& level = kernels();
  check_attention("attend_cached", query_, key_, value_, scale, window);
  const int64_t rows = query_.size(0), heads = query_.size(1), tokens = query_.size(2);
  EM_NATIVE_CHECK(key_.size(2) == tokens, "attend_cached: key has ", key_.size(2), " tokens and query has ", tokens,
                  "; they must be equal");
  check_cache("keys", keys, key_, "key");
  check_cache("values", values, value_, "value");
  const int64_t length = keys.size(2);
  EM_NATIVE_CHECK(values.size(2) == length, "attend_cached: keys is ", shape_of(keys), " and values is ",
                  shape_of(values), "; they must have the same length");
  check_memory({"attend_cached", "positions"}, positions_);
  EM_NATIVE_CHECK(positions_.scalar_type() == at::kLong && positions_.dim() == 2 && positions_.size(0) == rows &&
                      positions_.size(1) == tokens,
                  "attend_cached: positions is ", c10::toString(positions_.scalar_type()), " ", shape_of(positions_),
                  "; it must be Long [", rows, ", ", tokens, "]");
  check_apart(keys, "keys", values, "values");
  const std::pair<const char*, const Tensor&> read[] = {{"query", query_}, {"key", key_}, {"value", value_}};
  for (const auto& [name, x] : read) {
    check_apart(keys, "keys", x, name);
    check_apart(values, "values", x, name);
  }
  Attention a{};
  a.type = type_of({"attend_cached", "query"}, query_);
  a.rows = rows;
  a.heads = heads;
  a.kv_heads = key_.size(1);
  a.queries = tokens;
  a.width = query_.size(3);
  a.value_width = value_.size(3);
  a.scale = static_cast<float>(scale);
  a.causal = true;
  a.window = std::min(window, length);
  // Before the positions are copied: sizes that no memory stands behind end here.
  const Tensor output = at::empty({rows, tokens, heads, a.value_width}, query_.options());
  if (output.numel() == 0) return output;
  const std::vector<int64_t> positions = checked_positions(positions_, rows, tokens, length);
  std::vector<int64_t> row_keys(static_cast<size_t>(rows));
  for (int64_t row = 0; row < rows; row++) {
    const auto first = positions.begin() + row * tokens;
    row_keys[static_cast<size_t>(row)] = *std::max_element(first, first + tokens) + 1;
  }
  a.keys = *std::max_element(row_keys.begin(), row_keys.end());
  a.positions = positions.data();
  a.row_keys = row_keys.data();
  Tensor mask;
  if (mask_) {
    check_memory({"attend_cached", "mask"}, *mask_);
    a.mask_type = type_of({"attend_cached", "mask"}, *mask_);
    EM_NATIVE_CHECK(a.mask_type == Type::fp32 || a.mask_type == a.type,
                    "attend_cached: mask is BFloat16 and query is Float; mask must be Float");
    mask = mask_->dim() == 4 && mask_->stride(3) != 0 ? last_axis_contiguous(*mask_) : *mask_;
    // It may be made for the whole length.
    take_mask("attend_cached", a, mask, tokens, a.keys, 3);
    check_apart(keys, "keys", mask, "mask");
    check_apart(values, "values", mask, "mask");
  }
  const Tensor query = last_axis_contiguous(query_);
  write_new(last_axis_contiguous(key_), keys, positions);
  write_new(last_axis_contiguous(value_), values, positions);
  a.query = query.const_data_ptr();
  a.key = keys.const_data_ptr();
  a.value = values.const_data_ptr();
  a.output = output.mutable_data_ptr();
  a.query_row = query.stride(0), a.query_head = query.stride(1), a.query_token = query.stride(2);
  a.key_row = keys.stride(0), a.key_head = keys.stride(1), a.key_token = keys.stride(2);
  a.value_row = values.stride(0), a.value_head = values.stride(1), a.value_token = values.stride(2);
  a.output_row = output.stride(0), a.output_head = output.stride(2), a.output_token = output.stride(1);
  attention_cached(level, a, at::get_num_threads(), parallel_for);
  return output;
}

Tensor rotate_operator(const Tensor& x_, const Tensor& cosines_, const Tensor& sines_) {
  const Kernels& level = kernels();
  check_memory({"rotate", "x"}, x_);
  Rotate r{};
  r.type = type_of({"rotate", "x"}, x_);
  EM_NATIVE_CHECK(x_.dim() == 4 && x_.size(3) >= 2 && x_.size(3) <= largest_size && x_.size(3) % 2 == 0,
                  "rotate: x is ", shape_of(x_), "; it must have 4 axes, the last one even");
  r.rows = x_.size(0), r.heads = x_.size(1), r.tokens = x_.size(2), r.width = x_.size(3);
  const std::pair<const char*, const Tensor&> both[] = {{"cosines", cosines_}, {"sines", sines_}};
  for (const auto& [argument, angles] : both) {
    const Name name{"rotate", argument};
    check_memory(name, angles);
    r.angle_type = type_of(name, angles);
    EM_NATIVE_CHECK(r.angle_type == Type::fp32 || r.angle_type == r.type, name,
                    " is BFloat16 and x is Float; it must be Float");
    EM_NATIVE_CHECK(angles.dim() == 4 && (angles.size(0) == r.rows || angles.size(0) == 1) && angles.size(1) == 1 &&
                        angles.size(2) == r.tokens && angles.size(3) == r.width,
                    name, " is ", shape_of(angles), "; it must be [", r.rows, " or 1, 1, ", r.tokens, ", ", r.width,
                    "]");
  }
  EM_NATIVE_CHECK(cosines_.scalar_type() == sines_.scalar_type() && cosines_.size(0) == sines_.size(0),
                  "rotate: cosines and sines differ; they must be alike");
  const Tensor output = at::empty({r.rows, r.tokens, r.heads, r.width}, x_.options());
  if (output.numel() == 0) return output.transpose(1, 2);
  const Tensor x = last_axis_contiguous(x_);
  // Of one layout, whatever the given ones have.
  const Tensor cosines = cosines_.contiguous(), sines = sines_.contiguous();
  r.x = x.const_data_ptr();
  r.x_row = x.stride(0), r.x_head = x.stride(1), r.x_token = x.stride(2);
  r.cosines = cosines.const_data_ptr();
  r.sines = sines.const_data_ptr();
  r.angle_row = cosines.size(0) == 1 ? 0 : r.tokens * r.width;
  r.angle_token = r.width;
  r.output = output.mutable_data_ptr();
  rotate(level, r, parallel_for);
  return output.transpose(1, 2);
}

// What layer norm and RMS norm have in common: checks, and everything but the outputs. Holds what it made contiguous.
struct NormInputs {
  Norm norm{};
  Tensor x, residual, weight, bias;

  NormInputs(const char* name, const Tensor& x_, const std::optional<Tensor>& residual_,
             const std::optional<Tensor>& weight_, const std::optional<Tensor>& bias_, double epsilon) {
    check_memory({name, "x"}, x_);
    norm.type = type_of({name, "x"}, x_);
    EM_NATIVE_CHECK(x_.dim() >= 1, name, ": x has no axis; it must have at least 1");
    norm.size = x_.size(-1);
    EM_NATIVE_CHECK(norm.size >= 1 && norm.size <= largest_size, name, ": x is ", shape_of(x_),
                    "; the last axis must be from 1 to ", largest_size);
    norm.rows = x_.numel() / norm.size;
    EM_NATIVE_CHECK(std::isfinite(epsilon) && epsilon >= 0, name, ": eps is ", epsilon,
                    "; it must be a finite number, at least 0");
    norm.epsilon = static_cast<float>(epsilon);
    x = x_.contiguous();
    norm.x = x.const_data_ptr();
    if (residual_) {
      check_memory({name, "residual"}, *residual_);
      EM_NATIVE_CHECK(residual_->scalar_type() == x.scalar_type() && residual_->sizes() == x.sizes(), name,
                      ": residual is ", c10::toString(residual_->scalar_type()), " ", shape_of(*residual_),
                      " and x is ", c10::toString(x.scalar_type()), " ", shape_of(x), "; they must be alike");
      residual = residual_->contiguous();
      norm.residual = residual.const_data_ptr();
    }
    norm.weight_type = norm.type;
    norm.weight = take({name, "weight"}, weight_, weight);
    norm.bias = take({name, "bias"}, bias_, bias);
    EM_NATIVE_CHECK(!weight.defined() || !bias.defined() || weight.scalar_type() == bias.scalar_type(), name,
                    ": weight is ", c10::toString(weight.scalar_type()), " and bias is ",
                    c10::toString(bias.scalar_type()), "; they must be of one type");
  }

  const void* take(const Name& name, const std::optional<Tensor>& given, Tensor& kept) {
    if (!given) return nullptr;
    check_memory(name, *given);
    const Type type = type_of(name, *given);
    EM_NATIVE_CHECK(type == Type::fp32 || type == norm.type, name, " is BFloat16 and x is Float; it must be Float");
    EM_NATIVE_CHECK(given->dim() == 1 && given->size(0) == norm.size, name, " is ", shape_of(*given),
                    "; it must be [", norm.size, "]");
    norm.weight_type = type;
    kept = given->contiguous();
    return kept.const_data_ptr();
  }
};

Tensor add_layer_norm(const Tensor& x, const std::optional<Tensor>& residual, const std::optional<Tensor>& weight,
                      const std::optional<Tensor>& bias, double epsilon) {
  const Kernels& level = kernels();
  NormInputs inputs("add_layer_norm", x, residual, weight, bias, epsilon);
  const Tensor output = at::empty(x.sizes(), inputs.x.options());
  inputs.norm.centred = true;
  inputs.norm.output = output.mutable_data_ptr();
  norm(level, inputs.norm, parallel_for);
  return output;
}

std::tuple<Tensor, Tensor> add_rms_norm(const Tensor& x, const std::optional<Tensor>& residual,
                                        const std::optional<Tensor>& weight, double epsilon) {
  const Kernels& level = kernels();
  NormInputs inputs("add_rms_norm", x, residual, weight, std::nullopt, epsilon);
  const Tensor output = at::empty(x.sizes(), inputs.x.options());
  const Tensor sum = at::empty(x.sizes(), inputs.x.options());
  inputs.norm.output = output.mutable_data_ptr();
  inputs.norm.sum = sum.mutable_data_ptr();
  norm(level, inputs.norm, parallel_for);
  return {output, sum};
}

Tensor rms_norm(const Tensor& x, const std::optional<Tensor>& weight, double epsilon) {
  const Kernels& level = kernels();
  NormInputs inputs("rms_norm", x, std::nullopt, weight, std::nullopt, epsilon);
  const Tensor output = at::empty(x.sizes(), inputs.x.options());
  inputs.norm.output = output.mutable_data_ptr();
  norm(level, inputs.norm, parallel_for);
  return output;
}

// Rows of the last axis, at one distance from each other.
struct Rows {
  Tensor tensor;  // contiguous where the given one has no such distance
  int64_t count, stride;
};

Rows rows_of(const Tensor& x) {
  Rows found{x, x.numel() / x.size(-1), 0};
  bool even = x.size(-1) == 1 || x.stride(-1) == 1;
  int64_t next = -1;  // the stride that the axis before must have
  for (int64_t i = x.dim() - 2; i >= 0 && even; i--) {
    if (x.size(i) == 1) continue;
    if (next < 0)
      found.stride = x.stride(i);
    else
      even = x.stride(i) == next;
    next = x.stride(i) * x.size(i);
  }
  if (!even) {
    found.tensor = x.contiguous();
    found.stride = x.size(-1);
  }
  return found;
}

Activation activation_of(const char* operation, c10::string_view name) {
  const std::pair<const char*, Activation> known[] = {
      {"none", Activation::none}, {"gelu", Activation::gelu}, {"gelu_tanh", Activation::gelu_tanh},
      {"relu", Activation::relu}, {"silu", Activation::silu}, {"tanh", Activation::tanh},
      {"sigmoid", Activation::sigmoid}};
  for (const auto& [text, found] : known)
    if (name == text) return found;
  TORCH_CHECK(false, "em_native::", operation,
              ": activation is unknown; it must be none, gelu, gelu_tanh, relu, silu, tanh or sigmoid");
}

// The sizes that a weight has when it is packed for this level.
std::vector<int64_t> packed_sizes(const WeightLayout& layout, at::ScalarType type, int64_t outputs, int64_t inputs) {
  const int64_t panels = (outputs + layout.columns - 1) / layout.columns;
  if (type == at::kFloat) return {panels, inputs, layout.columns};
  if (type == at::kBFloat16) return {panels, (inputs + 1) / 2, layout.columns, 2};
  // Codes, and behind them their sums of 32 bits.
  return {panels, (inputs + 3) / 4 + 1, layout.columns, 4};
}

// Of a weight that is not packed.
void check_plain_weight(const char* operation, const Tensor& weight) {
  const at::ScalarType type = weight.scalar_type();
  EM_NATIVE_CHECK(type == at::kFloat || type == at::kBFloat16 || type == at::kChar, operation, ": weight is ",
                  c10::toString(type), "; it must be Float, BFloat16 or Char");
  EM_NATIVE_CHECK(weight.dim() == 2 && weight.size(0) >= 1 && weight.size(1) >= 1 && weight.size(0) <= largest_size &&
                      weight.size(1) <= (type == at::kChar ? most_codes : largest_size),
                  operation, ": weight is ", shape_of(weight), "; it must have 2 axes, the last one at most ",
                  type == at::kChar ? most_codes : largest_size);
}

Tensor pack_linear(const Tensor& weight_) {
  const WeightLayout& layout = kernels().weight_layout;
  check_memory({"pack_linear", "weight"}, weight_);
  check_plain_weight("pack_linear", weight_);
  const Tensor weight = weight_.contiguous();
  const at::ScalarType type = weight.scalar_type();
  Pack p{};
  p.type = type == at::kFloat ? Type::fp32 : type == at::kBFloat16 ? Type::bf16 : Type::int8;
  p.outputs = weight.size(0);
  p.inputs = weight.size(1);
  const Tensor packed = at::empty(packed_sizes(layout, type, p.outputs, p.inputs), weight.options());
  TORCH_INTERNAL_ASSERT(packed_bytes(layout, p.type, p.outputs, p.inputs) <=
                        packed.numel() * static_cast<int64_t>(packed.element_size()));
  p.weight = weight.const_data_ptr();
  p.packed = packed.mutable_data_ptr();
  pack(layout, p, parallel_for);
  return packed;
}

// Whether these linears are used for a weight, or oneDNN's: on every level ours (docs/decisions/native.md). Files ask, since
// it was different on some processors.
bool prefers_own_linear(const Tensor&) {
  kernels();
  return true;
}

// What linears of numbers and of codes have in common. Holds what it made contiguous.
struct LinearInputs {
  Linear linear{};
  Rows x, residual;
  Tensor weight, bias, output;

  // Without a weight: it is one of codes, which `CodedInputs` takes.
  LinearInputs(const char* name, const Tensor& x_, const std::optional<Tensor>& weight_,
               const std::optional<Tensor>& bias_,
               const std::optional<Tensor>& residual_, int64_t outputs, c10::string_view activation,
               at::ScalarType type) {
    check_memory({name, "x"}, x_);
    if (weight_) check_memory({name, "weight"}, *weight_);
    EM_NATIVE_CHECK(x_.dim() >= 1 && x_.size(-1) >= 1 && x_.size(-1) <= largest_size, name, ": x is ", shape_of(x_),
                    "; it must have at least 1 axis, the last one from 1 to ", largest_size);
    linear.inputs = x_.size(-1);
    linear.outputs = outputs;
    linear.activation = activation_of(name, activation);
    EM_NATIVE_CHECK(outputs >= 1 && outputs <= largest_size, name, ": outputs is ", outputs, "; it must be from 1 to ",
                    largest_size);
    if (weight_) take_weight(name, *weight_);
    x = rows_of(x_);
    linear.rows = x.count;
    linear.x = x.tensor.const_data_ptr();
    linear.x_row = x.stride;
    linear.type = type == at::kFloat ? Type::fp32 : Type::bf16;
    if (bias_) take_bias(name, *bias_, type);
    std::vector<int64_t> sizes = x_.sizes().vec();
    sizes.back() = outputs;
    if (residual_) {
      check_memory({name, "residual"}, *residual_);
      EM_NATIVE_CHECK(residual_->scalar_type() == type && residual_->sizes() == at::IntArrayRef(sizes), name,
                      ": residual is ", c10::toString(residual_->scalar_type()), " ", shape_of(*residual_),
                      "; it must be ", c10::toString(type), ", x's sizes with ", outputs, " at the end");
      if (residual_->numel() > 0) residual = rows_of(*residual_);
    }
    output = at::empty(sizes, x_.options().dtype(type));
    linear.output = output.mutable_data_ptr();
    linear.output_row = outputs;
    if (residual.tensor.defined()) {
      linear.residual = residual.tensor.const_data_ptr();
      linear.residual_row = residual.stride;
    }
  }

 private:
  // A plain weight is packed for this one call.
  void take_weight(const char* name, const Tensor& weight_) {
    const WeightLayout& layout = kernels().weight_layout;
    if (weight_.dim() == 2) {
      check_plain_weight(name, weight_);
      EM_NATIVE_CHECK(weight_.size(0) == linear.outputs && weight_.size(1) == linear.inputs, name, ": weight is ",
                      shape_of(weight_), "; it must be [", linear.outputs, ", ", linear.inputs, "]");
      weight = pack_linear(weight_);
    } else {
      const std::vector<int64_t> sizes = packed_sizes(layout, weight_.scalar_type(), linear.outputs, linear.inputs);
      EM_NATIVE_CHECK(weight_.sizes() == at::IntArrayRef(sizes) && weight_.is_contiguous(), name, ": weight is ",
                      shape_of(weight_), "; for ", linear.inputs, " inputs and ", linear.outputs,
                      " outputs it must be of 2 axes, or what pack_linear gave with the kernels that are in use");
      weight = weight_;
    }
    linear.weight = weight.const_data_ptr();
  }

  void take_bias(const char* name, const Tensor& bias_, at::ScalarType type) {
    check_memory({name, "bias"}, bias_);
    EM_NATIVE_CHECK(bias_.scalar_type() == at::kFloat || bias_.scalar_type() == type, name, ": bias is ",
                    c10::toString(bias_.scalar_type()), "; it must be Float",
                    type == at::kFloat ? "" : " or BFloat16");
    EM_NATIVE_CHECK(bias_.dim() == 1 && bias_.size(0) == linear.outputs, name, ": bias is ", shape_of(bias_),
                    "; it must be [", linear.outputs, "]");
    bias = bias_.contiguous();
    linear.bias_type = bias.scalar_type() == at::kFloat ? Type::fp32 : Type::bf16;
    linear.bias = bias.const_data_ptr();
  }
};

Tensor linear_operator(const Tensor& x, const Tensor& weight, const std::optional<Tensor>& bias,
                       const std::optional<Tensor>& residual, int64_t outputs, c10::string_view activation) {
  const Kernels& level = kernels();
  type_of({"linear", "x"}, x);
  const bool halves = weight.scalar_type() == at::kBFloat16;
  EM_NATIVE_CHECK(halves || (weight.scalar_type() == at::kFloat && x.scalar_type() == at::kFloat), "linear: weight is ",
                  c10::toString(weight.scalar_type()), " and x is ", c10::toString(x.scalar_type()),
                  "; weight must be BFloat16, or both Float");
  LinearInputs inputs("linear", x, weight, bias, residual, outputs, activation, x.scalar_type());
  inputs.linear.weight_type = halves ? Type::bf16 : Type::fp32;
  if (inputs.linear.rows > 0) linear(level, inputs.linear, at::get_num_threads(), parallel_for);
  return inputs.output;
}

std::tuple<Tensor, Tensor> quantise_rows(const Tensor& x_) {
  const Kernels& level = kernels();
  check_memory({"quantise_rows", "x"}, x_);
  Quantise q{};
  q.type = type_of({"quantise_rows", "x"}, x_);
  EM_NATIVE_CHECK(x_.dim() >= 1 && x_.size(-1) >= 1 && x_.size(-1) <= most_codes, "quantise_rows: x is ",
                  shape_of(x_), "; it must have at least 1 axis, the last one from 1 to ", most_codes);
  const Rows x = rows_of(x_);
  std::vector<int64_t> sizes = x_.sizes().vec();
  const Tensor codes = at::empty(sizes, x_.options().dtype(at::kByte));
  sizes.back() = 2;
  const Tensor scales = at::empty(sizes, x_.options().dtype(at::kFloat));
  q.x = x.tensor.const_data_ptr();
  q.x_row = x.stride;
  q.rows = x.count;
  q.size = x_.size(-1);
  q.codes = codes.mutable_data_ptr<uint8_t>();
  q.scales = scales.mutable_data_ptr<float>();
  quantise(level, q, parallel_for);
  return {codes, scales};
}

Tensor linear_int8(const Tensor& x, const std::optional<Tensor>& scales, const Tensor& weight,
                   const Tensor& weight_scales, const std::optional<Tensor>& bias,
                   const std::optional<Tensor>& residual, int64_t outputs, c10::string_view activation, bool half) {
  const Kernels& level = kernels();
  EM_NATIVE_CHECK(weight.scalar_type() == at::kChar, "linear_int8: weight is ", c10::toString(weight.scalar_type()),
                  "; it must be Char");
  check_memory({"linear_int8", "x"}, x);
  EM_NATIVE_CHECK(x.dim() >= 1 && x.size(-1) >= 1 && x.size(-1) <= most_codes, "linear_int8: x is ", shape_of(x),
                  "; it must have at least 1 axis, the last one from 1 to ", most_codes);
  Tensor codes = x, row_scales;
  const at::ScalarType type = half ? at::kBFloat16 : at::kFloat;
  if (scales) {
    EM_NATIVE_CHECK(x.scalar_type() == at::kByte, "linear_int8: x is ", c10::toString(x.scalar_type()),
                    "; with scales it must be Byte");
    check_memory({"linear_int8", "scales"}, *scales);
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = 2;
    EM_NATIVE_CHECK(scales->scalar_type() == at::kFloat && scales->sizes() == at::IntArrayRef(sizes),
                    "linear_int8: scales is ", c10::toString(scales->scalar_type()), " ", shape_of(*scales),
                    "; it must be Float, x's sizes with 2 at the end");
    row_scales = scales->contiguous();
  } else {
    type_of({"linear_int8", "x"}, x);
    std::tie(codes, row_scales) = quantise_rows(x);
  }
  LinearInputs inputs("linear_int8", codes, weight, bias, residual, outputs, activation, type);
  check_memory({"linear_int8", "weight_scales"}, weight_scales);
  EM_NATIVE_CHECK(weight_scales.scalar_type() == at::kFloat && weight_scales.dim() == 1 &&
                      weight_scales.size(0) == outputs,
                  "linear_int8: weight_scales is ", c10::toString(weight_scales.scalar_type()), " ",
                  shape_of(weight_scales), "; it must be Float [", outputs, "]");
  const Tensor column_scales = weight_scales.contiguous();
  inputs.linear.weight_type = Type::int8;
  inputs.linear.row_scales = row_scales.const_data_ptr<float>();
  inputs.linear.weight_scales = column_scales.const_data_ptr<float>();
  if (inputs.linear.rows > 0) linear(level, inputs.linear, at::get_num_threads(), parallel_for);
  return inputs.output;
}

// That a tensor is as a weight of codes is laid out (kernels.h).
void check_part(const Name& name, const Tensor& x, at::ScalarType type, const std::vector<int64_t>& sizes) {
  check_memory(name, x);
  EM_NATIVE_CHECK(x.scalar_type() == type && x.sizes() == at::IntArrayRef(sizes) && x.is_contiguous(), name, " is ",
                  c10::toString(x.scalar_type()), " ", shape_of(x), "; it must be ", c10::toString(type), " ",
                  at::IntArrayRef(sizes), ", contiguous");
}

// Outputs of a weight of codes in panels.
int64_t code_panels(int64_t outputs) { return (outputs + code_columns - 1) / code_columns; }

Tensor linear_codes_operator(const Tensor& x, const Tensor& codes, const Tensor& scales,
                             const std::optional<Tensor>& zeros, const std::optional<Tensor>& bias,
                             const std::optional<Tensor>& residual, int64_t outputs, int64_t group,
                             c10::string_view activation) {
  const Kernels& level = kernels();
  const char* const name = "linear_codes";
  type_of({name, "x"}, x);
  LinearInputs inputs(name, x, std::nullopt, bias, residual, outputs, activation, x.scalar_type());
  const int64_t panels = code_panels(outputs), size = inputs.linear.inputs;
  CodedWeight weight{};
  if (group == 0) {
    check_part({name, "codes"}, codes, at::kChar, {panels, size, code_columns});
    check_part({name, "scales"}, scales, at::kFloat, {outputs});
    EM_NATIVE_CHECK(!zeros, "linear_codes: zeros is given and group is 0; codes of 8 bits have no zeros");
    weight.bits = 8;
    inputs.linear.weight_scales = scales.const_data_ptr<float>();
  } else {
    EM_NATIVE_CHECK(group == 32 || group == 64 || group == 128, "linear_codes: group is ", group,
                    "; it must be 32, 64 or 128, or 0 for codes of 8 bits");
    const std::vector<int64_t> groups{panels, (size + group - 1) / group, code_columns};
    check_part({name, "codes"}, codes, at::kByte, {panels, (size + 7) / 8, code_columns, 4});
    check_part({name, "scales"}, scales, at::kHalf, groups);
    EM_NATIVE_CHECK(zeros, "linear_codes: zeros is None; codes of 4 bits need them");
    check_part({name, "zeros"}, *zeros, at::kHalf, groups);
    weight.bits = 4;
    weight.group = group;
    weight.scales = static_cast<const uint16_t*>(scales.const_data_ptr());
    weight.zeros = static_cast<const uint16_t*>(zeros->const_data_ptr());
  }
  weight.codes = codes.const_data_ptr();
  if (inputs.linear.rows > 0) linear_codes(level, inputs.linear, weight, parallel_for);
  return inputs.output;
}

Tensor embed_codes(const Tensor& ids, const Tensor& codes, const Tensor& scales) {
  kernels();
  const char* const name = "embed_codes";
  check_memory({name, "ids"}, ids);
  check_memory({name, "scales"}, scales);
  EM_NATIVE_CHECK(ids.scalar_type() == at::kLong, name, ": ids is ", c10::toString(ids.scalar_type()),
                  "; it must be Long");
  EM_NATIVE_CHECK(codes.dim() == 3 && codes.size(1) >= 1 && codes.size(1) <= largest_size, name, ": codes is ",
                  shape_of(codes), "; it must have 3 axes, the middle one from 1 to ", largest_size);
  EM_NATIVE_CHECK(scales.dim() == 1 && scales.size(0) >= 1 && scales.size(0) <= largest_size, name, ": scales is ",
                  shape_of(scales), "; it must have one axis, from 1 to ", largest_size);
  Lookup lookup{};
  lookup.size = codes.size(1);
  const int64_t rows = scales.size(0);
  check_part({name, "codes"}, codes, at::kChar, {code_panels(rows), lookup.size, code_columns});
  check_part({name, "scales"}, scales, at::kFloat, {rows});
  // A copy: what was checked must stay as it is, whatever other threads write into the tensor.
  const Tensor chosen = at::empty(ids.sizes(), ids.options()).copy_(ids);
  lookup.rows = chosen.const_data_ptr<int64_t>();
  lookup.count = chosen.numel();
  for (int64_t i = 0; i < lookup.count; i++)
    EM_NATIVE_CHECK(lookup.rows[i] >= 0 && lookup.rows[i] < rows, name, ": ids holds ", lookup.rows[i],
                    "; they must be from 0 to ", rows - 1);
  std::vector<int64_t> sizes = ids.sizes().vec();
  sizes.push_back(lookup.size);
  const Tensor output = at::empty(sizes, scales.options());
  lookup.codes = codes.const_data_ptr<int8_t>();
  lookup.scales = scales.const_data_ptr<float>();
  lookup.output = output.mutable_data_ptr<float>();
  look_up(lookup, parallel_for);
  return output;
}

std::tuple<Tensor, Tensor, Tensor> add_layer_norm_int8(const Tensor& x, const std::optional<Tensor>& residual,
                                                       const std::optional<Tensor>& weight,
                                                       const std::optional<Tensor>& bias, double epsilon) {
  const Kernels& level = kernels();
  NormInputs inputs("add_layer_norm_int8", x, residual, weight, bias, epsilon);
  EM_NATIVE_CHECK(inputs.norm.size <= most_codes, "add_layer_norm_int8: x is ", shape_of(x),
                  "; the last axis must be from 1 to ", most_codes);
  const Tensor output = at::empty(x.sizes(), inputs.x.options());
  std::vector<int64_t> sizes = x.sizes().vec();
  const Tensor codes = at::empty(sizes, inputs.x.options().dtype(at::kByte));
  sizes.back() = 2;
  const Tensor scales = at::empty(sizes, inputs.x.options().dtype(at::kFloat));
  inputs.norm.centred = true;
  inputs.norm.output = output.mutable_data_ptr();
  inputs.norm.codes = codes.mutable_data_ptr<uint8_t>();
  inputs.norm.scales = scales.mutable_data_ptr<float>();
  norm(level, inputs.norm, parallel_for);
  return {output, codes, scales};
}

// Asked for first of all by whoever loads the library: it also says why no level can be used.
int64_t version() {
  kernels();
  return operators_version;
}

std::string level() { return kernels().name; }

// Those that this processor has, the lowest first.
std::vector<std::string> usable_levels() {
  std::vector<std::string> names;
  for (int i = 0; i < available_levels(); i++) names.push_back(all_levels()[i]->name);
  return names;
}

}  // namespace

// For C++ programs that are linked with the library (environment.h), which has no other symbol.
extern "C" __attribute__((visibility("default"))) int64_t exported_model_native_version() { return version(); }

TORCH_LIBRARY(em_native, library) {
  library.def("version() -> int", version);
  library.def("level() -> str", level);
  library.def("levels() -> str[]", usable_levels);
  library.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor? offsets, Tensor? mask, float scale, bool causal, "
      "int window, bool coarse) -> Tensor");
  // Writes the new keys and values to their positions in `keys` and `values`, then each query sees the keys up to its
  // own position. The result: [rows, tokens, heads, width].
  library.def(
      "attend_cached(Tensor query, Tensor key, Tensor value, Tensor(a!) keys, Tensor(b!) values, Tensor positions, "
      "Tensor? mask, float scale, int window) -> Tensor");
  library.def("rotate(Tensor x, Tensor cosines, Tensor sines) -> Tensor");
  library.def("add_layer_norm(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps) -> Tensor");
  library.def("rms_norm(Tensor x, Tensor? weight, float eps) -> Tensor");
  library.def("add_rms_norm(Tensor x, Tensor? residual, Tensor? weight, float eps) -> (Tensor normed, Tensor sum)");
  library.def(
      "add_layer_norm_int8(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias, float eps) -> "
      "(Tensor normed, Tensor codes, Tensor scales)");
  library.def("prefers_own_linear(Tensor weight) -> bool");
  library.def("pack_linear(Tensor weight) -> Tensor");
  library.def(
      "linear(Tensor x, Tensor weight, Tensor? bias, Tensor? residual, int outputs, str activation) -> Tensor");
  library.def("quantise_rows(Tensor x) -> (Tensor codes, Tensor scales)");
  library.def(
      "linear_int8(Tensor x, Tensor? scales, Tensor weight, Tensor weight_scales, Tensor? bias, Tensor? residual, "
      "int outputs, str activation, bool half) -> Tensor");
  library.def(
      "linear_codes(Tensor x, Tensor codes, Tensor scales, Tensor? zeros, Tensor? bias, Tensor? residual, int outputs, "
      "int group, str activation) -> Tensor");
  library.def("embed_codes(Tensor ids, Tensor codes, Tensor scales) -> Tensor");
}

TORCH_LIBRARY_IMPL(em_native, CPU, library) {
  library.impl("attention", attention_operator);
  library.impl("attend_cached", attend_cached);
  library.impl("rotate", rotate_operator);
  library.impl("add_layer_norm", add_layer_norm);
  library.impl("rms_norm", rms_norm);
  library.impl("add_rms_norm", add_rms_norm);
  library.impl("add_layer_norm_int8", add_layer_norm_int8);
  library.impl("prefers_own_linear", prefers_own_linear);
  library.impl("pack_linear", pack_linear);
  library.impl("linear", linear_operator);
  library.impl("quantise_rows", quantise_rows);
  library.impl("linear_int8", linear_int8);
  library.impl("linear_codes", linear_codes_operator);
  library.impl("embed_codes", embed_codes);
}

}  // namespace em_native
