// Digests of the whole file and of its parts, compared with those that are expected: the rules of runtime/artifact/digests.py.
#pragma once

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/manifest.h>
#include <exported_model/sha256.h>
#include <exported_model/zip.h>

namespace exported_model::detail {

// The manifest holds the digests of all others, and the signature is the manifest's.
constexpr const char* kManifestRecord = "extra/manifest.json";
constexpr const char* kSignatureRecord = "extra/signature";
// More threads than this wait for memory.
constexpr unsigned kHashingThreads = 4;

inline std::string sha256_of(const Bytes& bytes, std::uint64_t place, std::uint64_t count) {
  Sha256 digest;
  std::string block(static_cast<std::size_t>(std::min<std::uint64_t>(count, 1 << 20)), '\0');
  for (std::uint64_t done = 0; done < count; done += block.size()) {
    block.resize(static_cast<std::size_t>(std::min<std::uint64_t>(count - done, block.size())));
    bytes.read_all(place + done, &block[0], block.size());
    digest.update(block.data(), block.size());
  }
  return digest.hex();
}

inline std::string file_sha256(const Bytes& bytes) { return sha256_of(bytes, 0, bytes.size()); }

// Throws DigestError if the whole file has another digest.
inline void check_sha256(const Bytes& bytes, const std::string& expected) {
  std::string wanted;
  for (const char letter : expected)
    if (std::isspace(static_cast<unsigned char>(letter)) == 0)
      wanted += static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  const std::string found = file_sha256(bytes);
  if (found != wanted)
    throw DigestError(bytes.origin() + " has sha256 " + found, wanted, "get the file that this digest belongs to");
}

inline void check_part(const Zip& zip, const Part& part) {
  const Record& record = *zip.find(part.name);
  std::string found;
  if (record.deflated) {
    const std::string content = zip.content(record);
    Sha256 digest;
    digest.update(content.data(), content.size());
    found = digest.hex();
  } else {
    found = sha256_of(*zip.bytes(), record.start, record.size);
  }
  if (found != part.sha256)
    throw DigestError(zip.bytes()->origin() + ": " + part.name + " is not the part that was sealed", "", kCopyAgain);
}

// Threads that compare the digests of parts. The first failure is kept for `finish`, or lost with the object.
class PartsCheck {
 public:
  PartsCheck(const Zip& zip, std::vector<const Part*> parts) : zip_(zip), parts_(std::move(parts)) {
    const std::size_t most = std::min(kHashingThreads, std::thread::hardware_concurrency());
    const std::size_t count = std::min(most, parts_.size());
    try {
      for (std::size_t thread = 0; thread < count; ++thread) threads_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // No more threads to be had: `finish` does the work.
    }
  }
  ~PartsCheck() {
    next_ = parts_.size();
    join();
  }

  // Throws what was found; helps with what is not done yet.
  void finish() {
    work();
    join();
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void work() {
    for (std::size_t index = next_++; index < parts_.size(); index = next_++) {
      try {
        check_part(zip_, *parts_[index]);
      } catch (...) {
        next_ = parts_.size();
        const std::lock_guard<std::mutex> lock(mutex_);
        if (!failure_) failure_ = std::current_exception();
      }
    }
  }

  void join() {
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }

  const Zip& zip_;
  std::vector<const Part*> parts_;
  std::atomic<std::size_t> next_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

// Throws DigestError where the archive's parts are not those that the manifest lists, in its order and sizes.
inline void check_list_of_parts(const Zip& zip, const std::vector<Part>& parts) {
  const std::string& origin = zip.bytes()->origin();
  std::set<std::string> listed;
  for (const auto& part : parts) {
    listed.insert(part.name);
    if (zip.find(part.name) == nullptr)
      throw DigestError(origin + " lacks " + part.name, "the parts its manifest lists", kCopyAgain);
  }
  std::vector<const Record*> found;
  for (const auto& record : zip.records())
    if (record.name != kManifestRecord && record.name != kSignatureRecord) {
      found.push_back(&record);
      if (listed.count(record.name) == 0)
        throw DigestError(origin + " holds, beside its sealed parts, " + record.name, "the parts its manifest lists",
                          kCopyAgain);
    }
  const auto same = [](const Part& part, const Record* record) { return part.name == record->name; };
  if (parts.size() != found.size() || !std::equal(parts.begin(), parts.end(), found.begin(), same))
    throw DigestError(origin + ": the parts are in another order", "the manifest's", kCopyAgain);
  for (std::size_t index = 0; index < parts.size(); ++index)
    if (static_cast<std::uint64_t>(parts[index].size) != found[index]->size)
      throw DigestError(origin + ": " + parts[index].name + " is not the part that was sealed", "", kCopyAgain);
}

// Tensors' numbers, which TorchScript puts into records of their own.
inline bool holds_numbers(const std::string& name) {
  const std::size_t slash = name.find('/');
  const std::string folder = name.substr(0, slash);
  return (folder == "data" || folder == "constants") && name.find('/', slash + 1) == std::string::npos;
}

// Compares every part with its digest while `body` reads the file: numbers are hashed meanwhile, all else before.
//
// Of a large file hashing takes as long as reading it. Code, pickles and sizes are those that were sealed when the body
// begins; other numbers in a tensor than were sealed harm nobody until they are used, which is after it. Throws
// DigestError, before whatever the body throws.
template <typename Body>
void verifying_parts(const Zip& zip, const std::vector<Part>& parts, const Body& body) {
  check_list_of_parts(zip, parts);
  std::vector<const Part*> numbers;
  for (const auto& part : parts)
    if (holds_numbers(part.name)) numbers.push_back(&part);
  PartsCheck check(zip, std::move(numbers));
  for (const auto& part : parts)
    if (!holds_numbers(part.name)) check_part(zip, part);
  std::exception_ptr failure;
  try {
    body();
  } catch (...) {
    failure = std::current_exception();
  }
  check.finish();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace exported_model::detail
