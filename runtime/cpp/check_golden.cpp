// Check an artifact from C++: load it, run its golden cases, compare.
//
// In: an artifact; for one that needs IPEX, the path of its operator library. Out: a table of errors, exit
// code 0 when all are within the tolerance that the artifact states, 1 otherwise or on any error, 2 for a
// wrong command line. Refuses a format newer than FORMAT_VERSION, and an artifact without golden cases.
//
// What it does is what any C++ consumer does: read the extra files, register IPEX's operators where the
// manifest asks for them, load, prepare, call forward with tensors in the manifest's order. runtime/manifest.py
// specifies the format.

#include <caffe2/serialize/inline_container.h>
#include <torch/script.h>

#include <dlfcn.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace {

constexpr int kFormatVersion = 1;
// TorchScript profiles in the first call and optimises in the second; the third is the first undisturbed one.
constexpr int kRounds = 3;

using Tensors = std::map<std::string, at::Tensor>;

struct Case {
  Tensors inputs;
  Tensors outputs;
  std::map<std::string, std::int64_t> strides;  // outputs of which only every so manieth number is stored
};

struct Errors {
  double absolute = 0;
  double max = 0;  // relative to the largest number expected
  double rms = 0;  // relative to the expected root mean square
};

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

std::string read_part(caffe2::serialize::PyTorchStreamReader& archive, const std::string& name) {
  const std::string record = "extra/" + name;
  if (!archive.hasRecord(record)) fail("the archive holds no " + name + "; expected a file that export-model wrote");
  auto [data, size] = archive.getRecord(record);
  return std::string(static_cast<const char*>(data.get()), size);
}

at::ScalarType scalar_type(const std::string& name) {
  if (name == "I64") return at::kLong;
  if (name == "F32") return at::kFloat;
  fail("golden.safetensors holds dtype " + name + "; expected I64 or F32");
}

// safetensors: eight bytes of little-endian length, that much JSON, then the tensors' bytes.
std::map<std::string, Case> parse_cases(const std::string& bytes) {
  std::uint64_t length = 0;
  if (bytes.size() < sizeof(length)) fail("golden.safetensors is cut short");
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > bytes.size() - sizeof(length)) fail("golden.safetensors is cut short");
  const char* data = bytes.data() + sizeof(length);
  const auto header = nlohmann::json::parse(data, data + length);
  data += length;
  const std::uint64_t available = bytes.size() - sizeof(length) - length;

  std::map<std::string, Case> cases;
  for (const auto& [key, entry] : header.items()) {
    if (key == "__metadata__") continue;
    const auto first = key.find('/');
    const auto second = key.find('/', first + 1);
    if (first == std::string::npos || second == std::string::npos) fail("golden.safetensors holds a tensor named " + key);
    const auto offsets = entry.at("data_offsets").get<std::vector<std::uint64_t>>();
    const auto type = scalar_type(entry.at("dtype").get<std::string>());
    const auto shape = entry.at("shape").get<std::vector<std::int64_t>>();
    at::Tensor tensor = at::empty(shape, type);
    if (offsets.size() != 2 || offsets[1] > available || offsets[0] > offsets[1] || offsets[1] - offsets[0] != tensor.nbytes())
      fail("golden.safetensors: " + key + " has wrong offsets");
    std::memcpy(tensor.data_ptr(), data + offsets[0], tensor.nbytes());
    Case& target = cases[key.substr(0, first)];
    const auto side = key.substr(first + 1, second - first - 1);
    const auto name = key.substr(second + 1);
    (side == "input" ? target.inputs : target.outputs)[name] = tensor;
    if (side.rfind("every-", 0) == 0) target.strides[name] = std::stoll(side.substr(6));
  }
  if (cases.empty()) fail("golden.safetensors holds no case");
  return cases;
}

// The same measures as runtime/check.py.
Errors compare(const at::Tensor& answer, const at::Tensor& expected) {
  if (answer.sizes() != expected.sizes()) fail("an output has another shape than the stored one");
  const auto y = answer.to(at::kDouble), r = expected.to(at::kDouble);
  const auto zero = at::zeros_like(r);
  const auto difference = at::nan_to_num(at::where(y == r, zero, (y - r).abs()), std::numeric_limits<double>::infinity(),
                                         std::numeric_limits<double>::infinity());
  const auto finite = at::where(r.isfinite(), r, zero);
  const double scale = finite.abs().max().item<double>();
  const double rms_scale = std::sqrt(finite.square().mean().item<double>());
  Errors errors;
  errors.absolute = difference.max().item<double>();
  errors.max = errors.absolute / (scale > 0 ? scale : 1.0);
  errors.rms = std::sqrt(difference.square().mean().item<double>()) / (rms_scale > 0 ? rms_scale : 1.0);
  return errors;
}

