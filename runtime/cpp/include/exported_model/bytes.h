// Where an artifact's bytes come from: a file that is opened once, or memory of the caller's.
//
// Everything that reads an artifact, libtorch included, reads it here. So what libtorch loads is what was checked, even
// if the path leads to another file in the meantime. Reading is safe from many threads.
#pragma once

#include <caffe2/serialize/read_adapter_interface.h>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <exported_model/errors.h>

namespace exported_model {

namespace detail {

constexpr const char* kCopyAgain = "copy the file again, or export the model again";

class Bytes : public caffe2::serialize::ReadAdapterInterface {
 public:
  explicit Bytes(std::string origin) : origin_(std::move(origin)) {}
  Bytes(const Bytes&) = delete;
  Bytes& operator=(const Bytes&) = delete;

  // The name of the file, or of the buffer, in errors.
  const std::string& origin() const { return origin_; }

  // Throws DigestError if the bytes were written to since they were opened, as far as that can be seen.
  virtual void check_unchanged() const = 0;

  // `count` bytes from `place` on. Throws NotAnArtifactError where there are fewer.
  std::string at(std::uint64_t place, std::uint64_t count) const {
    std::string bytes(static_cast<std::size_t>(count), '\0');
    read_all(place, &bytes[0], bytes.size());
    return bytes;
  }

  void read_all(std::uint64_t place, void* target, std::size_t count) const {
    if (read(place, target, count) != count)
      throw NotAnArtifactError(origin_ + ": the file ends too early", "", kCopyAgain);
  }

 private:
  std::string origin_;
};

class FileBytes final : public Bytes {
 public:
  // Throws ArtifactNotFoundError.
  explicit FileBytes(const std::string& path) : Bytes(path) {
    // Without O_NONBLOCK, opening a pipe would wait for somebody who writes to it.
    descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor_ < 0 && errno == ENOENT)
      throw ArtifactNotFoundError("there is no file " + path, "", "check the path");
    const bool known = descriptor_ >= 0 && fstat(descriptor_, &opened_) == 0;
    if (known && S_ISREG(opened_.st_mode)) return;
    const char* kind = S_ISDIR(opened_.st_mode) ? "Is a directory" : "Not a file";
    const std::string reason = known ? kind : std::strerror(errno);
    if (descriptor_ >= 0) close(descriptor_);
    throw ArtifactNotFoundError("cannot open " + path + ": " + reason, "a file that can be read");
  }
  ~FileBytes() override { close(descriptor_); }

  std::size_t size() const override { return static_cast<std::size_t>(opened_.st_size); }

  std::size_t read(std::uint64_t place, void* target, std::size_t count, const char* = "") const override {
    std::size_t done = 0;
    while (done < count) {
      const auto from = static_cast<off_t>(place + done);
      const auto got = pread(descriptor_, static_cast<char*>(target) + done, count - done, from);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) break;
      done += static_cast<std::size_t>(got);
    }
    return done;
  }

  // Replacing a file leaves the open one as it is; writing into it does not.
  void check_unchanged() const override {
    struct stat now {};
    if (fstat(descriptor_, &now) == 0 && now.st_size == opened_.st_size &&
        now.st_mtim.tv_sec == opened_.st_mtim.tv_sec &&
        now.st_mtim.tv_nsec == opened_.st_mtim.tv_nsec)
      return;
    throw DigestError(origin() + " was written to while it was read", "a file that stays as it is", "copy it again");
  }

 private:
  int descriptor_ = -1;
  struct stat opened_ {};
};

// Memory that the caller keeps, unchanged, while this object lives.
class BufferBytes final : public Bytes {
 public:
  BufferBytes(const void* data, std::size_t size, std::string origin)
      : Bytes(std::move(origin)), data_(static_cast<const char*>(data)), size_(size) {}

  std::size_t size() const override { return size_; }

  std::size_t read(std::uint64_t place, void* target, std::size_t count, const char* = "") const override {
    if (place >= size_ || count == 0) return 0;
    count = std::min(count, size_ - static_cast<std::size_t>(place));
    std::memcpy(target, data_ + place, count);
    return count;
  }

  void check_unchanged() const override {}

 private:
  const char* data_;
  std::size_t size_;
};

}  // namespace detail

}  // namespace exported_model
