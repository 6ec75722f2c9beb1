// manifest.json → Manifest.
//
// Throws ManifestDamagedError for text that is not JSON in UTF-8, does not fit the types of manifest_schema.h, or
// makes no sense (validation.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>
#include <exported_model/manifest_schema.h>
#include <exported_model/validation.h>
#include <exported_model/zip_records.h>

namespace exported_model {

namespace detail {

constexpr std::size_t kMaxJsonDepth = 100;

template <typename T>
std::optional<T> optional_field(const nlohmann::json& json, const char* name) {
  const auto found = json.find(name);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return found->get<T>();
}

inline std::vector<Axis> parse_axes(const nlohmann::json& json) {
  std::vector<Axis> axes;
  for (const auto& axis : json)
    axes.push_back({axis.at("name").get<std::string>(), axis.at("minimum").get<std::int64_t>(),
                    optional_field<std::int64_t>(axis, "maximum"),
                    optional_field<std::int64_t>(axis, "multiple").value_or(1)});
  return axes;
}

inline std::optional<Preprocessing> parse_preprocessing(const nlohmann::json& json) {
  const auto found = json.find("preprocessing");
  if (found == json.end() || found->is_null()) return std::nullopt;
  return Preprocessing{found->at("kind").get<std::string>(), parse_axes(found->at("axes")),
                       found->at("inputs").get<std::vector<std::string>>(),
                       optional_field<std::int64_t>(*found, "rate"), found->value("pads", false)};
}

// Rules and beams of the artifact that are switched on, by transformers' names.
inline std::vector<std::string> unfollowed_rules(const nlohmann::json& defaults) {
  std::vector<std::string> names;
  if (const auto rules = defaults.find("rules"); rules != defaults.end())
    for (const auto& [name, value] : rules->items()) {
      const bool number = name.find("forced_") != 0 && name != "decay_factor" && value.is_number();
      const bool off = value.is_null() || (value.is_array() && value.empty()) || (number && value == 0) ||
                       (name == "decay_factor" && value == 1) || name == "decay_start";
      if (!off) names.push_back(name);
    }
  if (const auto beams = defaults.find("beams"); beams != defaults.end() && beams->value("count", 1) > 1)
    names.push_back("num_beams");
  return names;
}

inline std::optional<Generation> parse_generation(const nlohmann::json& json) {
  const auto found = json.find("generation");
  if (found == json.end() || found->is_null()) return std::nullopt;
  Generation generation;
  for (const auto& cache : found->at("caches"))
    generation.caches.push_back({cache.at("heads").get<std::int64_t>(), cache.at("width").get<std::int64_t>(),
                                 cache.at("dtype").get<std::string>()});
  found->at("longest").get_to(generation.longest);
  found->at("stop_ids").get_to(generation.stop_ids);
  const auto& defaults = found->at("defaults");
  generation.defaults = {defaults.at("sample").get<bool>(),
                         defaults.at("temperature").get<double>(),
                         optional_field<std::int64_t>(defaults, "top_k"),
                         optional_field<double>(defaults, "top_p"),
                         optional_field<double>(defaults, "min_p"),
                         defaults.at("repetition_penalty").get<double>(),
                         unfollowed_rules(defaults),
                         {}};
  for (const char* name : {"typical_p", "epsilon_cutoff", "eta_cutoff"})
    if (const auto value = defaults.find(name); value != defaults.end() && !value->is_null())
      generation.defaults.unfollowed_draws.push_back(name);
  return generation;
}

inline TensorSpec parse_spec(const nlohmann::json& json) {
  TensorSpec spec;
  json.at("name").get_to(spec.name);
  json.at("dtype").get_to(spec.dtype);
  spec.axes = parse_axes(json.at("axes"));
  const auto values = json.find("values");
  if (values != json.end() && !values->is_null())
    spec.values = ValueRange{values->at("minimum").get<std::int64_t>(), values->at("maximum").get<std::int64_t>()};
  spec.fill = optional_field<std::int64_t>(json, "fill");
  spec.required_token_id = optional_field<std::int64_t>(json, "required_token_id");
  return spec;
}

// How deep the brackets in a text of JSON nest. Beyond some thousands, printing it would exhaust the stack.
inline std::size_t json_depth(const std::string& text) {
  std::size_t depth = 0, deepest = 0;
  bool quoted = false;
  for (std::size_t index = 0; index < text.size(); ++index) {
    const char letter = text[index];
    if (quoted && letter == '\\') ++index;
    else if (letter == '"') quoted = !quoted;
    else if (!quoted && (letter == '[' || letter == '{')) deepest = std::max(deepest, ++depth);
    else if (!quoted && (letter == ']' || letter == '}') && depth > 0) --depth;
  }
  return deepest;
}

inline Manifest parse_manifest_json(const std::string& text) {
  if (starts_with(text, "\xEF\xBB\xBF")) throw std::invalid_argument("a byte order mark stands in front");
  if (json_depth(text) > kMaxJsonDepth)
    throw std::invalid_argument("brackets nest deeper than " + std::to_string(kMaxJsonDepth));
  Manifest manifest;
  manifest.json = nlohmann::json::parse(text);
  const auto& json = manifest.json;
  check_schema(nlohmann::json::parse(kManifestSchema), json, "");
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
  manifest.requires_.native = optional_field<std::int64_t>(needs, "native");
  for (const auto& spec : json.at("inputs")) manifest.inputs.push_back(parse_spec(spec));
  for (const auto& spec : json.at("outputs")) manifest.outputs.push_back(parse_spec(spec));
  json.at("tolerance").at("max_error").get_to(manifest.tolerance.max_error);
  json.at("tolerance").at("rms_error").get_to(manifest.tolerance.rms_error);
  json.at("execution").at("warmup_shapes").get_to(manifest.execution.warmup_shapes);
  json.at("execution").at("warmup_calls").get_to(manifest.execution.warmup_calls);
  manifest.execution.optimized_execution = json.at("execution").value("optimized_execution", true);
  manifest.preprocessing = parse_preprocessing(json);
  manifest.generation = parse_generation(json);
  for (const auto& part : json.at("parts")) {
    manifest.parts.push_back({part.at("name").get<std::string>(), part.at("size").get<std::int64_t>(),
                              part.at("sha256").get<std::string>()});
    manifest.digests[manifest.parts.back().name] = manifest.parts.back().sha256;
  }
  validate(manifest);
  return manifest;
}

}  // namespace detail

// `origin` names the file in errors.
inline Manifest parse_manifest(const std::string& text, const std::string& origin) {
  try {
    return detail::parse_manifest_json(text);
  } catch (const std::exception& error) {  // nlohmann's, and what does not fit
    const std::string reason = std::string(error.what()).substr(0, 200);
    throw ManifestDamagedError("damaged manifest.json of " + origin + ": " + reason, "",
                               "export the model again, or copy the file again if it was damaged on the way");
  }
}

}  // namespace exported_model
