// Every error that this library raises on purpose; the tree is that of the Python runtime (runtime/errors.py).
//
//   Error                        std::runtime_error; what() is one line: found; expected; remedy
//   ├── ArtifactError            the file itself
//   │   ├── ArtifactNotFoundError    no such file, or not readable
//   │   ├── NotAnArtifactError       not an archive, cut short, or not TorchScript
//   │   ├── UnsafeArchiveError       a zip that two readers could read differently, or that lies about sizes
//   │   ├── DigestError              a part, or the whole file, is not the one that was sealed
//   │   ├── OperatorNotAllowedError  its code calls what no export contains
//   │   ├── ManifestMissingError     a TorchScript file that export-model did not write
//   │   ├── ManifestDamagedError     the manifest or another stored part cannot be understood
//   │   ├── FormatVersionError       written in a format newer than this library reads
//   │   ├── ContractError            another artifact than the one that a generated header belongs to
//   │   └── ArtifactFailedError      the model fails where its manifest says that it works
//   ├── RequirementError         this machine or this process
//   │   ├── TorchVersionError        libtorch does not fit
//   │   ├── IpexMissingError         the operator library of IPEX is needed and cannot be loaded
//   │   ├── NativeLibraryError       the library of this project's operators is absent or does not fit
//   │   ├── CpuFeatureError          the processor lacks an instruction set
//   │   ├── ThreadCountError         a thread count out of range, or changed after weights were packed for it
//   │   └── ForkError                threads that compute stayed in the process that this one was forked from
//   ├── OperatorNameError        Options::allow_operators has what is no name of an operator
//   ├── InputError               what the caller passed
//   │   ├── InputNameError           unknown or missing name
//   │   ├── InputTypeError           a dtype that would lose information, or not on the CPU
//   │   ├── InputRankError           wrong number of axes
//   │   ├── InputSizeError           empty, too long, or axes that disagree
//   │   ├── InputValueError          token ids (or other integers) out of range
//   │   ├── InputTextError           a prompt, or a setting of a generation, that does not fit the model
//   │   └── InputTaskError           the call is for another task than the artifact's
//   ├── GeneratorBusyError       a Generator that is still writing was asked again
//   └── CheckFailedError         an answer cannot be compared with the stored one
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace exported_model {

namespace detail {

// Whether a terminal shows a character as itself: it steers nothing, turns no direction of text, and has a width.
inline bool is_shown(std::uint32_t point) {
  const bool control = point < 0x20 || (point >= 0x7F && point < 0xA0);
  const bool format = point == 0xAD || point == 0x61C || point == 0xFEFF || (point >= 0x200B && point < 0x2010) ||
                      (point >= 0x2028 && point < 0x202F) || (point >= 0x2060 && point < 0x2070);
  return !control && !format && !(point >= 0xD800 && point < 0xE000) && point < 0xE0000;
}

// The text with an escape in place of each character that is not shown, and of each byte that is no UTF-8.
inline std::string printable(const std::string& text) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string shown;
  for (std::size_t place = 0; place < text.size();) {
    const auto byte = static_cast<unsigned char>(text[place]);
    std::size_t length = byte < 0x80 ? 1 : byte < 0xC2 ? 0 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : byte < 0xF5 ? 4 : 0;
    std::uint32_t point = length < 2 ? byte : byte & (0x7FU >> length);
    for (std::size_t next = place + 1; next < place + length; ++next) {
      const auto more = next < text.size() ? static_cast<unsigned char>(text[next]) : 0U;
      if ((more & 0xC0) != 0x80) {
        length = 0;
        break;
      }
      point = point << 6 | (more & 0x3F);
    }
    if (length > 0 && is_shown(point)) {
      shown += text.substr(place, length);
    } else {
      if (length == 0) point = byte;
      shown += point < 0x100 ? "\\x" : "\\u";
      for (int shift = point < 0x100 ? 4 : point < 0x10000 ? 12 : 20; shift >= 0; shift -= 4)
        shown += kDigits[point >> shift & 15];
    }
    place += length == 0 ? 1 : length;
  }
  return shown;
}

}  // namespace detail

class Error : public std::runtime_error {
 public:
  // `found` names the file or input; the other two may be empty.
  explicit Error(const std::string& found, const std::string& expected = "", const std::string& remedy = "")
      : std::runtime_error(line(found, expected, remedy)) {}

 private:
  static std::string line(const std::string& found, const std::string& expected, const std::string& remedy) {
    std::string text = found;
    if (!expected.empty()) text += "; expected " + expected;
    if (!remedy.empty()) text += "; " + remedy;
    // One line is the contract; other libraries' messages bring newlines, and a file's strings may hold anything.
    for (char& letter : text)
      if (letter == '\n' || letter == '\r') letter = ' ';
    return detail::printable(text);
  }
};

class ArtifactError : public Error { using Error::Error; };
class ArtifactNotFoundError : public ArtifactError { using ArtifactError::ArtifactError; };
class NotAnArtifactError : public ArtifactError { using ArtifactError::ArtifactError; };
class UnsafeArchiveError : public ArtifactError { using ArtifactError::ArtifactError; };
class DigestError : public ArtifactError { using ArtifactError::ArtifactError; };
class OperatorNotAllowedError : public ArtifactError { using ArtifactError::ArtifactError; };
class ManifestMissingError : public ArtifactError { using ArtifactError::ArtifactError; };
class ManifestDamagedError : public ArtifactError { using ArtifactError::ArtifactError; };
class FormatVersionError : public ArtifactError { using ArtifactError::ArtifactError; };
class ContractError : public ArtifactError { using ArtifactError::ArtifactError; };
class ArtifactFailedError : public ArtifactError { using ArtifactError::ArtifactError; };

class RequirementError : public Error { using Error::Error; };
class TorchVersionError : public RequirementError { using RequirementError::RequirementError; };
class IpexMissingError : public RequirementError { using RequirementError::RequirementError; };
class NativeLibraryError : public RequirementError { using RequirementError::RequirementError; };
class CpuFeatureError : public RequirementError { using RequirementError::RequirementError; };
class ThreadCountError : public RequirementError { using RequirementError::RequirementError; };
class ForkError : public RequirementError { using RequirementError::RequirementError; };

class OperatorNameError : public Error { using Error::Error; };

class InputError : public Error { using Error::Error; };
class InputNameError : public InputError { using InputError::InputError; };
class InputTypeError : public InputError { using InputError::InputError; };
class InputRankError : public InputError { using InputError::InputError; };
class InputSizeError : public InputError { using InputError::InputError; };
class InputValueError : public InputError { using InputError::InputError; };
class InputTextError : public InputError { using InputError::InputError; };
class InputTaskError : public InputError { using InputError::InputError; };

class GeneratorBusyError : public Error { using Error::Error; };

class CheckFailedError : public Error { using Error::Error; };

}  // namespace exported_model
