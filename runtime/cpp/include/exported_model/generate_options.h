// What can be asked of a Generator (generator.h): the options of session.text.generate that are not about text.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace exported_model {

// How to write. What is not given is as in the model's `generation_config.json`. It draws if a temperature above 0,
// `top_k`, `top_p` or `min_p` is given, and not with temperature 0.
struct GenerateOptions {
  std::optional<std::int64_t> max_new_tokens;  // none: 256, or what there is room for
  std::optional<double> temperature;           // from 0
  std::optional<std::int64_t> top_k;           // the number of tokens to choose from; 0: all
  std::optional<double> top_p;                 // the share of probability to choose from, 0 to 1
  std::optional<double> min_p;                 // the least probability to choose from, as a share of the largest
  std::optional<double> repetition_penalty;    // what the logits of ids that were there before are divided by
  std::optional<std::int64_t> seed;            // prompt number i has this one plus i; none: another one each time
  std::optional<std::vector<std::int64_t>> stop_ids;  // what ends a row; none: the model's own; empty: nothing
  bool logprobs = false;                              // also tell how probable each token was
};

}  // namespace exported_model
