// The zip around an artifact, read with suspicion before anything else reads it: the rules of runtime/artifact/zip_reader.py.
//
// Zip readers forgive different mistakes, so only one form passes, which all read alike: records one after the other
// from the first byte to the directory, without a gap, in the directory's order; both descriptions of a record agree;
// nothing before, between or behind. Throws NotAnArtifactError for what is no zip or was cut short, and
// UnsafeArchiveError for a zip that two readers could understand differently, or that promises more than it holds.
#pragma once

#include <caffe2/serialize/inline_container.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/bytes.h>
#include <exported_model/errors.h>
#include <exported_model/zip_records.h>

namespace exported_model::detail {

// Far above what real models have (hundreds of records, a directory of some kilobytes).
constexpr std::uint64_t kMaxRecords = 20'000, kMaxDirectoryBytes = 8 << 20;
// Code and pickles: 24 layers are some tens of kilobytes, and parsing takes many times their size in memory.
constexpr std::uint64_t kMaxCodeBytes = 2 << 20;
// Only code is compressed; weights, which are most of a file, are stored as they are.
constexpr std::uint64_t kMaxExpansion = 100;

// One file in the archive: where its bytes lie, how many they are, how many they become.
struct Record {
  std::string name;  // without the top folder
  std::uint64_t start = 0, stored = 0, size = 0, crc = 0;
  bool deflated = false;
};

inline bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The checksum of a zip.
inline std::uint32_t crc32(std::string_view bytes) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> made{};
    for (std::uint32_t index = 0; index < made.size(); ++index) {
      made[index] = index;
      for (int bit = 0; bit < 8; ++bit) made[index] = made[index] >> 1 ^ (made[index] & 1 ? 0xEDB88320U : 0);
    }
    return made;
  }();
  std::uint32_t crc = ~0U;
  for (const char byte : bytes) crc = crc >> 8 ^ table[(crc ^ static_cast<unsigned char>(byte)) & 0xFF];
  return ~crc;
}

