// The bytes of a pickle, taken from the front. Throws InvalidPickle rather than read beyond the end.
#pragma once

#include <cstdint>
#include <string>

#include <exported_model/pickle_values.h>
#include <exported_model/zip_records.h>

namespace exported_model::detail {

inline bool is_utf8(const std::string& text) {
  for (std::size_t place = 0; place < text.size();) {
    const auto byte = static_cast<unsigned char>(text[place]);
    const std::size_t length = byte < 0x80 ? 1 : byte >> 5 == 6 ? 2 : byte >> 4 == 14 ? 3 : byte >> 3 == 30 ? 4 : 0;
    if (length == 0 || place + length > text.size()) return false;
    std::uint32_t point = length == 1 ? byte : byte & (0x7FU >> length);
    for (std::size_t next = place + 1; next < place + length; ++next) {
      if ((static_cast<unsigned char>(text[next]) & 0xC0) != 0x80) return false;
      point = point << 6 | (static_cast<unsigned char>(text[next]) & 0x3F);
    }
    constexpr std::uint32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
    if (point < kLeast[length] || point > 0x10FFFF || (point >= 0xD800 && point < 0xE000)) return false;
    place += length;
  }
  return true;
}

// A place in a pickle, which outlives this object.
class PickleBytes {
 public:
  explicit PickleBytes(const std::string& data) : data_(data) {}

  bool at_end() const { return place_ == data_.size(); }

  std::string take(std::uint64_t count) {
    if (count > data_.size() - place_) throw InvalidPickle{"an end within a value"};
    const std::size_t begin = place_;
    place_ += static_cast<std::size_t>(count);
    return data_.substr(begin, static_cast<std::size_t>(count));
  }

  // A little-endian number.
  std::uint64_t number(int width) { return number_at(take(static_cast<std::uint64_t>(width)), 0, width); }

  std::string text(std::uint64_t count) {
    std::string taken = take(count);
    if (!is_utf8(taken)) throw InvalidPickle{"a text that is not UTF-8"};
    return taken;
  }

  // What stands before the next line feed, which is taken with it.
  std::string line() {
    constexpr std::size_t kMaxLine = 1024;  // names of classes are some tens of letters
    const std::size_t end = data_.find('\n', place_);
    if (end == std::string::npos || end - place_ >= kMaxLine) throw InvalidPickle{"a name without an end"};
    std::string taken = take(end + 1 - place_);
    taken.pop_back();
    return taken;
  }

 private:
  const std::string& data_;
  std::size_t place_ = 0;
};

}  // namespace exported_model::detail
