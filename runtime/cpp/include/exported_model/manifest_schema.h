// The types of manifest.json's fields: those of the dataclasses in runtime/format/manifest.py, as data.
//
// A field's type is a word: int, float, bool, str, text (a str that may hold control characters), choices (a|b), with a
// question mark where null may stand; or a list of one type, or an object. A key with a question mark may be absent; the
// key * stands for all others. Fields that are not here are ignored, as the format asks. tests/test_cpp.py compares this
// list with the dataclasses.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

#include <nlohmann/json.hpp>

namespace exported_model::detail {

constexpr const char* kManifestSchema = R"({
 "format_version": "int", "exporter_version": "str", "task": "str", "precision": "fp32|bf16|int8|int4",
 "backend": "ipex|onednn|native|plain",
 "model": {"id": "str", "revision": "str?", "type": "str", "architecture": "str", "parameters": "int",
           "weights_sha256": "str", "random_weights": "bool", "ignored_settings?": ["str"]},
 "requires": {"torch": "str", "torch_rule": "same-minor|at-least-minor", "ipex": "str?", "cpu_flags": ["str"], "native?": "int?"},
 "inputs": ["tensor"], "outputs": ["tensor"], "labels": ["str"], "activation": "softmax|sigmoid|tanh|none",
 "fusions": [{"kind": "str", "operator": "str", "count": "int"}],
 "tolerance": {"max_error": "float", "rms_error": "float"},
 "verification": "full|quick|off",
 "verified": [{"case": "str", "shape": {"*": "int"}, "padded": "bool", "output": "str", "calls": "int",
               "max_abs_error": "float", "max_error": "float", "rms_error": "float", "rows": "int",
               "argmax_mismatches": "int?"}],
 "execution": {"warmup_shapes": [{"*": "int"}], "warmup_calls": "int", "optimized_execution?": "bool"},
 "text": [null, {"max_length": "int", "pad_id": "int", "pad_token": "str", "pad_type_id": "int",
                 "padding_side": "left|right",
                 "rules?": [null, {"unknown_id": "int?", "class_id": "int?", "mask_id": "int?", "mask_token": "str?",
                                   "truncation_side": "left|right", "token_types": "bool", "clean_up_spaces": "bool",
                                   "prompt": "text", "padded_length?": "int?"}],
                 "pair_template?": [null, {"before": "text", "between": "text", "after": "text", "strip": "bool",
                                           "last_ids": ["int"]}]}],
 "parts": [{"name": "str", "size": "int", "sha256": "str"}],
 "timings?": [{"candidate": "str", "chosen": "bool", "shape": {"*": "int"}, "threads": "int", "milliseconds": "float",
               "padded?": "bool"}],
 "accuracy?": [{"output": "str", "samples": "int", "rows": "int", "mean_cosine": "float", "least_cosine": "float",
                "max_error": "float", "argmax_matches": "int?"}],
 "padded_output?": "computed|repeated",
 "embedding?": [null, {"prompts": {"*": "text"}, "normalized": "bool",
                       "similarity": "cosine|dot|euclidean|manhattan", "scale?": "float?", "bias?": "float?",
                       "tokens?": [null, {"weights": "str", "vectors": "str", "skipped_ids": ["int"]}]}],
 "late_interaction?": [null, {
   "query": {"prompt": "text", "max_length": "int", "skipped_ids?": ["int"],
             "expansion?": [null, {"token_id": "int", "length": "int", "attend": "bool"}]},
   "document": {"prompt": "text", "max_length": "int", "skipped_ids?": ["int"],
                "expansion?": [null, {"token_id": "int", "length": "int", "attend": "bool"}]},
   "prompts?": [null, {"*": "text"}]}],
 "ctc?": [null, {"blank_id": "int", "samples_per_step": "int?",
   "characters?": [null, {"tokens": ["text"], "blank": "text?", "delimiter": "text?", "space": "text",
                          "lower_case": "bool", "clean_up_spaces": "bool"}]}],
 "preprocessing?": [null, {"kind": "image|audio", "inputs": ["str"], "rate?": "int?", "pads?": "bool",
   "axes": [{"name": "str", "minimum": "int", "maximum": "int?", "multiple?": "int"}]}],
 "pictures?": [null, {"classes": ["str"], "scores": "softmax|sigmoid|none", "most?": "int?", "mask_size?": [null, ["int"]]}],
 "generation?": [null, {
   "caches": [{"heads": "int", "width": "int", "dtype": "float32|bfloat16"}], "longest": "int", "stop_ids": ["int"],
   "defaults": {"sample": "bool", "temperature": "float", "top_k": "int?", "top_p": "float?", "min_p": "float?",
                "repetition_penalty": "float", "typical_p?": "float?", "epsilon_cutoff?": "float?",
                "eta_cutoff?": "float?",
                "rules?": {"no_repeat_ngram_size?": "int", "bad_words_ids?": [["int"]], "min_length?": "int",
                           "min_new_tokens?": "int", "forced_bos_token_id?": "int?", "forced_eos_token_ids?": ["int"],
                           "decay_start?": "int", "decay_factor?": "float", "suppress_tokens?": ["int"],
                           "begin_suppress_tokens?": ["int"]},
                "beams?": {"count?": "int", "length_penalty?": "float", "early_stopping?": "no|yes|never"}},
   "chat": [null, {"template": "text", "variables": {"*": "text"}}], "max_error?": "float?", "rms_error?": "float?",
   "greedy?": [{"prompt": "int", "tokens": "int", "equal": "int", "margin": "float?"}]}],
 "prompts?": [null, {"longest_side": "int", "padded_size": ["int"]}]
})";

