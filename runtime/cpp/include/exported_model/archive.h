// An artifact's file, opened once: its extra parts, and its code for libtorch.
//
// In: a path. Out: parts by name, the module. Refuses (ArtifactError) what is missing, cut short, of a newer format, or
// not written by export-model. The parts' digests are not compared: the archive's own checksums are, when a part is read;
// `run-model inspect --verify` compares digests where a file arrives.
#pragma once

#include <caffe2/serialize/file_adapter.h>
#include <caffe2/serialize/inline_container.h>
#include <torch/script.h>

#include <cctype>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>

namespace exported_model {

namespace detail {

// The first line of what libtorch says; the others are its own call stack.
inline std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

constexpr const char* kCopyAgain = "copy the file again, or export the model again";

}  // namespace detail

class Archive {
 public:
  explicit Archive(const std::string& path) : path_(path) {
    // A folder opens as a stream, too.
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored) || !std::ifstream(path, std::ios::binary).good())
      throw ArtifactNotFoundError("cannot open " + path, "a file that can be read");
    try {
      file_ = std::make_shared<caffe2::serialize::FileAdapter>(path);
      reader_ = std::make_unique<caffe2::serialize::PyTorchStreamReader>(file_);
    } catch (const std::exception& error) {
      throw NotAnArtifactError(path + " is not a whole TorchScript archive: " + detail::first_line(error), "",
                               detail::kCopyAgain);
    }
  }

  // The content of an extra part such as "manifest.json".
  std::string read(const std::string& name) {
    const std::string record = "extra/" + name;
    if (!reader_->hasRecord(record))
      throw ManifestMissingError(path_ + " holds no " + name, "a file that export-model wrote",
                                 "export the model with export-model");
    try {
      auto [data, size] = reader_->getRecord(record);
      return std::string(static_cast<const char*>(data.get()), size);
    } catch (const std::exception& error) {
      throw NotAnArtifactError(path_ + ": " + name + " cannot be read: " + detail::first_line(error), "",
                               detail::kCopyAgain);
    }
  }

  Manifest manifest() {
    const std::string version = read("format_version");
    bool digits = !version.empty() && version.size() < 10;
    for (const char letter : version) digits = digits && std::isdigit(static_cast<unsigned char>(letter)) != 0;
    if (!digits)
      throw ManifestDamagedError(path_ + ": format_version holds no number", "a whole number", detail::kCopyAgain);
    if (std::stoi(version) > kFormatVersion)
      throw FormatVersionError(path_ + " has format version " + version,
                               "at most " + std::to_string(kFormatVersion) + ", which this library reads",
                               "a newer exporter wrote it: update this library, or export again");
    return parse_manifest(read("manifest.json"), path_);
  }

  // The module, on the CPU; the operators that it needs are registered.
  torch::jit::Module module() {
    try {
      return torch::jit::load(file_, at::kCPU);
    } catch (const std::exception& error) {
      throw NotAnArtifactError("TorchScript cannot load " + path_ + ": " + detail::first_line(error), "",
                               detail::kCopyAgain);
    }
  }

  const std::string& path() const { return path_; }

 private:
  std::string path_;
  std::shared_ptr<caffe2::serialize::FileAdapter> file_;
  std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader_;
};

inline Manifest read_manifest(const std::string& path) { return Archive(path).manifest(); }

}  // namespace exported_model