// The first line of what libtorch says; the others are its own call stack.
inline std::string first_line(const std::exception& error) {
  const auto* torch_error = dynamic_cast<const c10::Error*>(&error);
  const std::string text = torch_error != nullptr ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

inline bool is_code(const std::string& name) { return starts_with(name, "code/") || ends_with(name, ".pkl"); }

// A zip whose structure was checked.
class Zip {
 public:
  explicit Zip(std::shared_ptr<Bytes> bytes) : bytes_(std::move(bytes)) {
    const Directory directory = find_directory();
    const std::string entries = bytes_->at(directory.start, directory.size);
    std::string top;
    std::size_t cursor = 0;
    std::uint64_t place = 0, total = 0;
    for (std::uint64_t index = 0; index < directory.count; ++index) {
      Entry entry;
      if (const auto problem = parse_entry(entries, cursor, entry); !problem.empty())
        refuse(problem, "a record as PyTorch writes it");
      if (const auto problem = name_problem(entry.name); !problem.empty())
        refuse("a record named '" + entry.name.substr(0, 80) + "' (" + problem + ")", "a plain relative path");
      const std::size_t slash = entry.name.find('/');
      const std::string folder = entry.name.substr(0, slash), name = entry.name.substr(slash + 1);
      if (!index_.emplace(lower_case(name), records_.size()).second)
        refuse("two records named '" + entry.name + "'", "each name once");
      if (index > 0 && folder != top) refuse("the top folders '" + top + "' and '" + folder + "'", "one");
      top = folder;
      records_.push_back(check_record(entry, name, place, directory.start));
      // Each is at most the file's size, or that of code, and there are at most kMaxRecords: no overflow.
      total += records_.back().size;
    }
    if (cursor != entries.size() || place != directory.start)
      refuse("bytes that belong to no record", "records and a directory that fill the file");
    if (total > kMaxExpansion * bytes_->size())
      refuse("records of " + std::to_string(total) + " bytes in a file of " + std::to_string(bytes_->size()),
             "at most " + std::to_string(kMaxExpansion) + " times as many");
  }

  // In the archive's order.
  const std::vector<Record>& records() const { return records_; }

  const Record* find(const std::string& name) const {
    const auto found = index_.find(lower_case(name));
    return found == index_.end() || records_[found->second].name != name ? nullptr : &records_[found->second];
  }

  // The record's bytes, checked against its checksum. The caller has compared the size with a limit.
  std::string content(const Record& record) const {
    std::string bytes = record.deflated ? inflated(record) : bytes_->at(record.start, record.size);
    if (bytes.size() != record.size || crc32(bytes) != record.crc)
      damaged(record.name + " does not fit its CRC or its size");
    return bytes;
  }

  const std::shared_ptr<Bytes>& bytes() const { return bytes_; }

  [[noreturn]] void refuse(const std::string& found, const std::string& expected) const {
    throw UnsafeArchiveError(bytes_->origin() + ": " + found, expected, kCopyAgain);
  }

 private:
  [[noreturn]] void damaged(const std::string& found) const {
    throw NotAnArtifactError(bytes_->origin() + ": " + found, "", kCopyAgain);
  }

  // PyTorch looks records up without regard to case.
  static std::string lower_case(std::string name) {
    for (char& letter : name) letter = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
    return name;
  }

  // By libtorch's own zip reader, which reads the only form that passes here as it stands.
  std::string inflated(const Record& record) const {
    try {
      // Made once, and only where it is needed: it reads the whole directory.
      const std::lock_guard<std::mutex> lock(inflater_->mutex);
      if (!inflater_->reader) inflater_->reader = std::make_unique<caffe2::serialize::PyTorchStreamReader>(bytes_);
      const auto [data, size] = inflater_->reader->getRecord(record.name);
      return {static_cast<const char*>(data.get()), size};
    } catch (const std::exception& error) {
      damaged(record.name + " cannot be read (" + first_line(error) + ")");
    }
  }

  Directory find_directory() const {
    const std::uint64_t whole = bytes_->size();
    const std::string tail = whole < kEndBytes ? "" : bytes_->at(whole - kEndBytes, kEndBytes);
    if (!starts_with(tail, "PK\5\6"))
      throw NotAnArtifactError(bytes_->origin() + " is not a zip archive, or was cut short", "a TorchScript file",
                               kCopyAgain);
    const std::uint64_t end = whole - kEndBytes, longer = std::min(end, kEnd64Bytes + kLocatorBytes);
    Directory found;
    if (const auto problem = parse_end(bytes_->at(end - longer, longer), tail, end, found); !problem.empty())
      refuse(problem, "one directory, at the end");
    if (found.count < 1 || found.count > kMaxRecords || found.size > kMaxDirectoryBytes)
      refuse(std::to_string(found.count) + " records in a directory of " + std::to_string(found.size) + " bytes",
             "1 to " + std::to_string(kMaxRecords));
    if (found.size > found.end || found.start != found.end - found.size)
      refuse("a directory that is not where the file says", "nothing between the records and the end");
    return found;
  }

  // Compares the two descriptions of a record; moves `place` to where the next one has to begin.
  Record check_record(const Entry& entry, const std::string& name, std::uint64_t& place, std::uint64_t limit) const {
    if (entry.offset != place || limit - place < kLocalHeaderBytes)
      refuse(name + " begins at byte " + std::to_string(entry.offset),
             std::to_string(place) + ", right behind the record before it");
    const std::string header = bytes_->at(place, kLocalHeaderBytes);
    const std::uint64_t name_length = number_at(header, 26, 2), extra_length = number_at(header, 28, 2);
    const std::uint64_t room = limit - place - kLocalHeaderBytes;
    if (name_length + extra_length > room || entry.stored > room - name_length - extra_length)
      refuse(name + " declares " + std::to_string(entry.stored) + " stored bytes",
             "what fits before byte " + std::to_string(limit));
    const std::string rest = bytes_->at(place + kLocalHeaderBytes, name_length + extra_length);
    const std::string own_name = rest.substr(0, name_length), extra = rest.substr(name_length);
    const std::uint64_t start = place + kLocalHeaderBytes + rest.size();
    const bool described_behind = (entry.flags & kFlagDescriptor) != 0;
    auto stored = number_at(header, 18, 4), size = number_at(header, 22, 4);
    auto numbers = long_sizes(extra);
    take_long(size, numbers);
    take_long(stored, numbers);
    // Sizes unknown when the header was written: zeros there, the real ones behind the data.
    const Entry known = described_behind ? Entry{} : entry;
    const bool same = starts_with(header, "PK\3\4") && number_at(header, 6, 2) == entry.flags &&
                      number_at(header, 8, 2) == entry.method && own_name == entry.name &&
                      number_at(header, 14, 4) == known.crc && stored == known.stored && size == known.size;
    if (!same || !extra_problem(extra).empty())
      refuse(name + " is described differently in its header and in the directory", "the same twice");
    place = start + entry.stored;
    if (described_behind) check_descriptor(entry, name, place, limit);
    const bool code = is_code(name);
    if ((entry.method == kStored && entry.stored != entry.size) || (entry.method == kDeflated && !code))
      refuse(name + ": " + std::to_string(entry.stored) + " bytes that become " + std::to_string(entry.size),
             "as many, compressed code excepted");
    if (code && entry.size > kMaxCodeBytes)
      refuse(name + " declares " + std::to_string(entry.size) + " bytes of code",
             "at most " + std::to_string(kMaxCodeBytes));
    return {name, start, entry.stored, entry.size, entry.crc, entry.method == kDeflated};
  }

  void check_descriptor(const Entry& entry, const std::string& name, std::uint64_t& place, std::uint64_t limit) const {
    const int width = std::max(entry.stored, entry.size) > kShort ? 8 : 4;
    const std::uint64_t length = 8 + 2 * static_cast<std::uint64_t>(width);
    const std::string behind = limit - place < length ? "" : bytes_->at(place, length);
    if (!starts_with(behind, "PK\7\x08") || number_at(behind, 4, 4) != entry.crc ||
        number_at(behind, 8, width) != entry.stored ||
        number_at(behind, 8 + static_cast<std::size_t>(width), width) != entry.size)
      refuse(name + " is described differently behind its data", "the same sizes everywhere");
    place += length;
  }

  struct Inflater {
    std::mutex mutex;
    std::unique_ptr<caffe2::serialize::PyTorchStreamReader> reader;
  };

  std::shared_ptr<Bytes> bytes_;
  std::shared_ptr<Inflater> inflater_ = std::make_shared<Inflater>();
  std::vector<Record> records_;
  std::map<std::string, std::size_t> index_;  // by the names in lower case
};

}  // namespace exported_model::detail
