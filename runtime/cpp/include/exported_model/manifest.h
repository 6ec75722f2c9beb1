// What an artifact says of itself: the part of runtime/format/manifest.py, THE FORMAT, that a program in C++ needs.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace exported_model {

// The newest format that this library reads.
constexpr int kFormatVersion = 2;
constexpr int kOldestFormatVersion = 2;  // version 1 was never released

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
  std::optional<std::int64_t> required_token_id;  // an id that every row holds, each equally often
};

struct Requirements {
  std::string torch;
  std::string torch_rule;  // same-minor or at-least-minor
  std::optional<std::string> ipex;
  std::vector<std::string> cpu_flags;
  std::optional<std::int64_t> native;  // the version of this project's own operators
};

struct Tolerance {
  double max_error = 0;
  double rms_error = 0;
};

struct Execution {
  std::vector<std::map<std::string, std::int64_t>> warmup_shapes;
  int warmup_calls = 0;
  bool optimized_execution = true;  // whether TorchScript's optimisation of the first calls is of use
};

// What the method `preprocess` takes and makes: of a picture, uint8 [height, width, channels], or of a sound, float32
// [samples] at a rate, the inputs for one row.
struct Preprocessing {
  std::string kind;  // image or audio
  std::vector<Axis> axes;
  std::vector<std::string> inputs;
  std::optional<std::int64_t> rate;  // samples per second
  bool pads = false;                 // whether rows of different sizes may be joined by zeros at their ends
};

// A tensor of keys or of values that the method `decode` takes, [rows, heads, length, width].
struct CacheTensor {
  std::int64_t heads = 0, width = 0;
  std::string dtype;  // float32 or bfloat16
};

// How the next token is chosen if the caller does not say: drawn if `sample`, else the one with the largest logit. None
// (for `top_k` also 0) switches a step off.
struct SamplingDefaults {
  bool sample = false;
  double temperature = 1;
  std::optional<std::int64_t> top_k;
  std::optional<double> top_p, min_p;
  double repetition_penalty = 1;
  // Settings that Python follows and this library does not: those that hold in any case, and those for drawing alone.
  std::vector<std::string> unfollowed, unfollowed_draws;
};

// How text is generated with the method `decode`. A row has at most `longest` tokens, and ends with one of `stop_ids`.
struct Generation {
  std::vector<CacheTensor> caches;
  std::int64_t longest = 0;
  std::vector<std::int64_t> stop_ids;
  SamplingDefaults defaults;
};

// One record of the archive, without the top folder.
struct Part {
  std::string name;
  std::int64_t size = 0;
  std::string sha256;
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
  std::optional<Preprocessing> preprocessing;
  std::optional<Generation> generation;
  std::vector<Part> parts;                     // in the archive's order
  std::map<std::string, std::string> digests;  // SHA-256 of each part, by its name
  nlohmann::json json;                         // all of it, fields that this library does not use included
};

}  // namespace exported_model
