// Refuse a manifest whose fields each have the right type and make no sense together: the rules of runtime/format/validation.py.
//
// Whatever passes can be described, warmed up and checked against inputs without exhausting time or memory.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <exported_model/manifest.h>

namespace exported_model::detail {

// Bounds far above anything real; beyond them a warm-up would exhaust time or memory.
constexpr std::int64_t kMaxWarmupTokens = 1 << 16;
// Where pixels or samples go in, on each of which less is computed.
constexpr std::int64_t kMaxWarmupElements = 1 << 22;
constexpr std::int64_t kMaxWarmupCalls = 100;
constexpr std::size_t kMaxCaches = 2048;
constexpr std::ptrdiff_t kMaxTemplate = 1 << 18;

inline void require(bool sensible, const std::string& place, const std::string& expected) {
  if (!sensible) throw std::invalid_argument(place + " makes no sense; expected " + expected);
}

// A release number such as 2.8.0 or 2.9.0a0+git12.
inline bool is_release(const std::string& text) {
  const auto digits = [&](std::size_t begin) {
    std::size_t end = begin;
    while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
    return end;
  };
  const std::size_t major = digits(0), minor = digits(major + 1);
  const bool numbers = major > 0 && major < 5 && text.size() < 56 && text[major] == '.' && minor > major + 1 &&
                       minor < major + 6;
  return numbers && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789.+-", minor) == std::string::npos;
}

inline void validate_tensor(const TensorSpec& spec) {
  require(!spec.axes.empty(), spec.name + ".axes", "at least one axis");
  for (const auto& axis : spec.axes) {
    const std::string place = spec.name + "." + axis.name;
    require(axis.minimum >= 1 && axis.maximum.value_or(axis.minimum) >= axis.minimum, place, "a range from 1 on");
    require(axis.multiple >= 1, place, "a step that leaves sizes within the range");
    require(!axis.maximum || *axis.maximum / axis.multiple * axis.multiple >= axis.minimum, place,
            "a step that leaves sizes within the range");
  }
  const auto admits = [&](std::int64_t number) {
    return spec.values->minimum <= number && number <= spec.values->maximum;
  };
  if (spec.values)
    require(spec.values->minimum <= spec.values->maximum && spec.dtype == "int64", spec.name + ".values",
            "a range of integers, for an int64 input");
  if (spec.values && spec.fill) require(admits(*spec.fill), spec.name + ".fill", "one of its values");
  if (spec.required_token_id) require(spec.values && admits(*spec.required_token_id), spec.name + ".required_token_id", "one of its values");
}

inline void validate_warmup(const Manifest& manifest) {
  const std::string place = "execution.warmup_shapes: ";
  std::map<std::string, const Axis*> limits;
  bool numbers = false;
  for (const auto& spec : manifest.inputs) {
    numbers = numbers || spec.dtype == "float32";
    for (const auto& axis : spec.axes) limits[axis.name] = &axis;
  }
  const std::int64_t most = numbers ? kMaxWarmupElements : kMaxWarmupTokens;
  for (const auto& shape : manifest.execution.warmup_shapes) {
    for (const auto& [name, size] : shape) {
      const auto axis = limits.find(name);
      require(axis != limits.end() && size >= axis->second->minimum && size <= axis->second->maximum.value_or(size),
              place + name + " " + std::to_string(size), "axes of the inputs within their range");
    }
    for (const auto& spec : manifest.inputs) {
      std::int64_t elements = 1;
      for (const auto& axis : spec.axes) {
        const auto size = shape.find(axis.name);
        const std::int64_t factor = size == shape.end() ? axis.minimum : size->second;
        require(factor <= most / elements, place + spec.name, "at most " + std::to_string(most) + " elements");
        elements *= factor;
      }
    }
  }
  const auto calls = manifest.json.at("execution").at("warmup_calls").get<std::int64_t>();
  require(calls >= 0 && calls <= kMaxWarmupCalls, "execution.warmup_calls",
          "0 to " + std::to_string(kMaxWarmupCalls));
}

inline void validate_text(const nlohmann::json& text) {
  if (text.is_null()) return;
  const auto within = [](const nlohmann::json& value, std::int64_t least, std::int64_t end) {
    return value.is_null() || (value.get<std::int64_t>() >= least && value.get<std::int64_t>() < end);
  };
  constexpr std::int64_t kIds = std::int64_t{1} << 31;
  require(within(text.at("max_length"), 1, 1 << 24) && within(text.at("pad_id"), 0, kIds) &&
              within(text.at("pad_type_id"), 0, kIds),
          "text", "lengths and ids that are not negative");
  const auto rules = text.find("rules");
  if (rules == text.end() || rules->is_null()) return;
  for (const char* name : {"unknown_id", "class_id", "mask_id"})
    require(within(rules->at(name), 0, kIds), "text.rules", "ids that are not negative");
}

inline void validate_preprocessing(const Manifest& manifest) {
  if (!manifest.preprocessing) return;
  const Preprocessing& found = *manifest.preprocessing;
  const bool image = found.kind == "image";
  const std::vector<std::string> expected = image ? std::vector<std::string>{"height", "width", "channels"}
                                                  : std::vector<std::string>{"samples"};
  bool named = found.axes.size() == expected.size();
  for (std::size_t place = 0; named && place < expected.size(); ++place)
    named = found.axes[place].name == expected[place];
  require(named, "preprocessing.axes", image ? "height, width, channels" : "samples");
  for (const auto& axis : found.axes)
    require(axis.minimum >= 1 && axis.maximum.value_or(axis.minimum) >= axis.minimum && axis.multiple == 1,
            "preprocessing." + axis.name, "a range from 1 on, without a step");
  std::set<std::string> inputs, made(found.inputs.begin(), found.inputs.end());
  for (const auto& spec : manifest.inputs) inputs.insert(spec.name);
  require(!made.empty() && made.size() == found.inputs.size() &&
              std::includes(inputs.begin(), inputs.end(), made.begin(), made.end()),
          "preprocessing.inputs", "names of the model's inputs, each once");
  const std::int64_t rate = found.rate.value_or(1);
  require(found.rate.has_value() != image && rate > 0 && rate < (std::int64_t{1} << 31), "preprocessing.rate",
          "samples per second for sounds alone");
}

// Of the results for pictures, which no program in C++ uses yet.
inline void validate_pictures(const Manifest& manifest) {
  const auto found = manifest.json.find("pictures");
  if (found == manifest.json.end() || found->is_null()) return;
  const auto output = [&](const std::string& name) -> const TensorSpec* {
    for (const auto& spec : manifest.outputs)
      if (spec.name == name) return &spec;
    return nullptr;
  };
  struct Known {
    std::string output;
    std::size_t place;
  };
  static const std::map<std::string, Known> tasks = {{"image-classification", {"logits", 1}},
                                                     {"semantic-segmentation", {"logits", 1}},
                                                     {"object-detection", {"logits", 2}},
                                                     {"image-segmentation", {"class_queries_logits", 2}}};
  const auto known = tasks.find(manifest.task);
  const TensorSpec* logits = known == tasks.end() ? nullptr : output(known->second.output);
  require(logits != nullptr && logits->axes.size() > known->second.place, "pictures", "a task with logits");
  const auto count = static_cast<std::int64_t>(found->at("classes").size()) +
                     (known->second.place == 2 && found->at("scores").get<std::string>() == "softmax" ? 1 : 0);
  const Axis& axis = logits->axes[known->second.place];
  require(axis.minimum == count && axis.maximum == count, "pictures.classes",
          "as many as the logits' axis " + axis.name);
  const auto most = found->find("most");
  if (most != found->end() && !most->is_null())
    require(most->get<std::int64_t>() > 0 && most->get<std::int64_t>() < (std::int64_t{1} << 31), "pictures.most",
            "a number from 1");
  const auto size = found->find("mask_size");
  if (size != found->end() && !size->is_null()) {
    const auto sides = size->get<std::vector<std::int64_t>>();
    const auto admitted = [](std::int64_t side) { return side > 0 && side <= 8192; };
    require(sides.size() == 2 && std::all_of(sides.begin(), sides.end(), admitted), "pictures.mask_size",
            "a height and a width, at most 8192");
  }
  if (manifest.task == "object-detection") {
    const TensorSpec* boxes = output("pred_boxes");
    require(boxes != nullptr && boxes->axes.size() == 3 && boxes->axes[2].minimum == 4 && boxes->axes[2].maximum == 4,
            "pictures", "an output pred_boxes of four numbers");
  }
  if (manifest.task == "image-segmentation") {
    const TensorSpec* masks = output("masks_queries_logits");
    require(masks != nullptr && masks->axes.size() == 4, "pictures", "an output masks_queries_logits");
  }
}

inline void validate_generation(const Manifest& manifest) {
  if (!manifest.generation) return;
  const Generation& found = *manifest.generation;
  require(found.caches.size() >= 2 && found.caches.size() <= kMaxCaches && found.caches.size() % 2 == 0,
          "generation.caches", "2 to " + std::to_string(kMaxCaches) + " tensors, keys and values in turn");
  const auto is_size = [](std::int64_t size) { return size > 0 && size < (1 << 16); };
  for (const auto& cache : found.caches)
    require(is_size(cache.heads) && is_size(cache.width), "generation.caches", "heads and widths from 1 on");
  require(found.longest > 0 && found.longest < (1 << 24), "generation.longest", "a number of tokens from 1");
  const auto is_id = [](std::int64_t number) { return number >= 0 && number < (std::int64_t{1} << 31); };
  require(std::all_of(found.stop_ids.begin(), found.stop_ids.end(), is_id), "generation.stop_ids",
          "ids that are not negative");
  const SamplingDefaults& defaults = found.defaults;
  require(defaults.temperature > 0 && defaults.repetition_penalty > 0, "generation.defaults",
          "a temperature and a penalty above 0");
  require(is_id(defaults.top_k.value_or(0)), "generation.defaults.top_k", "a number of tokens");
  for (const auto& share : {defaults.top_p, defaults.min_p})
    require(!share || (*share >= 0 && *share <= 1), "generation.defaults", "shares from 0 to 1");
  const auto& chat = manifest.json.at("generation").at("chat");
  if (chat.is_null()) return;
  const auto& text = chat.at("template").get_ref<const std::string&>();
  // Characters, of UTF-8.
  const auto characters =
      std::count_if(text.begin(), text.end(), [](char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; });
  require(characters <= kMaxTemplate, "generation.chat.template", "at most " + std::to_string(kMaxTemplate) + " characters");
}

// Throws std::invalid_argument at the first field that makes no sense.
inline void validate(const Manifest& manifest) {
  const auto version = manifest.json.at("format_version").get<std::int64_t>();
  require(version >= kOldestFormatVersion && version <= kFormatVersion, "format_version",
          std::to_string(kOldestFormatVersion) + " to " + std::to_string(kFormatVersion));
  require(is_release(manifest.requires_.torch), "requires.torch", "a release number such as 2.8.0");
  require(is_release(manifest.requires_.ipex.value_or("2.8.0")), "requires.ipex", "a release number such as 2.8.0");
  for (const auto* specs : {&manifest.inputs, &manifest.outputs}) {
    std::set<std::string> names;
    for (const auto& spec : *specs) names.insert(spec.name);
    require(!specs->empty() && names.size() == specs->size(), specs == &manifest.inputs ? "inputs" : "outputs",
            "at least one, each name once");
    for (const auto& spec : *specs) validate_tensor(spec);
  }
  const auto required = [](const TensorSpec& spec) { return !spec.fill; };
  require(std::any_of(manifest.inputs.begin(), manifest.inputs.end(), required), "inputs",
          "one that cannot be left out");
  validate_warmup(manifest);
  for (const double bound : {manifest.tolerance.max_error, manifest.tolerance.rms_error})
    require(bound >= 0 && bound <= 1, "tolerance", "0 to 1");
  validate_text(manifest.json.at("text"));
  validate_preprocessing(manifest);
  validate_pictures(manifest);
  validate_generation(manifest);
  if (!manifest.labels.empty())
    for (const auto& spec : manifest.outputs)
      require(spec.axes.back().maximum == static_cast<std::int64_t>(manifest.labels.size()), "labels",
              "as many as the outputs' last axis");
}

}  // namespace exported_model::detail
