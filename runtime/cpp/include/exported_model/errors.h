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
//   │   ├── CpuFeatureError          the processor lacks an instruction set
//   │   └── ThreadCountError         a thread count out of range, or changed after weights were packed for it
//   ├── OperatorNameError        Options::allow_operators has what is no name of an operator
//   ├── InputError               what the caller passed
//   │   ├── InputNameError           unknown or missing name
//   │   ├── InputTypeError           a dtype that would lose information, or not on the CPU
//   │   ├── InputRankError           wrong number of axes
//   │   ├── InputSizeError           empty, too long, or axes that disagree
//   │   └── InputValueError          token ids (or other integers) out of range
//   └── CheckFailedError         an answer cannot be compared with the stored one
#pragma once

#include <stdexcept>
#include <string>

namespace exported_model {

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
    // One line is the contract; other libraries' messages bring newlines.
    for (char& letter : text)
      if (letter == '\n' || letter == '\r') letter = ' ';
    return text;
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
class CpuFeatureError : public RequirementError { using RequirementError::RequirementError; };
class ThreadCountError : public RequirementError { using RequirementError::RequirementError; };

class OperatorNameError : public Error { using Error::Error; };

class InputError : public Error { using Error::Error; };
class InputNameError : public InputError { using InputError::InputError; };
class InputTypeError : public InputError { using InputError::InputError; };
class InputRankError : public InputError { using InputError::InputError; };
class InputSizeError : public InputError { using InputError::InputError; };
class InputValueError : public InputError { using InputError::InputError; };

class CheckFailedError : public Error { using Error::Error; };

}  // namespace exported_model
