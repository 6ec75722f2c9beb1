// What the code in an artifact names: its operators, functions, methods, keywords and classes. The rules of
// runtime/artifact/code_reader.py, which has them in words; both languages read exactly the same part of Python's syntax, token by
// token, and refuse everything else, so that no two readers can understand a file differently.
//
// It decides nothing: code_check.h compares the names with the lists in operators.def.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/pickle_values.h>
#include <exported_model/source_tokens.h>

namespace exported_model::detail {

// What was found: a problem is always refused, the others are looked up by name.
enum class Use { operator_, function, method, keyword, class_, binding, problem };

// TorchScript's own reader is recursive.
constexpr std::size_t kMaxNesting = 100, kMaxParts = 32, kMaxSteps = 16;

inline bool one_of(const std::string& word, std::initializer_list<const char*> words) {
  return std::any_of(words.begin(), words.end(), [&](const char* known) { return word == known; });
}

// One token after the other, with what has to be known of those before.
class SourceReader {
 public:
  // `found` is told of everything that the code names, in order, some of it more than once. It throws to end the
  // reading, which has to end at a problem.
  explicit SourceReader(std::function<void(Use, const std::string&)> found) : found_(std::move(found)) {}

  void read(const std::string& text) {
    const auto ascii = [](char letter) { return static_cast<unsigned char>(letter) < 128; };
    if (!std::all_of(text.begin(), text.end(), ascii)) return found_(Use::problem, "characters beyond ASCII");
    Tokens tokens(text);
    start_line();
    Token current = tokens.next();
    while (current.kind != TokenKind::end) {
      Token following = tokens.next();
      take(current, following.word);
      current = std::move(following);
    }
    if (!brackets_.empty()) found_(Use::problem, "a bracket that is not closed");
  }

 private:
  struct Bracket {
    std::string sign;
    bool call;          // of a call
    std::size_t steps;  // how many steps led to it
  };

  void problem(const std::string& text) const { found_(Use::problem, text); }

  void start_line() {
    statement_.clear();
    targets_.clear();
    only_targets_ = true;
    declared_ = false;
    before_.clear();
    steps_ = 0;
  }

  bool behind_value(const std::string& before) const {
    return one_of(before, {"value", "name", "member", ")", "]", "}"});
  }

  void bind_targets() {
    for (const auto& name : targets_) found_(Use::binding, name);
  }

  static const char* name_of(TokenKind kind) {
    if (kind == TokenKind::line) return "line";
    if (kind == TokenKind::value) return "value";
    return kind == TokenKind::name ? "name" : "member";
  }

  void take(const Token& token, const std::string& following) {
    const std::string& word = token.word;
    const std::string before = before_;
    before_ = token.kind == TokenKind::sign ? word : name_of(token.kind);
    if (token.kind == TokenKind::line) {
      start_line();
      if (std::count(word.begin(), word.end(), ' ') > static_cast<std::ptrdiff_t>(kMaxNesting))
        problem("a line that is indented too far");
    } else if (token.kind == TokenKind::other) {
      problem("the character '" + word + "', which exports do not use");
    } else if (token.kind == TokenKind::sign) {
      sign(word, before);
    } else if (token.kind == TokenKind::member) {
      ++steps_;
      const auto dots = static_cast<std::size_t>(std::count(word.begin(), word.end(), '.'));
      if (!one_of(before, {")", "]"}) || steps_ > kMaxSteps || dots > kMaxParts) problem("the member " + word);
      else if (following == "(") found_(Use::method, word.substr(word.rfind('.') + 1));
    } else if (behind_value(before) && word != "in") {
      problem(word + " directly behind a value");
    } else {
      steps_ = 0;
      if (token.kind == TokenKind::value || one_of(word, {"None", "NoneType", "True", "False"})) {
        before_ = "value";
        only_targets_ = false;
      } else if (is_statement(word) || is_other_word(word) || word == "in") {
        language_word(word, before);
      } else {
        name(word, before, following);
      }
    }
  }

  static bool is_statement(const std::string& word) {
    return one_of(word, {"class", "def", "if", "else", "for", "return", "pass"});
  }

  static bool is_other_word(const std::string& word) {
    return one_of(word, {"and",   "or",     "not",  "is",   "while",  "elif", "global", "nonlocal", "raise", "assert",
                         "break", "continue", "del", "import", "from", "with", "as", "lambda", "yield", "async",
                         "await", "try", "except", "finally", "Ellipsis"});
  }

