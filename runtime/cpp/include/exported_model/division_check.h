// Whole numbers that libtorch would divide while it reads a file. The rules of runtime/artifact/division_check.py: one
// number of each division depends on an input or a weight, or the divisor is a plain number other than 0 and -1.
#pragma once

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <exported_model/source_tokens.h>
#include <exported_model/zip_records.h>

namespace exported_model::detail {

class DivisionCheck {
 public:
  // `allow`: operators that the caller vouches for, as `aten::name`.
  explicit DivisionCheck(const std::vector<std::string>& allow) {
    for (const std::string name : {"remainder", "floordiv"}) {
      bool vouched = false;
      for (const auto& allowed : allow) vouched = vouched || allowed == "aten::" + name;
      if (!vouched) divisions_.insert({"torch." + name, "ops.aten." + name});
    }
  }

  // What is wrong with a record of code whose names were checked, or nothing.
  std::string problem(const std::string& text) {
    bool used = false;
    for (const auto& written : divisions_) used = used || text.find(written) != std::string::npos;
    if (!used) return "";
    Tokens tokens(text);
    line_.clear();
    for (;;) {
      Token token = tokens.next();
      const bool end = token.kind == TokenKind::end;
      if (!end && token.kind != TokenKind::line) {
        line_.push_back(std::move(token));
        continue;
      }
      for (std::size_t place = 0; place < line_.size(); ++place)
        if (divisions_.count(word(place)) > 0 && word(place + 1) == "(") {
          const std::size_t close = closing(place + 1);
          if (!plain_divisor(place + 2, close) && !depends(place + 2, close))
            return "a " + word(place) + " of constants alone";
        }
      if (!line_.empty()) read_line();
      line_.clear();
      if (end) return "";
    }
  }

 private:
  const std::string& word(std::size_t place) const {
    static const std::string none;
    return place < line_.size() ? line_[place].word : none;
  }
  bool is(std::size_t place, TokenKind kind) const { return place < line_.size() && line_[place].kind == kind; }

  // How a token changes the depth of brackets.
  int step(std::size_t place) const {
    if (!is(place, TokenKind::sign)) return 0;
    return one_of(word(place), {"(", "[", "{"}) - one_of(word(place), {")", "]", "}"});
  }

  // The place of the bracket that closes this one.
  std::size_t closing(std::size_t opened) const {
    int depth = 0;
    for (std::size_t place = opened; place < line_.size(); ++place)
      if ((depth += step(place)) == 0) return place;
    return line_.size();
  }

  // Whether the last argument is a whole number other than 0 and -1.
  bool plain_divisor(std::size_t begin, std::size_t end) const {
    if (end < begin + 2 || word(end - 2) != "," || !is(end - 1, TokenKind::value)) return false;
    const std::string text = word(end - 1), digits = text.substr(text[0] == '-' ? 1 : 0);
    if (digits.empty() || digits.find_first_not_of("0123456789") != std::string::npos) return false;
    const std::size_t first = digits.find_first_not_of('0');
    return first != std::string::npos && !(text[0] == '-' && digits.substr(first) == "1");
  }

  // Takes in what the line binds.
  void read_line() {
    int depth = 0;
    if (word(0) == "def") {
      known_.clear();
      others_.clear();
      for (std::size_t place = 0; place < line_.size(); ++place) {
        depth += step(place);
        if (is(place, TokenKind::name) && depth == 1 && one_of(word(place - 1), {"(", ","})) known_.insert(word(place));
      }
      return;
    }
    if (word(0) == "for") {
      for (std::size_t place = 1; place < line_.size(); ++place)
        if (word(place) == "in") return bind(1, place, true);
      return;
    }
    for (std::size_t place = 0; place < line_.size(); ++place) {
      depth += step(place);
      if (depth == 0 && is(place, TokenKind::sign) && word(place) == "=")
        return bind(0, word(1) == ":" ? 1 : place, depends(place + 1, line_.size()));
    }
  }

  void bind(std::size_t begin, std::size_t end, bool depend) {
    for (std::size_t place = begin; place < end; ++place)
      if (is(place, TokenKind::name)) (depend ? known_ : others_).insert(word(place));
    for (const auto& name : others_) known_.erase(name);
  }

  // Whether no part of this is a tuple or is known without running, and one comes from an input or a weight.
  bool depends(std::size_t begin, std::size_t end) const {
    bool found = false;
    for (std::size_t place = begin; place < end; ++place) {
      const std::string& name = word(place);
      const std::string follows = place + 1 < end ? word(place + 1) : "";
      if (is(place, TokenKind::name) && follows == "(") {
        if (one_of(name, {"annotate", "unchecked_cast"})) {
          place = behind_type(place + 1, end) - 1;
          continue;
        }
        const bool method = comes_from_input(name);
        const bool called = starts_with(name, "torch.") || (starts_with(name, "ops.") && !starts_with(name, "ops.prim."));
        if (!method && !called && !one_of(name, {"int", "float", "bool", "ops.prim.NumToTensor"})) return false;
        found = found || method;
      } else if (is(place, TokenKind::name) && follows != "=") {
        found = found || starts_with(name, "CONSTANTS.") || comes_from_input(name);
      } else if (is(place, TokenKind::sign) && name == "{") {
        return false;
      } else if (is(place, TokenKind::sign) && name == "(") {
        const bool call = place > begin && (is(place - 1, TokenKind::name) || is(place - 1, TokenKind::member));
        if (!call && word(place + 2) != ")") return false;
      }
    }
    return found;
  }

  bool comes_from_input(const std::string& name) const { return known_.count(name.substr(0, name.find('.'))) > 0; }

  // The place behind the first argument of a call, which is a type.
  std::size_t behind_type(std::size_t opened, std::size_t end) const {
    int depth = 0;
    for (std::size_t place = opened; place < end; ++place) {
      depth += step(place);
      if (depth == 0 || (depth == 1 && word(place) == ",")) return place + 1;
    }
    return end;
  }

  std::set<std::string> divisions_;      // as code writes them
  std::vector<Token> line_;              // being read
  std::set<std::string> known_, others_;  // names of the function so far that depend on an input; all others
};

}  // namespace exported_model::detail
