// Call an artifact's method `decode`: some tokens of each row in, the logits behind those that are asked for out.
//
// The arguments are compared with the manifest's section `generation` first, the logits with what was asked for. The
// same rules as runtime/generation/cache.py and `decode` of runtime/session.py.
#pragma once

#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>
#include <exported_model/signature.h>

namespace exported_model::detail {

// `call` is what errors call it.
inline void check_generates(const Manifest& manifest, const std::string& call) {
  if (!manifest.generation)
    throw InputTaskError(call + " on an artifact for " + manifest.task, "one for text-generation");
}

// Of the ids that the model knows.
inline std::int64_t largest_id(const Manifest& manifest) {
  const auto& values = manifest.inputs.front().values;
  return values ? values->maximum : std::numeric_limits<std::int32_t>::max();
}

inline at::ScalarType cache_type(const CacheTensor& cache) {
  return cache.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat;
}

inline void check_ids(const std::string& name, const at::Tensor& tensor, const at::Tensor& input_ids) {
  if (!tensor.defined() || !tensor.device().is_cpu() || tensor.layout() != at::kStrided || tensor.scalar_type() != at::kLong)
    throw InputTypeError(name + " is no dense int64 tensor on the CPU", "int64");
  if (tensor.dim() != 2) throw InputRankError(name + " has shape " + listed(tensor.sizes()), "[rows, tokens]");
  if (tensor.numel() == 0 || tensor.size(0) != input_ids.size(0))
    throw InputSizeError(name + " has shape " + listed(tensor.sizes()), "at least one token, and rows as input_ids");
}

inline void check_range(const std::string& name, const at::Tensor& tensor, std::int64_t largest) {
  const auto [low, high] = tensor.aminmax();
  const auto least = low.item<std::int64_t>(), most = high.item<std::int64_t>();
  if (least < 0 || most > largest)
    throw InputValueError(name + " holds " + std::to_string(least < 0 ? least : most), "0 to " + std::to_string(largest));
}

inline void check_decode(const Generation& generation, std::int64_t largest, const at::Tensor& input_ids,
                         const at::Tensor& positions, const at::Tensor& kept, const std::vector<at::Tensor>& caches) {
  check_ids("input_ids", input_ids, input_ids);
  check_ids("positions", positions, input_ids);
  check_ids("kept", kept, input_ids);
  if (positions.sizes() != input_ids.sizes())
    throw InputSizeError("positions has shape " + listed(positions.sizes()), listed(input_ids.sizes()) + ", as input_ids");
  if (caches.size() != generation.caches.size())
    throw InputSizeError(std::to_string(caches.size()) + " caches",
                         std::to_string(generation.caches.size()) + ", as the manifest's generation.caches");
  const std::int64_t length = caches.front().defined() && caches.front().dim() == 4 ? caches.front().size(2) : 0;
  for (std::size_t number = 0; number < caches.size(); ++number) {
    const CacheTensor& spec = generation.caches[number];
    const std::vector<std::int64_t> expected{input_ids.size(0), spec.heads, length, spec.width};
    const at::Tensor& cache = caches[number];
    if (!cache.defined() || !cache.device().is_cpu() || cache.layout() != at::kStrided ||
        cache.scalar_type() != cache_type(spec) || cache.sizes() != expected)
      throw InputSizeError("cache " + std::to_string(number) + " is another tensor",
                           spec.dtype + " of shape " + listed(expected));
  }
  check_range("input_ids", input_ids, largest);
  check_range("positions", positions, std::min(length, generation.longest) - 1);
  check_range("kept", kept, input_ids.size(1) - 1);
}

inline at::Tensor decode(const torch::jit::Method& method, const Manifest& manifest, const at::Tensor& input_ids,
                         const at::Tensor& positions, const at::Tensor& kept, const std::vector<at::Tensor>& caches) {
  check_decode(*manifest.generation, largest_id(manifest), input_ids, positions, kept, caches);
  std::vector<c10::IValue> arguments{input_ids, positions, kept};
  arguments.insert(arguments.end(), caches.begin(), caches.end());
  try {
    at::NoGradGuard no_grad;
    const torch::jit::GraphOptimizerEnabledGuard optimising(manifest.execution.optimized_execution);
    const auto answers = method(std::move(arguments)).toTuple();
    if (answers->elements().size() != 1) throw std::runtime_error(std::to_string(answers->elements().size()) + " outputs");
    const at::Tensor logits = answers->elements()[0].toTensor();
    if (!logits.defined() || logits.scalar_type() != at::kFloat || logits.dim() != 3 ||
        logits.size(0) != input_ids.size(0) || logits.size(1) != kept.size(1))
      throw std::runtime_error("the output is no float32 tensor of the rows and tokens that were asked for");
    return logits;
  } catch (const std::exception& error) {
    throw ArtifactFailedError("the model failed on " + listed(input_ids.sizes()) + " tokens with caches of " +
                                  std::to_string(caches.front().size(2)) + ": " + last_line(error),
                              "logits, since the manifest admits these inputs",
                              "run exported-model check; export the model again if it fails too, use fewer rows if "
                              "memory ran out");
  }
}

}  // namespace exported_model::detail
