// As much of a test framework as these tests need: each program runs one test, and ends at its first failure.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#define EXPECT(condition)                                                            \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);   \
      std::exit(1);                                                                  \
    }                                                                                \
  } while (false)

// That a call throws this type, and that its line has these words.
template <typename Error, typename Call>
void expect_throw(Call call, const std::string& words) {
  try {
    call();
  } catch (const Error& error) {
    if (std::string(error.what()).find(words) != std::string::npos &&
        std::string(error.what()).find('\n') == std::string::npos)
      return;
    std::fprintf(stderr, "expected one line with \"%s\", got: %s\n", words.c_str(), error.what());
    std::exit(1);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "expected another type of error for \"%s\", got: %s\n", words.c_str(), error.what());
    std::exit(1);
  }
  std::fprintf(stderr, "nothing was thrown; expected \"%s\"\n", words.c_str());
  std::exit(1);
}