void load_ipex(const std::string& path) {
  if (path.empty())
    fail("the artifact needs the operators of IPEX; give --ipex-library or set EXPORTED_MODEL_IPEX_LIBRARY to libintel-ext-pt-cpu.so");
  // Global, because IPEX's own plug-in libraries resolve symbols against it.
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) fail(std::string("cannot load IPEX: ") + dlerror());
}

// PyTorch reports from C++ that IPEX replaces some kernels, and that IPEX's fusion pass is deprecated.
struct SilentWarnings : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

int run(const std::string& path, const std::string& ipex_library) {
  nlohmann::json manifest;
  std::map<std::string, Case> cases;
  {
    caffe2::serialize::PyTorchStreamReader archive(path);
    const int version = std::stoi(read_part(archive, "format_version"));
    if (version > kFormatVersion)
      fail("format version " + std::to_string(version) + "; expected at most " + std::to_string(kFormatVersion));
    manifest = nlohmann::json::parse(read_part(archive, "manifest.json"));
    cases = parse_cases(read_part(archive, "golden.safetensors"));
  }
  if (!manifest.at("requires").at("ipex").is_null()) load_ipex(ipex_library);

  c10::InferenceMode guard;
  torch::jit::Module module = torch::jit::load(path, at::kCPU);
  // Brings the weights into the processor's own order, where the file has such a method.
  if (const auto prepare = module.find_method("prepare")) (*prepare)({});
  const double max_bound = manifest.at("tolerance").at("max_error").get<double>();
  const double rms_bound = manifest.at("tolerance").at("rms_error").get<double>();

  std::map<std::string, Errors> worst;
  for (int round = 0; round < kRounds; ++round) {
    for (const auto& [name, golden] : cases) {
      std::vector<c10::IValue> inputs;
      for (const auto& spec : manifest.at("inputs")) inputs.emplace_back(golden.inputs.at(spec.at("name").get<std::string>()).clone());
      const auto answers = module.forward(inputs).toTuple();
      if (answers->elements().size() != manifest.at("outputs").size()) fail("the module returns another number of outputs than the manifest says");
      std::size_t index = 0;
      for (const auto& spec : manifest.at("outputs")) {
        const auto output = spec.at("name").get<std::string>();
        at::Tensor answer = answers->elements()[index++].toTensor();
        const auto stride = golden.strides.find(output);
        if (stride != golden.strides.end()) answer = answer.flatten().slice(0, 0, std::nullopt, stride->second);
        const Errors now = compare(answer, golden.outputs.at(output));
        Errors& known = worst[name + " " + output];
        known = {std::max(known.absolute, now.absolute), std::max(known.max, now.max), std::max(known.rms, now.rms)};
      }
    }
  }

  bool passed = true;
  std::printf("%-40s %10s %10s\n", "case and output", "max error", "rms error");
  for (const auto& [name, errors] : worst) {
    // Written so that NaN fails too.
    const bool within = errors.max <= max_bound && errors.rms <= rms_bound;
    passed = passed && within;
    std::printf("%-40s %10.2e %10.2e%s\n", name.c_str(), errors.max, errors.rms, within ? "" : "  OFF");
  }
  std::printf("%s: %s, %s, %s backend, tolerance max %g rms %g, %d calls a case\n", passed ? "passed" : "FAILED",
              manifest.at("task").get<std::string>().c_str(), manifest.at("precision").get<std::string>().c_str(),
              manifest.at("backend").get<std::string>().c_str(), max_bound, rms_bound, kRounds);
  return passed ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  const char* from_environment = std::getenv("EXPORTED_MODEL_IPEX_LIBRARY");
  std::string path, ipex_library = from_environment != nullptr ? from_environment : "";
  bool usage = false;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--ipex-library" && i + 1 < argc) ipex_library = argv[++i];
    else if (path.empty() && argument.rfind("--", 0) != 0) path = argument;
    else usage = true;
  }
  if (usage || path.empty()) {
    std::fprintf(stderr, "usage: check-golden ARTIFACT [--ipex-library libintel-ext-pt-cpu.so]\n");
    return 2;
  }
  SilentWarnings handler;
  c10::WarningUtils::WarningHandlerGuard quiet(&handler);
  try {
    return run(path, ipex_library);
  } catch (const c10::Error& error) {
    std::fprintf(stderr, "check-golden: %s: %s\n", path.c_str(), error.what_without_backtrace());
  } catch (const std::exception& error) {
    // TorchScript's messages run over many lines; the first says what happened.
    const std::string text = error.what();
    std::fprintf(stderr, "check-golden: %s: %s\n", path.c_str(), text.substr(0, text.find('\n')).c_str());
  }
  return 1;
}
