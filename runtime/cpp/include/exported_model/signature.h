// Check the caller's tensors against the manifest and bring them into the artifact's order.
//
// In: the specifications and tensors by name. Out: tensors in the specifications' order, left-out ones filled. Refuses
// (InputError), by name, whatever the model would answer wrongly or fail on. The same rules as runtime/input_validation.py.
#pragma once

#include <c10/util/Exception.h>
#include <torch/script.h>

#include <algorithm>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>

namespace exported_model {

using Tensors = std::map<std::string, at::Tensor>;

namespace detail {

// TorchScript's messages run over many lines; the last one says what happened.
inline std::string last_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text.substr(text.rfind('\n') + 1).substr(0, 200);
}

inline at::ScalarType scalar_type(const std::string& dtype) { return dtype == "int64" ? at::kLong : at::kFloat; }

// Whether every value of one type is a value of the other.
inline bool lossless(at::ScalarType from, at::ScalarType to) {
  if (to == at::kLong) return from == at::kBool || (at::isIntegralType(from, false) && at::elementSize(from) <= 8);
  return from == at::kFloat || from == at::kHalf || from == at::kBFloat16;
}

template <typename Sizes>
std::string listed(const Sizes& sizes) {
  std::string text;
  for (const auto size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
  return "[" + text + "]";
}

inline std::string described(const TensorSpec& spec) {
  std::string axes;
  for (const auto& axis : spec.axes) axes += (axes.empty() ? "" : ", ") + axis.name;
  return "a tensor of " + spec.dtype + " with axes [" + axes + "]";
}

inline std::string names(const std::vector<TensorSpec>& specs, bool required_only) {
  std::string text;
  for (const auto& spec : specs)
    if (!required_only || !spec.fill) text += (text.empty() ? "" : ", ") + spec.name;
  return text;
}

inline at::Tensor converted(const TensorSpec& spec, const at::Tensor& tensor) {
  const std::string input = "input '" + spec.name + "'";
  if (!tensor.device().is_cpu() || tensor.layout() != at::kStrided)
    throw InputTypeError(input + " is not a dense tensor on the CPU", described(spec));
  if (!lossless(tensor.scalar_type(), scalar_type(spec.dtype)))
    throw InputTypeError(input + " has dtype " + c10::toString(tensor.scalar_type()), described(spec),
                         "convert it to " + spec.dtype);
  if (tensor.dim() != static_cast<std::int64_t>(spec.axes.size()))
    throw InputRankError(input + " has shape " + listed(tensor.sizes()), described(spec));
  return tensor.to(scalar_type(spec.dtype));
}

inline void check_sizes(const TensorSpec& spec, const at::Tensor& tensor,
                        std::map<std::string, std::pair<std::int64_t, std::string>>& sizes) {
  for (std::size_t position = 0; position < spec.axes.size(); ++position) {
    const Axis& axis = spec.axes[position];
    const std::int64_t size = tensor.size(static_cast<std::int64_t>(position));
    const auto refuse = [&](const std::string& expected) {
      throw InputSizeError(
          "input '" + spec.name + "' has " + std::to_string(size) + " along its " + axis.name + " axis", expected);
    };
    if (size < axis.minimum || (axis.maximum && size > *axis.maximum))
      refuse(axis.maximum ? std::to_string(axis.minimum) + " to " + std::to_string(*axis.maximum)
                          : "at least " + std::to_string(axis.minimum));
    if (size % axis.multiple != 0) refuse("a multiple of " + std::to_string(axis.multiple));
    const auto known = sizes.emplace(axis.name, std::make_pair(size, spec.name)).first->second;
    if (known.first != size) refuse(std::to_string(known.first) + ", as in input '" + known.second + "'");
  }
}

inline void check_values(const TensorSpec& spec, const at::Tensor& tensor) {
  const std::string holds = "input '" + spec.name + "' holds ";
  if (spec.values) {
    const auto [low, high] = tensor.aminmax();
    const auto least = low.item<std::int64_t>(), most = high.item<std::int64_t>();
    if (least < spec.values->minimum || most > spec.values->maximum)
      throw InputValueError(
          holds + std::to_string(least < spec.values->minimum ? least : most),
          "integers from " + std::to_string(spec.values->minimum) + " to " + std::to_string(spec.values->maximum));
  }
  if (spec.required_token_id) {
    const auto counts = tensor.eq(*spec.required_token_id).sum(-1).flatten();
    const auto least = counts.min().item<std::int64_t>();
    if (least < 1 || least != counts.max().item<std::int64_t>())
      throw InputValueError(holds + "the id " + std::to_string(*spec.required_token_id) + " not equally often in its rows",
                            "it in every row, equally often");
  }
}

inline std::vector<std::int64_t> shape_of(const TensorSpec& spec, const std::map<std::string, std::int64_t>& sizes) {
  std::vector<std::int64_t> shape;
  for (const auto& axis : spec.axes) {
    const auto known = sizes.find(axis.name);
    shape.push_back(known == sizes.end() ? axis.minimum : known->second);
  }
  return shape;
}

inline std::vector<c10::IValue> arrange(const std::vector<TensorSpec>& specs, const Tensors& given) {
  for (const auto& [name, tensor] : given)
    if (std::none_of(specs.begin(), specs.end(), [&](const TensorSpec& spec) { return spec.name == name; }))
      throw InputNameError("unknown input '" + name + "'", "some of " + names(specs, false));
  const auto passed = [&](const TensorSpec& spec) {
    const auto found = given.find(spec.name);
    return found != given.end() && found->second.defined() ? &found->second : nullptr;
  };
  for (const auto& spec : specs)
    if (!spec.fill && passed(spec) == nullptr)
      throw InputNameError("input '" + spec.name + "' is missing", "at least " + names(specs, true));

  std::vector<c10::IValue> arranged(specs.size());
  std::map<std::string, std::pair<std::int64_t, std::string>> sizes;
  for (std::size_t index = 0; index < specs.size(); ++index) {
    const at::Tensor* tensor = passed(specs[index]);
    if (tensor == nullptr) continue;
    const at::Tensor fitting = converted(specs[index], *tensor);
    check_sizes(specs[index], fitting, sizes);
    check_values(specs[index], fitting);
    arranged[index] = fitting;
  }
  std::map<std::string, std::int64_t> known;
  for (const auto& [name, size] : sizes) known[name] = size.first;
  for (std::size_t index = 0; index < specs.size(); ++index)
    if (arranged[index].isNone())
      arranged[index] = at::full(shape_of(specs[index], known), *specs[index].fill, scalar_type(specs[index].dtype));
  return arranged;
}

}  // namespace detail

}  // namespace exported_model
