// Choose the next token of a row from its logits: the same steps, in the same order and with the same draws as
// runtime/generation/settings.py and sampling.py, where the tests compare them with transformers.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <torch/script.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/generate_options.h>
#include <exported_model/manifest.h>

namespace exported_model::detail {

// A generator takes a signed integer of 64 bits; prompts add their number to the seed.
constexpr std::int64_t kMaxSeed = std::int64_t{1} << 62;
constexpr std::int64_t kNewTokens = 256;

// How the next token is chosen: the largest logit, or drawn if `sample`. None switches a step off.
struct Sampling {
  bool sample = false;
  std::optional<double> repetition_penalty;
  double temperature = 1;
  std::optional<std::int64_t> top_k;
  std::optional<double> top_p, min_p;
  std::int64_t seed = 0;
};

inline void check_number(const char* name, const std::optional<double>& value, double most) {
  // Written so that NaN is outside.
  if (!value || (*value >= 0 && *value <= most && !std::isinf(*value))) return;
  std::ostringstream found, range;
  found << name << " is " << *value;
  range << "a number from 0";
  if (!std::isinf(most)) range << " to " << most;
  throw InputTextError(found.str(), range.str());
}

inline void check_whole(const char* name, const std::optional<std::int64_t>& value, std::int64_t least, std::int64_t end) {
  if (value && (*value < least || *value >= end))
    throw InputTextError(std::string(name) + " is " + std::to_string(*value),
                         "a whole number from " + std::to_string(least) + " to " + std::to_string(end - 1));
}

inline std::int64_t random_seed() {
  std::random_device device;
  const std::uint64_t high = device(), low = device();
  return static_cast<std::int64_t>((high << 32 | low) & (static_cast<std::uint64_t>(kMaxSeed) - 1));
}

// Settings of the artifact that would change the text, and that this library does not have.
inline void check_followed(const std::vector<std::string>& unfollowed) {
  if (!unfollowed.empty())
    throw InputTaskError("the artifact's generation_config.json sets " + unfollowed.front() +
                             ", which only Python follows",
                         "an artifact without it", "remove it from generation_config.json and export again, or use Python");
}

inline Sampling sampling_of(const SamplingDefaults& defaults, const GenerateOptions& given) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr std::int64_t kInt = std::int64_t{1} << 31;
  check_number("temperature", given.temperature, infinity);
  check_number("top_p", given.top_p, 1);
  check_number("min_p", given.min_p, 1);
  check_number("repetition_penalty", given.repetition_penalty, infinity);
  if (given.repetition_penalty == 0.0)
    throw InputTextError("repetition_penalty is 0", "a number above 0; 1 changes nothing");
  check_whole("top_k", given.top_k, 0, kInt);
  check_whole("seed", given.seed, 0, kMaxSeed);
  check_whole("max_new_tokens", given.max_new_tokens, 1, kInt);
  for (const auto id : given.stop_ids.value_or(std::vector<std::int64_t>{})) check_whole("a stop id", id, 0, kInt);
  const bool asked = given.temperature || given.top_k || given.top_p || given.min_p;
  Sampling made;
  made.sample = given.temperature != 0.0 && (asked || defaults.sample);
  check_followed(defaults.unfollowed);
  if (made.sample) check_followed(defaults.unfollowed_draws);
  const double penalty = given.repetition_penalty.value_or(defaults.repetition_penalty);
  if (penalty != 1) made.repetition_penalty = penalty;
  made.temperature = given.temperature.value_or(0) == 0 ? defaults.temperature : *given.temperature;
  made.top_k = given.top_k ? given.top_k : defaults.top_k;
  if (made.top_k == 0) made.top_k.reset();
  made.top_p = given.top_p ? given.top_p : defaults.top_p;
  if (made.top_p && *made.top_p >= 1) made.top_p.reset();
  made.min_p = given.min_p ? given.min_p : defaults.min_p;
  made.seed = given.seed ? *given.seed : random_seed();
  return made;
}

// Scores of ids that were seen are made smaller, those below 0 by multiplication.
inline at::Tensor penalised(const at::Tensor& scores, const std::vector<std::int64_t>& seen, double penalty) {
  const std::set<std::int64_t> ids(seen.begin(), seen.end());
  const auto index = at::tensor(std::vector<std::int64_t>(ids.begin(), ids.end()), at::kLong);
  const auto found = scores.index_select(0, index);
  return scores.scatter(0, index, at::where(found < 0, found * penalty, found / penalty));
}

// Throws ArtifactFailedError where the model gave no numbers, InputTextError where the settings made none of them:
// nothing can be chosen then. One that is not a number is the largest.
inline void check_scores(const at::Tensor& logits, const at::Tensor& scores) {
  const auto largest = [](const at::Tensor& tensor) { return tensor.max().item<double>(); };
  const auto shown = [](double number) { return std::isnan(number) ? "nan" : number > 0 ? "inf" : "-inf"; };
  if (scores.numel() > 0 && std::isfinite(largest(scores))) return;
  if (logits.numel() > 0 && std::isfinite(largest(logits)))
    throw InputTextError(std::string("temperature and repetition_penalty make the largest score ") + shown(largest(scores)),
                         "a finite number", "use settings nearer to 1");
  throw ArtifactFailedError(std::string("the model's largest logit is ") +
                                (logits.numel() > 0 ? shown(largest(logits)) : "absent"),
                            "a finite number", "run exported-model check, and export the model again if it fails too");
}

// Leaves those that are wanted.
inline void keep(at::Tensor& ids, at::Tensor& scores, const at::Tensor& wanted) {
  ids = ids.masked_select(wanted);
  scores = scores.masked_select(wanted);
}

// The ids that may be drawn, and in the place of all scores theirs, whose softmax are the probabilities.
inline at::Tensor candidates(at::Tensor& scores, const Sampling& sampling) {
  auto ids = at::arange(scores.size(0), at::kLong);
  if (sampling.top_k && *sampling.top_k < scores.size(0))
    // Scores equal to the last one stay.
    keep(ids, scores, scores >= std::get<0>(scores.topk(*sampling.top_k))[-1]);
  if (sampling.top_p) {
    const auto [ordered, order] = scores.sort();
    auto least = ordered.softmax(-1).cumsum(-1) <= 1 - *sampling.top_p;
    // The best one stays.
    least[-1].fill_(false);
    keep(ids, scores, at::zeros_like(least).scatter(0, order, least).logical_not());
  }
  if (sampling.min_p) {
    const auto shares = scores.softmax(-1);
    keep(ids, scores, shares >= shares.max() * *sampling.min_p);
  }
  return ids;
}

inline at::Generator generator_of(std::int64_t seed) {
  return at::make_generator<at::CPUGeneratorImpl>(static_cast<std::uint64_t>(seed));
}

// The id of the next token. `logits` are float32 [vocabulary], `seen` the row's ids so far, prompt included.
inline std::int64_t choose(const at::Tensor& logits, const std::vector<std::int64_t>& seen, const Sampling& sampling,
                           const at::Generator& generator) {
  auto scores = sampling.repetition_penalty ? penalised(logits, seen, *sampling.repetition_penalty) : logits;
  if (sampling.sample && sampling.temperature != 1) scores = scores / sampling.temperature;
  check_scores(logits, scores);
  if (!sampling.sample) return scores.argmax().item<std::int64_t>();
  const auto ids = candidates(scores, sampling);
  return ids[at::multinomial(scores.softmax(-1), 1, false, generator).item<std::int64_t>()].item<std::int64_t>();
}

}  // namespace exported_model::detail
