// Run an exported model: named tensors in, named tensors out.
//
//     exported_model::Session session("model.pt");
//     auto answers = session.run({{"input_ids", ids}, {"attention_mask", mask}});
//     answers.at("logits")
//
// In: the path of an artifact, or its content in memory; then tensors by name. Out: float32 tensors by name. Throws
// Error (errors.h) for files and machines that do not fit, and for inputs that do not fit. The C++ counterpart of
// runtime/session.py; docs/cpp.md says what is checked.
#pragma once

#include <c10/util/Exception.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <unistd.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <exported_model/archive.h>
#include <exported_model/decoding.h>
#include <exported_model/environment.h>
#include <exported_model/errors.h>
#include <exported_model/manifest.h>
#include <exported_model/preprocessing.h>
#include <exported_model/signature.h>

namespace exported_model {

struct Options {
  // Where libintel-ext-pt-cpu.so lies, for artifacts that need IPEX. Empty: EXPORTED_MODEL_IPEX_LIBRARY, else beside
  // libtorch, else where pip installs it.
  std::string ipex_library;
  // The library of this project's own operators, for artifacts of the native backend. Empty:
  // EXPORTED_MODEL_NATIVE_LIBRARY, else the one that the program is linked with (CMake's option EXPORTED_MODEL_NATIVE).
  std::string native_library;
  // libtorch's thread count, set for the whole process before the file is loaded; none leaves it as it is.
  std::optional<int> threads;
  // Make the calls that the manifest asks for, so that the first real one is as fast as the rest.
  bool warm_up = true;
  // The SHA-256 that the whole file must have, in hexadecimal, compared before anything is read from it. Empty: any.
  std::string sha256;
  // Operators that the code may call beside those of operators.def, such as "aten::erfinv". You vouch for the file.
  std::vector<std::string> allow_operators;
};

namespace detail {

// Freed memory stays with the process, up to 256 MB of it, unless the environment says otherwise: by default glibc
// gives blocks of some megabytes back at once, and each call gets them again page by page (runtime/host/allocator.py has
// figures).
inline void keep_memory_between_calls() {
#ifdef __GLIBC__
  for (const char* name : {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"})
    if (std::getenv(name) != nullptr) return;
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

// PyTorch says from C++ that IPEX replaces kernels and that its fusion pass is deprecated: nothing to act on.
struct SilentWarnings : c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

inline at::Tensor placeholder(const TensorSpec& spec, const std::map<std::string, std::int64_t>& sizes) {
  const auto shape = shape_of(spec, sizes);
  if (spec.dtype == "float32") return at::zeros(shape, at::kFloat);
  if (spec.fill) return at::full(shape, *spec.fill, at::kLong);
  std::int64_t number = spec.values ? spec.values->minimum : 0;
  const bool of_text = std::any_of(spec.axes.begin(), spec.axes.end(), [](const Axis& axis) {
    const std::string end = "sequence";
    return axis.name.size() >= end.size() && axis.name.compare(axis.name.size() - end.size(), end.size(), end) == 0;
  });
  if (spec.values && of_text) {
    // The middle of the vocabulary: special tokens stand at its ends.
    const auto low = static_cast<std::uint64_t>(spec.values->minimum);
    const auto high = static_cast<std::uint64_t>(spec.values->maximum);
    number = spec.values->minimum + static_cast<std::int64_t>((high - low) / 2);
  }
  if (spec.required_token_id && number == *spec.required_token_id) ++number;
  auto tensor = at::full(shape, number, at::kLong);
  if (spec.required_token_id) tensor.select(-1, -1).fill_(*spec.required_token_id);
  return tensor;
}

}  // namespace detail

// Inputs of one shape (sizes by the axes' names) that the manifest admits, without padding: for warm-up and for timing.
inline Tensors placeholders(const Manifest& manifest, const std::map<std::string, std::int64_t>& sizes) {
  Tensors tensors;
  for (const auto& spec : manifest.inputs) tensors[spec.name] = detail::placeholder(spec, sizes);
  return tensors;
}

// The SHA-256 digests of all parts, combined by exclusive or, in hexadecimal: what tells one artifact from another.
inline std::string fingerprint(const Manifest& manifest) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string combined(64, '0');
  for (const auto& [name, digest] : manifest.digests)
    for (std::size_t index = 0; index < combined.size() && index < digest.size(); ++index) {
      const auto value = [](char letter) { return letter <= '9' ? letter - '0' : letter - 'a' + 10; };
      combined[index] = kDigits[(value(combined[index]) ^ value(digest[index])) & 15];
    }
  return combined;
}

// What a header of `export-model --cpp-header` asks of a manifest: the parts that it was written with.
inline void check_contract(const Manifest& manifest, const std::string& path, std::string_view expected) {
  if (fingerprint(manifest) == expected) return;
  throw ContractError(path + " is not the artifact that this program was compiled for",
                      "parts with the fingerprint " + std::string(expected.substr(0, 16)),
                      "write the header anew with export-model --cpp-header and compile again, or give the other file");
}

// A loaded artifact. Safe to call from many threads: a call changes nothing in it. Can be moved, not copied.
class Session {
 public:
  // Throws ArtifactError or RequirementError; nothing stays loaded then, but the operators of IPEX. `admit` may throw
  // what it likes about the manifest, before anything else is done.
  explicit Session(const std::string& path, const Options& options = {},
                   const std::function<void(const Manifest&)>& admit = nullptr)
      : Session(Archive(path), options, admit) {}

  // The same from a file's content, which is read, and no longer needed, by the constructor. It must not change
  // meanwhile.
  Session(const void* data, std::size_t size, const Options& options = {},
          const std::function<void(const Manifest&)>& admit = nullptr)
      : Session(Archive(data, size), options, admit) {}

  // The same from an archive that is open: for what else is read of it, of the same file.
  explicit Session(const Archive& archive, const Options& options = {},
                   const std::function<void(const Manifest&)>& admit = nullptr) {
    if (!options.sha256.empty()) archive.check_sha256(options.sha256);
    manifest_ = std::make_unique<const Manifest>(archive.manifest());
    if (admit) admit(*manifest_);
    detail::check_torch(manifest_->requires_);
    detail::check_cpu(*manifest_);
    if (options.threads) detail::set_threads(*options.threads);
    detail::SilentWarnings silent;
    c10::WarningUtils::WarningHandlerGuard quiet(&silent);
    at::NoGradGuard no_grad;
    archive.verify(*manifest_, [&] {
      if (manifest_->requires_.ipex) detail::load_ipex(options.ipex_library, *manifest_->requires_.ipex);
      if (manifest_->requires_.native) detail::load_native(options.native_library, *manifest_->requires_.native);
      module_ = std::make_unique<torch::jit::Module>(archive.module(options.allow_operators));
      prepare();
      if (manifest_->preprocessing && !module_->find_method("preprocess"))
        throw ManifestDamagedError("the manifest says that the file makes inputs of data, but it has no method "
                                   "preprocess", "", detail::kCopyAgain);
      if (manifest_->generation && !module_->find_method("decode"))
        throw ManifestDamagedError("the manifest says that the file generates text, but it has no method decode", "",
                                   detail::kCopyAgain);
      forward_ = std::make_unique<const torch::jit::Method>(module_->get_method("forward"));
      if (manifest_->generation) decode_ = std::make_unique<const torch::jit::Method>(module_->get_method("decode"));
    });
    archive.check_unchanged();
    threads_ = at::get_num_threads();
    process_ = getpid();
    // After reading and packing: each block that these free goes back to the system at once, and the peak is lower.
    detail::keep_memory_between_calls();
    if (options.warm_up) warm_up();
#ifdef __GLIBC__
    // Return to the system what reading and packing the weights needed; glibc keeps it otherwise.
    malloc_trim(0);
#endif
  }

  // Run the model once. Inputs with a fill value may be left out; none is written to. The answers are the caller's own.
  //
  // Throws InputError, ThreadCountError, ForkError, or ArtifactFailedError where the model fails or memory runs out.
  Tensors run(const Tensors& inputs) const {
    check_process();
    std::vector<c10::IValue> arranged = detail::arrange(manifest_->inputs, inputs);
    if (manifest_->requires_.ipex && at::get_num_threads() != threads_)
      // IPEX packs weights for a thread count; its documentation warns of wrong results after a change.
      throw ThreadCountError("libtorch uses " + std::to_string(at::get_num_threads()) + " threads now",
                             std::to_string(threads_) + ", for which the weights were packed",
                             "set the thread count before opening a session, or open it again");
    try {
      // Not inference mode: its tensors refuse to be changed in place, or to enter autograd, later on.
      at::NoGradGuard no_grad;
      const torch::jit::GraphOptimizerEnabledGuard optimising(manifest_->execution.optimized_execution);
      const auto answers = (*forward_)(std::move(arranged)).toTuple();
      if (answers->elements().size() != manifest_->outputs.size())
        throw std::runtime_error(std::to_string(answers->elements().size()) + " outputs");
      Tensors named;
      for (std::size_t index = 0; index < manifest_->outputs.size(); ++index)
        named[manifest_->outputs[index].name] = answers->elements()[index].toTensor();
      return named;
    } catch (const std::exception& error) {
      throw ArtifactFailedError("the model failed on " + shapes(inputs) + ": " + detail::last_line(error),
                                "an answer, since the manifest admits these inputs",
                                "run exported-model check; export the model again if it fails too, use smaller batches "
                                "if memory ran out");
    }
  }

  // Read some tokens of each row, with what was read before in the caches, which are written to: the method behind
  // Generator (generator.h).
  //
  // `input_ids` and `positions` are int64 [rows, tokens]; `positions` says where each token stands in its row, from 0
  // on. `kept`, int64 [rows, kept], holds the numbers within this call of the tokens whose logits are wanted. `caches`
  // are what `manifest().generation->caches` describes, all of one length; new ones hold zeros. Calls with different
  // caches may be made from different threads. Out: logits of float32, [rows, kept, vocabulary].
  //
  // Throws InputError where an argument does not fit or the artifact does not generate text; ForkError, or
  // ArtifactFailedError where the model fails or memory runs out.
  at::Tensor decode(const at::Tensor& input_ids, const at::Tensor& positions, const at::Tensor& kept,
                    const std::vector<at::Tensor>& caches) const {
    check_process();
    detail::check_generates(*manifest_, "decode");
    return detail::decode(*decode_, *manifest_, input_ids, positions, kept, caches);
  }

  // The model's inputs for one row, made of a picture (uint8 [height, width, channels]) or of a sound (float32 [samples]
  // at the artifact's rate) as the model's own processor does; `manifest().preprocessing` says which.
  //
  // Throws InputError where it does not fit, where what is made of it does not fit the model, and where the artifact
  // makes no inputs; ForkError, or ArtifactFailedError where the artifact's method fails.
  Tensors preprocess(const at::Tensor& given) const {
    check_process();
    return detail::preprocess(*module_, *manifest_, given);
  }

  // The calls that the manifest asks for. The constructor makes them unless told otherwise.
  void warm_up() const {
    for (const auto& shape : manifest_->execution.warmup_shapes) {
      const Tensors inputs = placeholders(*manifest_, shape);
      for (int call = 0; call < manifest_->execution.warmup_calls; ++call) run(inputs);
    }
  }

  const Manifest& manifest() const { return *manifest_; }

  // The module itself, for what this class does not cover; the manifest has the order of its inputs and outputs.
  torch::jit::Module& module() const { return *module_; }

 private:
  void check_process() const {
    if (getpid() != process_ && at::get_num_threads() > 1)
      throw ForkError("the session was loaded before this process was forked, and libtorch uses " +
                          std::to_string(at::get_num_threads()) + " threads, which a fork leaves behind",
                      "a session of this process", "load after the fork, or with threads=1");
  }

  static std::string shapes(const Tensors& inputs) {
    std::string text;
    for (const auto& [name, tensor] : inputs)
      if (tensor.defined()) text += (text.empty() ? "" : ", ") + name + " " + detail::listed(tensor.sizes());
    return text;
  }

  // Brings the weights into the processor's own order, where the file has such a method.
  void prepare() const {
    const auto method = module_->find_method("prepare");
    if (!method) return;
    try {
      (*method)({});
    } catch (const std::exception& error) {
      throw ArtifactFailedError("preparing the weights failed: " + detail::last_line(error), "", detail::kCopyAgain);
    }
  }

  std::unique_ptr<const Manifest> manifest_;
  std::unique_ptr<torch::jit::Module> module_;
  std::unique_ptr<const torch::jit::Method> forward_, decode_;
  int threads_ = 0;
  pid_t process_ = 0;  // the one that loaded it
};

}  // namespace exported_model
