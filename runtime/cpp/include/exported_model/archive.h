// An artifact's file, opened once: its extra parts, and its code for libtorch.
//
// Throws ArtifactError for what is missing, cut short, built as no exporter builds it (zip.h), of a newer format, not
// written by export-model, or not as it was sealed (digests.h).
#pragma once

#include <torch/script.h>

#include <cctype>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/argument_check.h>
#include <exported_model/bytes.h>
#include <exported_model/code_check.h>
#include <exported_model/digests.h>
#include <exported_model/errors.h>
#include <exported_model/manifest.h>
#include <exported_model/manifest_parser.h>
#include <exported_model/zip.h>

namespace exported_model {

namespace detail {

// Largest size, in bytes, that a part may declare. The largest tokenizers are some tens of megabytes; beyond this the
// file is hostile or damaged. A manifest is some kilobytes, and its JSON takes many times its size in memory.
constexpr std::uint64_t kMaxPartBytes = 256 << 20, kMaxManifestBytes = 4 << 20;

}  // namespace detail

class Archive {
 public:
  explicit Archive(const std::string& path) : Archive(std::make_shared<detail::FileBytes>(path)) {}

  // The content of a file, in memory that stays as it is until this object is destroyed. `name` is for errors.
  Archive(const void* data, std::size_t size, const std::string& name = "the buffer")
      : Archive(std::make_shared<detail::BufferBytes>(data, size, name)) {}

  // The content of an extra part such as "manifest.json".
  std::string read(const std::string& name) const {
    const detail::Record* record = zip_.find("extra/" + name);
    if (record == nullptr)
      throw ManifestMissingError(path() + " holds no " + name, "a file that export-model wrote",
                                 "export the model with export-model");
    const std::uint64_t limit = name == "manifest.json" ? detail::kMaxManifestBytes : detail::kMaxPartBytes;
    if (record->size > limit)
      throw ManifestDamagedError(path() + ": " + name + " declares " + std::to_string(record->size) + " bytes",
                                 "at most " + std::to_string(limit), detail::kCopyAgain);
    return zip_.content(*record);
  }

  Manifest manifest() const {
    const std::string version = read("format_version");
    bool digits = !version.empty() && version.size() < 10;
    for (const char letter : version) digits = digits && std::isdigit(static_cast<unsigned char>(letter)) != 0;
    if (!digits)
      throw ManifestDamagedError(path() + ": format_version holds no number", "a whole number", detail::kCopyAgain);
    if (std::stoi(version) > kFormatVersion)
      throw FormatVersionError(path() + " has format version " + version,
                               "at most " + std::to_string(kFormatVersion) + ", which this library reads",
                               "a newer exporter wrote it: update this library, or export again");
    if (std::stoi(version) < kOldestFormatVersion)
      throw FormatVersionError(path() + " has format version " + version,
                               "at least " + std::to_string(kOldestFormatVersion) + ", the oldest that this library reads",
                               "an older exporter wrote it: export the model again");
    return parse_manifest(read("manifest.json"), path());
  }

  // Throws DigestError if the whole file has another SHA-256 than this one, in hexadecimal.
  void check_sha256(const std::string& expected) const { detail::check_sha256(*zip_.bytes(), expected); }

  // The SHA-256 of the whole file, in hexadecimal.
  std::string sha256() const { return detail::file_sha256(*zip_.bytes()); }

  // Throws DigestError if a part is not the one that the manifest lists. `body`, which may read the archive, runs while
  // the numbers of tensors are compared.
  void verify(const Manifest& manifest, const std::function<void()>& body = [] {}) const {
    // First, for libtorch's reader of compressed records looks at it.
    detail::check_version(zip_);
    detail::verifying_parts(zip_, manifest.parts, body);
  }

  // The module, on the CPU; the operators that it needs are registered. `allow_operators` as in Options.
  torch::jit::Module module(const std::vector<std::string>& allow_operators = {}) const {
    detail::check_code(zip_, allow_operators);
    torch::jit::Module module;
    try {
      module = torch::jit::load(zip_.bytes(), at::kCPU);
    } catch (const std::exception& error) {
      const std::string reason = detail::first_line(error).substr(0, 200);
      throw NotAnArtifactError("TorchScript cannot load " + path() + ": " + reason, "", detail::kCopyAgain);
    }
    detail::ArgumentCheck(path(), allow_operators).check(module);
    return module;
  }

  // Throws DigestError if the file was written to since it was opened.
  void check_unchanged() const { zip_.bytes()->check_unchanged(); }

  const std::string& path() const { return zip_.bytes()->origin(); }

 private:
  explicit Archive(std::shared_ptr<detail::Bytes> bytes) : zip_(std::move(bytes)) {}

  detail::Zip zip_;
};

inline Manifest read_manifest(const std::string& path) {
  const Archive archive(path);
  Manifest manifest = archive.manifest();
  archive.check_unchanged();
  return manifest;
}

}  // namespace exported_model