  void language_word(const std::string& word, const std::string& before) {
    before_ = "word";
    if (word == "in" && statement_ == "for" && only_targets_ && !targets_.empty() && brackets_.empty()) {
      bind_targets();
      only_targets_ = false;
    } else if (is_statement(word) && before.empty() && brackets_.empty()) {
      statement_ = word;
      targets_.clear();
      only_targets_ = word == "for";
    } else {
      problem("the word " + word + ", which exports do not use there");
    }
  }

  void name(const std::string& text, const std::string& before, const std::string& following) {
    const auto parts = split(text, '.');
    const bool called = following == "(", named = following == "=" && !brackets_.empty();
    if (parts.size() > 1 || called) only_targets_ = false;
    else if (only_targets_) targets_.push_back(text);
    const bool reserved = one_of(text, {"torch", "ops", "CONSTANTS", "__torch__"});
    if (parts.size() > kMaxParts || reserved) {
      problem("the name " + text.substr(0, 100) + " on its own");
    } else if (named) {
      if (parts.size() == 1 && one_of(before, {"(", ","}) && brackets_.back().call) found_(Use::keyword, text);
      else problem(text.substr(0, 100) + " = in a place where no keyword stands");
    } else if (parts.size() == 1) {
      single(text, before, following);
    } else if (parts[0] == "torch" || parts[0] == "ops") {
      if (parts.size() != (parts[0] == "torch" ? 2 : 3)) problem("the name " + text);
      else found_(Use::operator_, (parts.size() == 2 ? "aten" : parts[1]) + "::" + parts.back());
    } else if (parts.size() > 2 && parts[0] == "__torch__" && parts[1] == "torch" && parts[2] == "classes") {
      found_(Use::class_, text.substr(std::min(text.size(), std::string("__torch__.torch.classes.").size())));
    } else if (called && parts[0] != "__torch__") {
      found_(Use::method, parts.back());
    }
  }

  void single(const std::string& text, const std::string& before, const std::string& following) {
    const bool parameter = statement_ == "def" && brackets_.size() == 1 && one_of(before, {"(", ","});
    const bool declared = before.empty() && following == ":";
    declared_ = declared_ || declared;
    if (statement_ == "class" && !brackets_.empty()) {
      if (text != "Module") problem("a class that is a " + text);
    } else if ((before == "word" && one_of(statement_, {"class", "def"})) || parameter || declared) {
      found_(Use::binding, text);
    } else if (following == "(") {
      found_(Use::function, text);
    }
  }

  void sign(const std::string& text, const std::string& before) {
    if (one_of(text, {"(", "[", "{"})) {
      open(text, before);
    } else if (one_of(text, {")", "]", "}"})) {
      const std::string opening = text == ")" ? "(" : text == "]" ? "[" : "{";
      if (brackets_.empty() || brackets_.back().sign != opening)
        return problem("a bracket " + text + " that was not opened");
      steps_ = brackets_.back().steps;
      brackets_.pop_back();
    } else if (text == "=" && brackets_.empty()) {
      if (only_targets_ && !targets_.empty() && one_of(before, {"name", ","})) bind_targets();
      else if (!declared_) problem("an assignment to something other than names");
      only_targets_ = declared_ = false;
    } else if (text == "=" && before != "name") {
      problem("= in a place where no keyword stands");
    } else if ((text != "," || !brackets_.empty()) && brackets_.empty()) {
      only_targets_ = false;
    }
  }

  void open(const std::string& text, const std::string& before) {
    only_targets_ = false;
    const bool step = text == "[" && one_of(before, {"name", "member", ")", "]"});
    const bool call = text == "(" && one_of(before, {"name", "member"});
    const std::size_t steps = steps_ + (step ? 1 : 0);
    if (behind_value(before) && !step && !call) problem(text + " directly behind a value");
    else if (brackets_.size() >= kMaxNesting || steps > kMaxSteps) problem("brackets that are nested too deep");
    brackets_.push_back({text, call && !one_of(statement_, {"class", "def"}), steps});
    steps_ = 0;
  }

  std::function<void(Use, const std::string&)> found_;
  std::vector<Bracket> brackets_;
  std::string statement_;  // the word with which the line begins, if it is one of the language's
  // The names so far, which `=` or `in` would bind, while there was nothing but names and commas.
  std::vector<std::string> targets_;
  bool only_targets_ = true;
  bool declared_ = false;  // whether the line gives its first name a type, `x : T`, and no value yet
  // The token before: empty at the start, a sign itself, else its kind, or `word` for one of the language's.
  std::string before_;
  std::size_t steps_ = 0;  // how many brackets and members follow each other here
};

}  // namespace exported_model::detail
