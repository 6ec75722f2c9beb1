// What a zip says of its directory and of one record: the rules of runtime/artifact/zip_records.py.
//
// Functions here find what is wrong and say it in a few words; zip.h, which knows the file, refuses.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace exported_model::detail {

constexpr std::uint64_t kLocalHeaderBytes = 30, kDirectoryEntryBytes = 46, kEndBytes = 22, kEnd64Bytes = 56,
                        kLocatorBytes = 20;
constexpr std::uint64_t kFlagDescriptor = 1 << 3;
// How hard it was compressed (two bits), a descriptor behind the data, a name in UTF-8. Not: encryption, patches.
constexpr std::uint64_t kKnownFlags = 0b110 | kFlagDescriptor | 1 << 11;
constexpr std::uint64_t kStored = 0, kDeflated = 8;
// Extra fields: long sizes, and the padding that PyTorch aligns data with. Others may rename a record for some readers.
constexpr std::uint64_t kZip64Field = 1, kPaddingField = 0x4246;
constexpr std::uint64_t kShort = 0xFFFFFFFF;  // a size that stands in the field of long sizes
constexpr std::size_t kMaxNameBytes = 1024;

// The little-endian number of `width` bytes at `place`.
inline std::uint64_t number_at(std::string_view bytes, std::size_t place, int width) {
  std::uint64_t number = 0;
  for (int index = width - 1; index >= 0; --index)
    number = number << 8 | static_cast<unsigned char>(bytes[place + static_cast<std::size_t>(index)]);
  return number;
}

inline bool starts_with(std::string_view text, std::string_view begin) { return text.substr(0, begin.size()) == begin; }

// A record as the directory describes it.
struct Entry {
  std::string name;
  std::uint64_t flags = 0, method = 0, crc = 0, stored = 0, size = 0, offset = 0;
};

// What is wrong with the extra fields, or nothing.
inline std::string extra_problem(std::string_view extra) {
  while (!extra.empty()) {
    const bool whole = extra.size() >= 4;
    const std::uint64_t kind = whole ? number_at(extra, 0, 2) : 0, length = whole ? number_at(extra, 2, 2) : 0;
    if ((kind != kZip64Field && kind != kPaddingField) || 4 + length > extra.size())
      return "extra fields that PyTorch does not write";
    extra.remove_prefix(static_cast<std::size_t>(4 + length));
  }
  return "";
}

// The numbers of the field of long sizes, where there is one.
inline std::vector<std::uint64_t> long_sizes(std::string_view extra) {
  while (extra.size() >= 4) {
    const auto length = static_cast<std::size_t>(number_at(extra, 2, 2));
    const std::string_view body = extra.substr(4, length);
    if (number_at(extra, 0, 2) == kZip64Field) {
      std::vector<std::uint64_t> numbers;
      for (std::size_t place = 0; place + 8 <= body.size(); place += 8) numbers.push_back(number_at(body, place, 8));
      return numbers;
    }
    extra.remove_prefix(4 + body.size());
  }
  return {};
}

// Replaces `number` by the first long size where it says that it stands there.
inline void take_long(std::uint64_t& number, std::vector<std::uint64_t>& numbers) {
  if (number != kShort || numbers.empty()) return;
  number = numbers.front();
  numbers.erase(numbers.begin());
}

// What is wrong with a record's name, or nothing. TorchScript's own identifiers are ASCII, so names are.
inline std::string name_problem(const std::string& name) {
  if (name.size() > kMaxNameBytes) return "too long";
  for (const char letter : name)
    if (letter < ' ' || letter > '~' || letter == '\\') return "backslashes or control characters";
  if (name.find('/') == std::string::npos) return "outside the top folder";
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    const std::string part = name.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return "absolute, a folder, or leading elsewhere";
    begin = end + 1;
  }
  return "";
}

