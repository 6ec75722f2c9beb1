// The lists of operators.def: what the code in a file may name.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/pickle_values.h>
#include <exported_model/source_reader.h>

namespace exported_model::detail {

constexpr const char* kWhatExportsContain = "what exports of transformers contain";
constexpr const char* kLeave = "do not run this file unless you know who wrote it; export the model again";

constexpr std::string_view kOperators[] = {
#define OPERATOR(space, name) #space "::" #name,
#include <exported_model/operators.def>
};
constexpr std::string_view kFunctions[] = {
#define FUNCTION(name) #name,
#include <exported_model/operators.def>
};
constexpr std::string_view kMethods[] = {
#define METHOD(name) #name,
#include <exported_model/operators.def>
};
constexpr std::string_view kKeywords[] = {
#define KEYWORD(name) #name,
#include <exported_model/operators.def>
};
constexpr std::string_view kClasses[] = {
#define CLASS(name) #name,
#include <exported_model/operators.def>
};

// What code may name, by kind.
class AllowedNames {
 public:
  // `operators`: names of operators, as `aten::name`, that it may call beside those of the list. Throws
  // OperatorNameError for what is no such name.
  explicit AllowedNames(const std::vector<std::string>& operators) {
    for (const auto& name : operators) {
      const std::size_t colons = name.find("::");
      if (colons == std::string::npos || !is_word(name.substr(0, colons)) || !is_word(name.substr(colons + 2)))
        throw OperatorNameError("allow_operators has '" + name + "'",
                                "names such as \"aten::segment_reduce\", without overload or arguments");
      operators_.insert(name);
    }
  }

  // What is wrong with a use, or nothing.
  std::string problem(Use use, const std::string& name) const {
    switch (use) {
      case Use::operator_: return operators_.count(name) > 0 ? "" : "the operator " + name;
      case Use::function: return functions_.count(name) > 0 ? "" : "the function " + name;
      case Use::method: return methods_.count(name) > 0 ? "" : "the method " + name;
      case Use::keyword: return keywords_.count(name) > 0 ? "" : "the keyword " + name;
      case Use::class_: return classes_.count(name) > 0 ? "" : "the class " + name;
      case Use::binding: return functions_.count(name) == 0 ? "" : "another meaning for " + name;
      case Use::problem: break;
    }
    return name;
  }

 private:
  using Names = std::set<std::string, std::less<>>;

  Names operators_{std::begin(kOperators), std::end(kOperators)};
  Names functions_{std::begin(kFunctions), std::end(kFunctions)};
  Names methods_{std::begin(kMethods), std::end(kMethods)};
  Names keywords_{std::begin(kKeywords), std::end(kKeywords)};
  Names classes_{std::begin(kClasses), std::end(kClasses)};
};

}  // namespace exported_model::detail
