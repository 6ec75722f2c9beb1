// Packed weights where code uses them: IPEX's operators get them as an address, in a tensor, and follow it. The rules
// of runtime/artifact/pickles/handles.py: an address is that of a constant of the class that the operator expects, taken by
// `(CONSTANTS.c5).get_data_handle()` as the argument itself, or in a line that gives it a name for nothing else.
#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/pickle_values.h>
#include <exported_model/source_tokens.h>
#include <exported_model/zip_records.h>

namespace exported_model::detail {

// Where the address stands among an operator's arguments, and the class that it has to be of.
inline const std::map<std::string, std::pair<std::size_t, std::string>>& handle_operators() {
  static const std::string begin = "__torch__.torch.classes.ipex_prepack.";
  static const std::map<std::string, std::pair<std::size_t, std::string>> known = {
      {"ipex_linear", {3, begin + "LinearOpContext"}},
      {"ipex_linear_eltwise", {4, begin + "LinearOpContext"}},
      {"ipex_MKLSGEMM", {3, begin + "MKLOpContext"}},
      {"convolution_forward", {3, begin + "ConvolutionOpContext"}},
      {"conv_transpose", {3, begin + "ConvTransposeOpContext"}}};
  return known;
}

// The tokens of one function.
class HandlesOfFunction {
 public:
  HandlesOfFunction(std::vector<Token> tokens, const std::vector<ValueRef>& constants)
      : tokens_(std::move(tokens)), constants_(constants) {}

  // Throws InvalidPickle at the first use that does not fit.
  void check() {
    for (std::size_t place = 0; place < tokens_.size(); ++place)
      if (word(place).find("get_data_handle") != std::string::npos) collect(place);
    for (std::size_t place = 0; place < tokens_.size(); ++place)
      if (tokens_[place].kind == TokenKind::name && starts_with(word(place), "ops.")) check_call(place);
    for (std::size_t place = 0; place < tokens_.size(); ++place) {
      const bool named = tokens_[place].kind == TokenKind::name && held_.count(word(place)) > 0;
      if ((named || inline_.count(place) > 0) && fitting_.count(place) == 0)
        throw InvalidPickle{"an address of packed weights that something else than its operator takes"};
    }
  }

 private:
  static constexpr std::size_t kHandleTokens = 6;  // ( CONSTANTS.c5 ) .get_data_handle ( )

  const std::string& word(std::size_t place) const {
    static const std::string none;
    return place < tokens_.size() ? tokens_[place].word : none;
  }

  bool ends_line(std::size_t place) const { return place >= tokens_.size() || tokens_[place].kind == TokenKind::line; }

  // The class of the constant that `CONSTANTS.c5` is.
  std::string class_of(const std::string& name) const {
    const std::string begin = "CONSTANTS.c";
    const std::string digits = starts_with(name, begin) ? name.substr(begin.size()) : "";
    const bool numeric = digits.find_first_not_of("0123456789") == std::string::npos;
    if (digits.empty() || digits.size() > 7 || !numeric || (digits[0] == '0' && digits.size() > 1)) return "";
    const std::size_t index = std::stoul(digits);
    return index < constants_.size() ? kind_of(*constants_[index]) : "";
  }

  // A use of the method: as a value in place, or in a line that names it.
  void collect(std::size_t method) {
    const bool whole = method >= 3 && word(method - 3) == "(" && word(method - 1) == ")" &&
                       word(method) == ".get_data_handle" && word(method + 1) == "(" && word(method + 2) == ")";
    if (!whole) throw InvalidPickle{"an address of packed weights that is not a constant's"};
    const std::size_t begin = method - 3;
    const std::string found = class_of(word(method - 2));
    if (begin >= 3 && word(begin - 1) == "=" && tokens_[begin - 2].kind == TokenKind::name && ends_line(begin - 3) &&
        ends_line(begin + kHandleTokens)) {
      held_[word(begin - 2)] = found;
      fitting_.insert(begin - 2);
    } else {
      inline_[begin] = found;
    }
  }

  void check_call(std::size_t place) {
    const auto known = handle_operators().find(word(place).substr(word(place).rfind('.') + 1));
    if (known == handle_operators().end()) return;
    std::vector<std::size_t> begins = {place + 2};
    std::size_t depth = 1, end = place + 2;
    bool keywords = word(place + 1) != "(";
    for (; end < tokens_.size(); ++end) {
      const std::string& sign = word(end);
      if (sign == "(" || sign == "[" || sign == "{") ++depth;
      if ((sign == ")" || sign == "]" || sign == "}") && --depth == 0) break;
      if (depth == 1 && sign == ",") begins.push_back(end + 1);
      keywords = keywords || (depth == 1 && sign == "=");
    }
    begins.push_back(end + 1);
    const auto& [position, expected] = known->second;
    std::string found;
    if (!keywords && position + 1 < begins.size()) {
      const std::size_t begin = begins[position], length = begins[position + 1] - 1 - begin;
      if (length == 1 && held_.count(word(begin)) > 0) found = held_.at(word(begin));
      if (length == kHandleTokens && inline_.count(begin) > 0) found = inline_.at(begin);
      fitting_.insert(begin);
    }
    if (found != expected)
      throw InvalidPickle{"a call of " + known->first + " without packed weights of " + expected};
  }

  std::vector<Token> tokens_;
  const std::vector<ValueRef>& constants_;
  std::map<std::string, std::string> held_;    // names of addresses, with the classes of their constants
  std::map<std::size_t, std::string> inline_;  // places of addresses that are arguments themselves, with the classes
  std::set<std::size_t> fitting_;              // places where an address may stand
};

// Compares each use of an address in a record of code with the constants.
inline void check_handles(const std::string& text, const std::vector<ValueRef>& constants) {
  bool used = text.find("get_data_handle") != std::string::npos;
  for (const auto& known : handle_operators()) used = used || text.find(known.first) != std::string::npos;
  if (!used) return;
  Tokens tokens(text);
  std::vector<Token> function;
  for (Token token = tokens.next(); token.kind != TokenKind::end; token = tokens.next()) {
    if (token.kind == TokenKind::name && token.word == "def") {
      HandlesOfFunction(std::move(function), constants).check();
      function.clear();
    }
    function.push_back(std::move(token));
  }
  HandlesOfFunction(std::move(function), constants).check();
}

}  // namespace exported_model::detail
