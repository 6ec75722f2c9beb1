// What this process and this machine have, compared with what an artifact needs; and the operators of IPEX and of this
// project.
//
// In: a manifest. Out: nothing. Refuses (RequirementError) another libtorch, a processor that lacks instructions, and a
// library of operators that is absent, cannot be loaded or has another version.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/version.h>

#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>

#ifdef EXPORTED_MODEL_NATIVE_LINKED
// Of the library of operators that the CMake package links (runtime/kernels/register.cpp).
extern "C" std::int64_t exported_model_native_version();
#endif

namespace exported_model {

// More threads than that for each processor never help, and thousands hang the OpenMP runtime.
constexpr int kMaxThreadsPerProcessor = 8;

namespace detail {

constexpr const char* kIpexLibrary = "libintel-ext-pt-cpu.so";

// The processor's flags as the kernel names them; empty where the system does not tell.
inline std::set<std::string> cpu_flags(std::istream&& lines) {
  std::string line;
  while (std::getline(lines, line)) {
    if (line.rfind("flags", 0) != 0 && line.rfind("Features", 0) != 0) continue;
    std::istringstream words(line.substr(line.find(':') + 1));
    std::set<std::string> found;
    for (std::string word; words >> word;) found.insert(word);
    return found;
  }
  return {};
}

inline void check_torch(const Requirements& needs) {
  int major = 0, minor = 0;
  if (std::sscanf(needs.torch.c_str(), "%d.%d", &major, &minor) != 2)
    throw ManifestDamagedError("requires.torch is " + needs.torch, "a release number such as 2.8.0");
  const bool same = major == TORCH_VERSION_MAJOR && minor == TORCH_VERSION_MINOR;
  const bool newer = TORCH_VERSION_MAJOR > major || (TORCH_VERSION_MAJOR == major && TORCH_VERSION_MINOR > minor);
  if (same || (needs.torch_rule == "at-least-minor" && newer)) return;
  const std::string wanted = std::to_string(major) + "." + std::to_string(minor);
  throw TorchVersionError(std::string("this program was built with libtorch ") + TORCH_VERSION,
                          "libtorch " + wanted + (needs.torch_rule == "same-minor" ? "" : " or newer") +
                              ", for which the artifact was written",
                          "build it with that release, or export again with this one");
}

inline void check_cpu(const Manifest& manifest) {
  const auto flags = cpu_flags(std::ifstream("/proc/cpuinfo"));
  if (flags.empty()) return;
  std::string missing, wanted;
  for (const auto& flag : manifest.requires_.cpu_flags) {
    wanted += (wanted.empty() ? "" : ", ") + flag;
    if (flags.count(flag) == 0) missing += (missing.empty() ? "" : ", ") + flag;
  }
  if (!missing.empty())
    throw CpuFeatureError("this processor lacks " + missing,
                          wanted + " for a " + manifest.precision + " artifact of the " + manifest.backend + " backend",
                          "use another machine, or export with --fp32");
}

// Given, from the environment, beside libtorch, or where pip installs it beside torch; empty if nowhere.
inline std::string ipex_library(const std::string& given) {
  if (!given.empty()) return given;
  const char* named = std::getenv("EXPORTED_MODEL_IPEX_LIBRARY");
  if (named != nullptr && *named != '\0') return named;
  Dl_info torch{};
  if (dladdr(reinterpret_cast<void*>(&at::get_num_threads), &torch) == 0 || torch.dli_fname == nullptr) return "";
  const std::string file = torch.dli_fname;
  const std::string folder = file.substr(0, file.rfind('/') + 1);
  for (const auto* place : {"", "../../intel_extension_for_pytorch/lib/"}) {
    const std::string candidate = folder + place + kIpexLibrary;
    if (std::ifstream(candidate).good()) return candidate;
  }
  return "";
}

// Loading it twice is loading it once. It stays for the rest of the process, and replaces some of PyTorch's kernels.
inline void load_ipex(const std::string& given, const std::string& version) {
  const std::string path = ipex_library(given);
  if (path.empty())
    throw IpexMissingError(std::string("there is no ") + kIpexLibrary + " beside libtorch",
                           "that of intel-extension-for-pytorch " + version + ", whose operators the artifact uses",
                           "give its path, or set EXPORTED_MODEL_IPEX_LIBRARY; python -m runtime --ipex-library prints it");
  // Global, because IPEX's own plug-in libraries resolve symbols against it.
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr)
    throw IpexMissingError(std::string("cannot load IPEX: ") + dlerror(),
                           "the library of intel-extension-for-pytorch " + version);
}

inline bool native_is_registered() {
  return c10::Dispatcher::singleton().findSchema({"em_native::version", ""}).has_value();
}

// Loads the library of this project's own operators, unless it is loaded. A second library cannot register them again.
inline void open_native(const std::string& path, const char* remedy) {
  const bool registered = native_is_registered();
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | (registered ? RTLD_NOLOAD : 0)) != nullptr) return;
  if (registered)
    throw NativeLibraryError("this process has the operators of another library than " + path,
                             "no library named, or the one that is loaded", "unset Options::native_library and "
                             "EXPORTED_MODEL_NATIVE_LIBRARY, or build with EXPORTED_MODEL_NATIVE=OFF");
  throw NativeLibraryError(std::string("cannot load ") + dlerror(), "a library built for this libtorch", remedy);
}

// This project's own operators (runtime/kernels), built for this libtorch: given, from the environment, or linked.
inline void load_native(const std::string& given, std::int64_t version) {
  const char* named = std::getenv("EXPORTED_MODEL_NATIVE_LIBRARY");
  const std::string path = !given.empty() ? given : named != nullptr ? named : "";
  const char* remedy = "build them with your program (CMake's option EXPORTED_MODEL_NATIVE, which is on by default), or "
                       "export with another backend";
  if (!path.empty()) open_native(path, remedy);
  const std::string library = path.empty() ? "the library of operators" : path;
  std::int64_t found = -1;
  try {
#ifdef EXPORTED_MODEL_NATIVE_LINKED
    // The call makes the linker keep the library.
    if (path.empty()) found = exported_model_native_version();
#endif
    if (found < 0 && native_is_registered())
      found = c10::Dispatcher::singleton().findSchemaOrThrow("em_native::version", "").typed<std::int64_t()>().call();
  } catch (const c10::Error& error) {
    throw NativeLibraryError("cannot use " + library + ": " + error.what_without_backtrace(), "a processor with AVX2");
  } catch (const std::runtime_error& error) {
    throw NativeLibraryError("cannot use " + library + ": " + error.what(), "a processor with AVX2");
  }
  if (found < 0)
    throw NativeLibraryError("this program was built without the native operators, and neither "
                             "Options::native_library nor EXPORTED_MODEL_NATIVE_LIBRARY names a library",
                             "that of this project's own operators, which the artifact uses", remedy);
  if (found != version)
    throw NativeLibraryError(library + " has version " + std::to_string(found) + " of the operators",
                             "version " + std::to_string(version), remedy);
}

inline void set_threads(int threads) {
  const int most = kMaxThreadsPerProcessor * static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  if (threads < 1 || threads > most)
    throw ThreadCountError("threads is " + std::to_string(threads),
                           "a whole number from 1 to " + std::to_string(most) + ", for this machine's processors");
  at::set_num_threads(threads);
}

}  // namespace detail

}  // namespace exported_model
