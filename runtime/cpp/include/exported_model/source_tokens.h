// The tokens of TorchScript's code as exports contain it: a small part of Python's. See source_reader.h.
#pragma once

#include <cctype>
#include <string>
#include <string_view>

#include <exported_model/zip_records.h>

namespace exported_model::detail {

enum class TokenKind { line, value, name, member, sign, other, end };

struct Token {
  TokenKind kind = TokenKind::end;
  std::string word;
};

class Tokens {
 public:
  // The text outlives this object.
  explicit Tokens(std::string_view text) : text_(text) {}

  // Spaces are left out, and, inside brackets, ends of lines.
  Token next() {
    for (;;) {
      while (place_ < text_.size() && text_[place_] == ' ') ++place_;
      if (place_ == text_.size()) return {};
      Token token;
      const std::size_t length = measure(token.kind);
      token.word = std::string(text_.substr(place_, length));
      place_ += length;
      if (token.kind == TokenKind::sign && token.word.size() == 1) {
        if (std::string_view("([{").find(token.word) != std::string_view::npos) ++depth_;
        if (std::string_view(")]}").find(token.word) != std::string_view::npos) --depth_;
      }
      if (token.kind != TokenKind::line || depth_ <= 0) return token;
    }
  }

 private:
  static bool begins_name(char letter) {
    return (letter >= 'a' && letter <= 'z') || (letter >= 'A' && letter <= 'Z') || letter == '_';
  }
  static bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }
  static bool in_name(char letter) { return begins_name(letter) || is_digit(letter); }

  // The letter so far behind the token's begin; none behind the text's end.
  char at(std::size_t offset) const { return place_ + offset < text_.size() ? text_[place_ + offset] : '\0'; }

  // Kind and length of the token that begins here.
  std::size_t measure(TokenKind& kind) const {
    std::size_t length = 0;
    kind = TokenKind::line;
    while (at(length) == '\n') ++length;
    if (length > 0) {
      while (at(length) == ' ') ++length;
      return length;
    }
    kind = TokenKind::value;
    if ((length = number()) > 0 || (length = quoted()) > 0) return length;
    kind = TokenKind::name;
    if ((length = word(0)) > 0) return length + members(length);
    kind = TokenKind::member;
    if ((length = members(0)) > 0) return length;
    kind = TokenKind::sign;
    if (at(0) == '-' && at(1) == '>') return 2;
    if (std::string_view("()[]{},:=").find(at(0)) != std::string_view::npos) return 1;
    kind = TokenKind::other;
    return 1;
  }

  std::size_t word(std::size_t from) const {
    std::size_t end = from;
    if (begins_name(at(end)))
      while (in_name(at(end))) ++end;
    return end - from;
  }

  // `.b.c`
  std::size_t members(std::size_t from) const {
    std::size_t end = from;
    while (at(end) == '.' && word(end + 1) > 0) end += 1 + word(end + 1);
    return end - from;
  }

  std::size_t digits(std::size_t from) const {
    std::size_t end = from;
    while (is_digit(at(end))) ++end;
    return end - from;
  }

  std::size_t number() const {
    std::size_t end = at(0) == '-' ? 1 : 0;
    if (digits(end) > 0) {
      end += digits(end);
      if (at(end) == '.') end += 1 + digits(end + 1);
      const std::size_t sign = at(end + 1) == '-' || at(end + 1) == '+' ? 1 : 0;
      if (at(end) == 'e' && digits(end + 1 + sign) > 0) end += 1 + sign + digits(end + 1 + sign);
      if (at(end) == 'j') ++end;
    } else {
      const std::string_view rest = text_.substr(place_ + end, 3);
      if (rest != "inf" && rest != "nan") return 0;
      end += 3;
    }
    return in_name(at(end)) || at(end) == '.' ? 0 : end;
  }

  std::size_t quoted() const {
    const char quote = at(0);
    if (quote != '"' && quote != '\'') return 0;
    for (std::size_t end = 1; place_ + end < text_.size(); ++end) {
      if (at(end) == '\\') ++end;
      else if (at(end) == quote) return end + 1;
      if (at(end) == '\n') return 0;
    }
    return 0;
  }

  std::string_view text_;
  std::size_t place_ = 0;
  int depth_ = 0;
};

}  // namespace exported_model::detail