// Reads the entry at `cursor` and moves there where the next one begins. Returns what is wrong with it, or nothing.
inline std::string parse_entry(std::string_view directory, std::size_t& cursor, Entry& entry) {
  const std::string_view rest = directory.substr(cursor);
  if (rest.size() < kDirectoryEntryBytes || !starts_with(rest, "PK\1\2"))
    return "a directory that does not hold what it counts";
  entry.flags = number_at(rest, 8, 2);
  entry.method = number_at(rest, 10, 2);
  entry.crc = number_at(rest, 16, 4);
  entry.stored = number_at(rest, 20, 4);
  entry.size = number_at(rest, 24, 4);
  const auto name_length = static_cast<std::size_t>(number_at(rest, 28, 2));
  const auto extra_length = static_cast<std::size_t>(number_at(rest, 30, 2));
  const auto comment = number_at(rest, 32, 2), disk = number_at(rest, 34, 2), attributes = number_at(rest, 38, 4);
  entry.offset = number_at(rest, 42, 4);
  const std::size_t length = kDirectoryEntryBytes + name_length + extra_length;
  if (comment != 0 || disk != 0) return "a comment, or a record on another volume";
  if (length > rest.size()) return "an entry that reaches beyond the directory";
  entry.name = std::string(rest.substr(kDirectoryEntryBytes, name_length));
  const std::string_view extra = rest.substr(kDirectoryEntryBytes + name_length, extra_length);
  cursor += length;
  if (const auto problem = extra_problem(extra); !problem.empty()) return problem;
  auto numbers = long_sizes(extra);
  for (auto* number : {&entry.size, &entry.stored, &entry.offset}) take_long(*number, numbers);
  if (!numbers.empty()) return "a long size that is not needed";
  if ((entry.flags & ~kKnownFlags) != 0) return "flags of encryption, or others that are unknown";
  if (entry.method != kStored && entry.method != kDeflated)
    return "compression method " + std::to_string(entry.method);
  constexpr std::uint64_t kFileType = 0xF000, kRegularFile = 0x8000, kDosFolder = 0x10;
  const std::uint64_t type = attributes >> 16 & kFileType;
  if ((type != 0 && type != kRegularFile) || (attributes & kDosFolder) != 0) return "a link, a folder or a device";
  return "";
}

// Where the directory lies, and how many entries it has.
struct Directory {
  std::uint64_t end = 0;  // where the records at the file's end begin
  std::uint64_t start = 0, size = 0, count = 0;
};

// `tail` is the end record, at byte `end`; `before` the bytes in front of it, where the longer form may stand. Returns
// what is wrong, or nothing.
inline std::string parse_end(std::string_view before, std::string_view tail, std::uint64_t end, Directory& found) {
  // The number of this volume, that of the directory's, entries here, entries, size, start.
  std::uint64_t fields[] = {number_at(tail, 4, 2),  number_at(tail, 6, 2),  number_at(tail, 8, 2),
                            number_at(tail, 10, 2), number_at(tail, 12, 4), number_at(tail, 16, 4)};
  bool contradiction = false;
  // Every reader takes the longer form where its locator stands; then it has to say the same.
  if (before.size() == kEnd64Bytes + kLocatorBytes && starts_with(before.substr(kEnd64Bytes), "PK\6\7")) {
    end -= kEnd64Bytes + kLocatorBytes;
    const std::uint64_t longs[] = {number_at(before, 16, 4), number_at(before, 20, 4), number_at(before, 24, 8),
                                   number_at(before, 32, 8), number_at(before, 40, 8), number_at(before, 48, 8)};
    const std::string_view locator = before.substr(kEnd64Bytes);
    contradiction = !starts_with(before, "PK\6\6") || number_at(before, 4, 8) != kEnd64Bytes - 12 ||
                    number_at(locator, 8, 8) != end || number_at(locator, 4, 4) != 0 || number_at(locator, 16, 4) != 1;
    for (std::size_t index = 0; index < 6; ++index) {
      const std::uint64_t unset = index < 4 ? 0xFFFF : kShort;
      contradiction = contradiction || (fields[index] != longs[index] && fields[index] != unset);
      fields[index] = longs[index];
    }
  }
  found = {end, fields[5], fields[4], fields[3]};
  if (fields[0] != 0 || fields[1] != 0 || number_at(tail, 20, 2) != 0 || fields[2] != fields[3])
    return "a comment or several volumes";
  return contradiction ? "two ends that contradict each other" : "";
}

}  // namespace exported_model::detail
