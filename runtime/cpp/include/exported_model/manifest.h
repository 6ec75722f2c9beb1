// What an artifact says of itself: the part of runtime/manifest.py, THE FORMAT, that a program in C++ needs.
//
// In: the text of manifest.json. Out: Manifest. Refuses (ManifestDamagedError) text that is not JSON or lacks a field.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <exported_model/errors.h>

namespace exported_model {

// The newest format that this library reads.
constexpr int kFormatVersion = 1;

// One axis of a tensor; axes of the same name have the same size in one call.
struct Axis {
  std::string name;
  std::int64_t minimum = 1;
  std::optional<std::int64_t> maximum;  // none: the model knows no limit
  std::int64_t multiple = 1;            // every size is a multiple of it
};

struct ValueRange {
  std::int64_t minimum = 0;
  std::int64_t maximum = 0;
};

// One input or output.
struct TensorSpec {
  std::string name;
  std::string dtype;  // int64 or float32
  std::vector<Axis> axes;
  std::optional<ValueRange> values;    // the integers that it may hold
  std::optional<std::int64_t> fill;    // what stands in for the whole tensor when it is left out
  std::optional<std::int64_t> marker;  // an id that every row holds, each equally often
};

struct Requirements {
  std::string torch;
  std::string torch_rule;  // same-minor or at-least-minor
  std::optional<std::string> ipex;
  std::vector<std::string> cpu_flags;
};

struct Tolerance {
  double max_error = 0;
  double rms_error = 0;
};

struct Execution {
  std::vector<std::map<std::string, std::int64_t>> warmup_shapes;
  int warmup_calls = 0;
  bool optimise = true;  // whether TorchScript's optimisation of the first calls is of use
};

struct Manifest {
  int format_version = 0;
  std::string task, precision, backend, verification;
  std::string model_id, model_type, weights_sha256;
  Requirements requires_;  // `requires` is a keyword from C++20 on
  std::vector<TensorSpec> inputs, outputs;
  std::vector<std::string> labels;
  std::string activation;  // softmax, sigmoid, tanh or none
  Tolerance tolerance;
  Execution execution;
  std::map<std::string, std::string> digests;  // SHA-256 of each part, by its name
  nlohmann::json json;                         // all of it, fields that this library does not use included
};

namespace detail {

template <typename T>
std::optional<T> optional_field(const nlohmann::json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

inline TensorSpec parse_spec(const nlohmann::json& json) {
  TensorSpec spec;
  json.at("name").get_to(spec.name);
  json.at("dtype").get_to(spec.dtype);
  for (const auto& axis : json.at("axes"))
    spec.axes.push_back({axis.at("name").get<std::string>(), axis.at("minimum").get<std::int64_t>(),
                         optional_field<std::int64_t>(axis, "maximum"),
                         optional_field<std::int64_t>(axis, "multiple").value_or(1)});
  const auto values = json.find("values");
  if (values != json.end() && !values->is_null())
    spec.values = ValueRange{values->at("minimum").get<std::int64_t>(), values->at("maximum").get<std::int64_t>()};
  spec.fill = optional_field<std::int64_t>(json, "fill");
  spec.marker = optional_field<std::int64_t>(json, "marker");
  if (spec.dtype != "int64" && spec.dtype != "float32") throw std::invalid_argument("dtype " + spec.dtype);
  for (const auto& axis : spec.axes)
    if (axis.minimum < 1 || axis.multiple < 1 || axis.maximum.value_or(axis.minimum) < axis.minimum)
      throw std::invalid_argument("the range of axis " + axis.name);
  return spec;
}

inline Manifest parse_manifest_json(const std::string& text) {
  Manifest manifest;
  manifest.json = nlohmann::json::parse(text);
  const auto& json = manifest.json;
  json.at("format_version").get_to(manifest.format_version);
  json.at("task").get_to(manifest.task);
  json.at("precision").get_to(manifest.precision);
  json.at("backend").get_to(manifest.backend);
  json.at("verification").get_to(manifest.verification);
  json.at("activation").get_to(manifest.activation);
  json.at("labels").get_to(manifest.labels);
  json.at("model").at("id").get_to(manifest.model_id);
  json.at("model").at("type").get_to(manifest.model_type);
  json.at("model").at("weights_sha256").get_to(manifest.weights_sha256);
  const auto& needs = json.at("requires");
  needs.at("torch").get_to(manifest.requires_.torch);
  needs.at("torch_rule").get_to(manifest.requires_.torch_rule);
  needs.at("cpu_flags").get_to(manifest.requires_.cpu_flags);
  manifest.requires_.ipex = optional_field<std::string>(needs, "ipex");
  for (const auto& spec : json.at("inputs")) manifest.inputs.push_back(parse_spec(spec));
  for (const auto& spec : json.at("outputs")) manifest.outputs.push_back(parse_spec(spec));
  if (manifest.inputs.empty() || manifest.outputs.empty()) throw std::invalid_argument("no inputs or no outputs");
  json.at("tolerance").at("max_error").get_to(manifest.tolerance.max_error);
  json.at("tolerance").at("rms_error").get_to(manifest.tolerance.rms_error);
  json.at("execution").at("warmup_shapes").get_to(manifest.execution.warmup_shapes);
  json.at("execution").at("warmup_calls").get_to(manifest.execution.warmup_calls);
  manifest.execution.optimise = json.at("execution").value("optimise", true);
  for (const auto& part : json.at("parts"))
    manifest.digests[part.at("name").get<std::string>()] = part.at("sha256").get<std::string>();
  return manifest;
}

}  // namespace detail

// `origin` names the file in errors.
inline Manifest parse_manifest(const std::string& text, const std::string& origin) {
  try {
    return detail::parse_manifest_json(text);
  } catch (const std::exception& error) {  // nlohmann's, and the two thrown above
    throw ManifestDamagedError("damaged manifest.json of " + origin + ": " + error.what(), "",
                               "export the model again, or copy the file again if it was damaged on the way");
  }
}

}  // namespace exported_model
