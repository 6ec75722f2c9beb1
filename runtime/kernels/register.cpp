// The operators as PyTorch knows them: checks every argument (checks.h), then calls the kernels. Those that only models
// that write text need are in register_decoder.cpp.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "checks.h"

namespace em_native {
namespace {

// Raised when the meaning of an operator changes; an artifact names the version that it needs.
constexpr int64_t operators_version = 6;
// Products of codes, up to 255 * 127 each, are added in 32 bits.
constexpr int64_t most_codes = 64 * 1024;

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

// Whether these linears are used for a weight, or oneDNN's: on every level ours (docs/decisions/native.md). Files ask,
// since it was different on some processors.
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

// Of a feed-forward layer whose two halves stand in one tensor.
Tensor gated_operator(const Tensor& x_, c10::string_view activation) {
  const Kernels& level = kernels();
  check_memory({"gated", "x"}, x_);
  Gated g{};
  g.type = type_of({"gated", "x"}, x_);
  EM_NATIVE_CHECK(x_.dim() >= 1 && x_.size(-1) >= 2 && x_.size(-1) <= largest_size && x_.size(-1) % 2 == 0,
                  "gated: x is ", shape_of(x_), "; it must have at least 1 axis, the last one even and at most ",
                  largest_size);
  g.activation = activation_of("gated", activation);
  g.size = x_.size(-1) / 2;
  std::vector<int64_t> sizes = x_.sizes().vec();
  sizes.back() = g.size;
  const Tensor output = at::empty(sizes, x_.options());
  if (output.numel() == 0) return output;
  const Rows x = rows_of(x_);
  g.x = x.tensor.const_data_ptr();
  g.x_row = x.stride;
  g.rows = x.count;
  g.output = output.mutable_data_ptr();
  gated(level, g, parallel_for);
  return output;
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
  // activation(first half of the features) * second half.
  library.def("gated(Tensor x, str activation) -> Tensor");
}

TORCH_LIBRARY_IMPL(em_native, CPU, library) {
  library.impl("attention", attention_operator);
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
  library.impl("gated", gated_operator);
}

}  // namespace em_native
