// Call an artifact's method `preprocess`: from one picture or sound to the model's inputs for one row.
//
// In: the module, its manifest, and a tensor. Out: inputs by name, with the batch axis. What is given is compared with
// the manifest first, what is made with the model's inputs. The same rules as runtime/preprocessing.py.
#pragma once

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>
#include <exported_model/signature.h>

namespace exported_model::detail {

inline void check_given(const Preprocessing& rules, const at::Tensor& given) {
  const bool image = rules.kind == "image";
  const std::string what = image ? "the picture" : "the sound";
  std::string axes;
  for (const auto& axis : rules.axes)
    axes += (axes.empty() ? "" : ", ") + (axis.maximum == axis.minimum ? std::to_string(axis.minimum) : axis.name);
  const std::string dtype = image ? "uint8" : "float32";
  const std::string expected = "a tensor of " + dtype + " with axes [" + axes + "]";
  if (!given.defined() || !given.device().is_cpu() || given.layout() != at::kStrided)
    throw InputTypeError(what + " is not a dense tensor on the CPU", expected);
  if (given.scalar_type() != (image ? at::kByte : at::kFloat))
    throw InputTypeError(what + " has dtype " + c10::toString(given.scalar_type()), expected);
  if (given.dim() != static_cast<std::int64_t>(rules.axes.size()))
    throw InputRankError(what + " has shape " + listed(given.sizes()), expected);
  for (std::size_t place = 0; place < rules.axes.size(); ++place) {
    const Axis& axis = rules.axes[place];
    const std::int64_t size = given.size(static_cast<std::int64_t>(place));
    if (size >= axis.minimum && size <= axis.maximum.value_or(size)) continue;
    const std::string least = std::to_string(axis.minimum);
    std::string limit = "at least " + least;
    if (axis.maximum) limit = axis.maximum == axis.minimum ? least : least + " to " + std::to_string(*axis.maximum);
    throw InputSizeError(what + " has " + std::to_string(size) + " " + axis.name, limit);
  }
}

inline Tensors preprocess(torch::jit::Module& module, const Manifest& manifest, const at::Tensor& given) {
  if (!manifest.preprocessing)
    throw InputNameError("the artifact makes no inputs of pictures or sounds",
                         "an artifact that does; the export's choices say why it does not",
                         "pass tensors made by the model's own processor");
  const Preprocessing& rules = *manifest.preprocessing;
  check_given(rules, given);
  Tensors made;
  try {
    at::NoGradGuard no_grad;
    const torch::jit::GraphOptimizerEnabledGuard optimising(false);
    const auto found = module.get_method("preprocess")(std::vector<c10::IValue>{given}).toTuple();
    if (found->elements().size() != rules.inputs.size())
      throw std::runtime_error(std::to_string(found->elements().size()) + " inputs");
    for (std::size_t index = 0; index < rules.inputs.size(); ++index)
      made[rules.inputs[index]] = found->elements()[index].toTensor();
  } catch (const std::exception& error) {
    throw ArtifactFailedError("the method preprocess failed on " + listed(given.sizes()) + ": " + last_line(error),
                              "the model's inputs",
                              "try another; if all fail, run exported-model check, and export the model again");
  }
  std::vector<TensorSpec> specs;
  for (const auto& spec : manifest.inputs)
    if (made.count(spec.name) != 0) specs.push_back(spec);
  const auto arranged = arrange(specs, made);
  for (std::size_t index = 0; index < specs.size(); ++index) made[specs[index].name] = arranged[index].toTensor();
  return made;
}

}  // namespace exported_model::detail