constexpr const char* kTensorSchema = R"({
 "name": "str", "dtype": "int64|float32",
 "axes": [{"name": "str", "minimum": "int", "maximum": "int?", "multiple?": "int"}],
 "values?": [null, {"minimum": "int", "maximum": "int"}], "fill?": "int?", "required_token_id?": "int?"
})";

[[noreturn]] inline void mismatch(const std::string& place, const nlohmann::json& value, const std::string& expected) {
  std::string shown = value.is_structured() ? value.type_name() : value.dump(-1, ' ', true);
  if (shown.size() > 60) shown = shown.substr(0, 57) + "...";
  throw std::invalid_argument((place.empty() ? "the top level" : place) + " is " + shown + ", not " + expected);
}

// C0, DEL, and C1, which in UTF-8 is C2 80 to C2 9F: they would steer the terminal that shows them.
inline bool has_control_characters(const std::string& text) {
  for (std::size_t index = 0; index < text.size(); ++index) {
    const auto byte = static_cast<unsigned char>(text[index]);
    if (byte < 0x20 || byte == 0x7F) return true;
    if (byte == 0xC2 && index + 1 < text.size() && static_cast<unsigned char>(text[index + 1]) < 0xA0) return true;
  }
  return false;
}

inline void check_scalar(std::string type, const nlohmann::json& value, const std::string& place) {
  if (type.back() == '?') {
    if (value.is_null()) return;
    type.pop_back();
  }
  constexpr auto kMost = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (value.is_number_unsigned() && value.get<std::uint64_t>() > kMost) mismatch(place, value, "an integer of 64 bits");
  if (type != "text" && value.is_string() && has_control_characters(value.get_ref<const std::string&>()))
    mismatch(place, value, "text without control characters");
  const bool one_of = type.find('|') != std::string::npos;
  bool fits = false;
  if (type == "int") fits = value.is_number_integer();
  if (type == "float") fits = value.is_number() && std::isfinite(value.get<double>());
  if (type == "bool") fits = value.is_boolean();
  if (type == "str" || type == "text") fits = value.is_string();
  if (one_of)
    fits = value.is_string() && value.get_ref<const std::string&>().find('|') == std::string::npos &&
           ("|" + type + "|").find("|" + value.get_ref<const std::string&>() + "|") != std::string::npos;
  if (!fits) mismatch(place, value, one_of ? "one of " + type : "a value of type " + type);
}

// Throws std::invalid_argument, naming the place.
inline void check_schema(const nlohmann::json& schema, const nlohmann::json& value, const std::string& place) {
  if (schema.is_string()) {
    const auto& type = schema.get_ref<const std::string&>();
    static const nlohmann::json tensor = nlohmann::json::parse(kTensorSchema);
    return type == "tensor" ? check_schema(tensor, value, place) : check_scalar(type, value, place);
  }
  if (schema.is_array() && schema[0].is_null()) {  // an object, or null
    if (!value.is_null()) check_schema(schema[1], value, place);
    return;
  }
  if (schema.is_array()) {
    if (!value.is_array()) mismatch(place, value, "a list");
    for (std::size_t index = 0; index < value.size(); ++index)
      check_schema(schema[0], value[index], place + "[" + std::to_string(index) + "]");
    return;
  }
  if (!value.is_object()) mismatch(place, value, "an object");
  const std::string begin = place.empty() ? "" : place + ".";
  for (const auto& [key, type] : schema.items()) {
    if (key == "*") {
      for (const auto& [name, item] : value.items()) check_schema(type, item, begin + name);
      continue;
    }
    const bool optional = key.back() == '?';
    const std::string name = optional ? key.substr(0, key.size() - 1) : key;
    const auto found = value.find(name);
    if (found != value.end()) check_schema(type, *found, begin + name);
    else if (!optional) throw std::invalid_argument("no field " + begin + name);
  }
}

}  // namespace exported_model::detail
