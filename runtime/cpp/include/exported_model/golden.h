// The golden cases inside an artifact: inputs with the answers of the original model, and how far a session is from them.
//
// In: an artifact's path; a session. Out: errors by case and output. Refuses (ManifestDamagedError) a part that is not
// safetensors, names tensors otherwise or holds a recipe for none, (CheckFailedError) an answer of another shape, and
// inputs that were written to.
// The same measures as runtime/verification/compare.py.
#pragma once

#include <torch/script.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/archive.h>
#include <exported_model/noise.h>
#include <exported_model/session.h>

namespace exported_model {

// TorchScript profiles in the first call and optimises in the second; the third is the first undisturbed one.
constexpr int kCheckRounds = 3;

struct Case {
  Tensors inputs;
  Tensors outputs;
  std::map<std::string, std::int64_t> strides;  // outputs of which only every so manieth number is stored
};

struct Errors {
  double absolute = 0;  // in the output's own units
  double max = 0;       // relative to the largest number expected
  double rms = 0;       // relative to the expected root mean square

  // Written so that NaN is outside.
  bool within(const Tolerance& tolerance) const { return max <= tolerance.max_error && rms <= tolerance.rms_error; }
};

namespace detail {

[[noreturn]] inline void damaged(const std::string& what) {
  throw ManifestDamagedError("damaged golden.safetensors: " + what, "", kCopyAgain);
}

// safetensors: eight bytes of little-endian length, that much JSON, then the tensors' bytes.
inline at::Tensor stored_tensor(const nlohmann::json& entry, const char* data, std::uint64_t available) {
  const auto dtype = entry.at("dtype").get<std::string>();
  if (dtype != "I64" && dtype != "F32") damaged("dtype " + dtype);
  const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
  const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
  const std::uint64_t width = dtype == "I64" ? 8 : 4;
  std::uint64_t numbers = 1;
  for (const auto size : shape) {
    if (size < 0 || (size > 0 && numbers > available / static_cast<std::uint64_t>(size))) damaged("a shape out of range");
    numbers *= static_cast<std::uint64_t>(size);
  }
  if (offsets.size() != 2 || offsets[1] > available || offsets[0] > offsets[1] ||
      offsets[1] - offsets[0] != numbers * width)
    damaged("wrong offsets");
  at::Tensor tensor = at::empty(shape, dtype == "I64" ? at::kLong : at::kFloat);
  if (numbers > 0) std::memcpy(tensor.data_ptr(), data + offsets[0], tensor.nbytes());
  return tensor;
}

}  // namespace detail

// The cases of a golden.safetensors, by name.
inline std::map<std::string, Case> parse_cases(const std::string& bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof(length)) detail::damaged("cut short");
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > bytes.size() - sizeof(length)) detail::damaged("cut short");
  const char* data = bytes.data() + sizeof(length);
  std::map<std::string, Case> cases;
  try {
    const auto header = nlohmann::json::parse(data, data + length);
    for (const auto& [key, entry] : header.items()) {
      if (key == "__metadata__") continue;
      const auto first = key.find('/');
      const auto second = first == std::string::npos ? first : key.find('/', first + 1);
      if (second == std::string::npos) detail::damaged("a tensor named " + key);
      const auto side = key.substr(first + 1, second - first - 1);
      const bool sample = side.rfind("every-", 0) == 0;
      const bool recipe = side == "noise" || side == "ones";
      if (side != "input" && side != "output" && !recipe && !sample) detail::damaged("a tensor named " + key);
      Case& one = cases[key.substr(0, first)];
      const auto name = key.substr(second + 1);
      at::Tensor tensor = detail::stored_tensor(entry, data + length, bytes.size() - sizeof(length) - length);
      if (recipe) tensor = detail::make_tensor(detail::decode_recipe(tensor), side == "noise");
      (recipe || side == "input" ? one.inputs : one.outputs)[name] = std::move(tensor);
      if (sample) one.strides[name] = std::stoll(side.substr(6));
      if (sample && one.strides[name] < 1) detail::damaged("a tensor named " + key);
    }
  } catch (const nlohmann::json::exception& error) {
    detail::damaged(error.what());
  } catch (const std::logic_error& error) {  // from std::stoll and decode_recipe
    detail::damaged(error.what());
  } catch (const c10::Error& error) {  // sizes that no tensor can have
    detail::damaged(detail::first_line(error));
  }
  if (cases.empty()) detail::damaged("no case");
  return cases;
}

inline std::map<std::string, Case> read_cases(const Archive& archive) {
  return parse_cases(archive.read("golden.safetensors"));
}

inline std::map<std::string, Case> read_cases(const std::string& path) { return read_cases(Archive(path)); }

// The errors of one answer. Equal infinities are no difference; any other number that is not finite is an infinite one.
inline Errors compare(const at::Tensor& answer, const at::Tensor& expected) {
  if (answer.sizes() != expected.sizes())
    throw CheckFailedError("an answer has shape " + detail::listed(answer.sizes()),
                           "shape " + detail::listed(expected.sizes()));
  if (expected.numel() == 0) return {};
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto y = answer.to(at::kDouble), r = expected.to(at::kDouble), zero = at::zeros_like(r);
  const auto difference = at::nan_to_num(at::where(y == r, zero, (y - r).abs()), infinity, infinity);
  const auto finite = at::where(r.isfinite(), r, zero);
  const double scale = finite.abs().max().item<double>();
  const double rms_scale = std::sqrt(finite.square().mean().item<double>());
  Errors errors;
  errors.absolute = difference.max().item<double>();
  errors.max = errors.absolute / (scale > 0 ? scale : 1.0);
  errors.rms = std::sqrt(difference.square().mean().item<double>()) / (rms_scale > 0 ? rms_scale : 1.0);
  return errors;
}

// The worst errors of `rounds` calls of every case, by "case output".
inline std::map<std::string, Errors> check(const Session& session, const std::map<std::string, Case>& cases,
                                           int rounds = kCheckRounds) {
  std::map<std::string, Errors> worst;
  for (int round = 0; round < rounds; ++round) {
    for (const auto& [name, golden] : cases) {
      Tensors before;
      for (const auto& [input, tensor] : golden.inputs) before[input] = tensor.clone();
      const Tensors answers = session.run(golden.inputs);
      for (const auto& [input, tensor] : before)
        if (!at::equal(tensor, golden.inputs.at(input)))
          throw CheckFailedError("a call of case " + name + " wrote to its caller's input " + input);
      for (const auto& [output, expected] : golden.outputs) {
        const auto found = answers.find(output);
        if (found == answers.end()) throw CheckFailedError("there is no output " + output, "one, as in case " + name);
        const auto stride = golden.strides.find(output);
        const auto answer = stride == golden.strides.end()
                                ? found->second
                                : found->second.flatten().slice(0, 0, std::nullopt, stride->second);
        const Errors now = compare(answer, expected);
        Errors& known = worst[name + " " + output];
        known = {std::max(known.absolute, now.absolute), std::max(known.max, now.max), std::max(known.rms, now.rms)};
      }
    }
  }
  return worst;
}

}  // namespace exported_model
