// Write on with a language model: token ids in, token ids out, each as soon as it is known.
//
//   generate FILE [--max-new-tokens N] [--temperature T] [--top-k K] [--top-p P] [--min-p P] [--repetition-penalty R]
//                 [--seed S] [--stop ID,ID] [--logprobs] [--threads T] [-v]
//
// In: a prompt per line of standard input, its ids with blanks between; a tokenizer makes them (docs/cpp.md). All
// prompts are written together. Out: a line per new id, `PROMPT ID` or with --logprobs `PROMPT ID LOGPROB`, prompts
// counted from 0; then a line per prompt with the reason why it ended, `PROMPT stop_token` or `PROMPT length`. -v tells
// on standard error how long it took. Exit code 1 if something does not fit, 2 for a wrong command line.

#include <exported_model/generator.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

int usage() {
  std::fprintf(stderr,
               "usage: generate FILE [--max-new-tokens N] [--temperature T] [--top-k K] [--top-p P] [--min-p P]\n"
               "                [--repetition-penalty R] [--seed S] [--stop ID,ID] [--logprobs] [--threads T] [-v]\n");
  return 2;
}

// The whole numbers in a text; false if there is something else in it.
bool read_ids(std::string text, char separator, std::vector<std::int64_t>& ids) {
  for (char& letter : text)
    if (letter == separator || letter == '\r') letter = ' ';
  std::istringstream stream(text);
  for (std::int64_t id; stream >> id;) ids.push_back(id);
  return stream.eof();
}

bool read_number(const std::string& text, double& number) {
  char* end = nullptr;
  number = std::strtod(text.c_str(), &end);
  return end != text.c_str() && *end == '\0';
}

bool read_whole(const std::string& text, std::int64_t& number) {
  char* end = nullptr;
  errno = 0;
  number = std::strtoll(text.c_str(), &end, 10);
  return end != text.c_str() && *end == '\0' && errno == 0;
}

struct Command {
  std::string file;
  exported_model::Options load;
  exported_model::GenerateOptions write;
  bool verbose = false;
};

// Takes one option with its value; false if it is none, or the value does not fit its type.
bool take(Command& command, const std::string& name, const std::string& value) {
  auto& options = command.write;
  std::optional<double>* const share = name == "--temperature"          ? &options.temperature
                                       : name == "--top-p"              ? &options.top_p
                                       : name == "--min-p"              ? &options.min_p
                                       : name == "--repetition-penalty" ? &options.repetition_penalty
                                                                        : nullptr;
  double number = 0;
  if (share != nullptr) {
    if (!read_number(value, number)) return false;
    *share = number;
    return true;
  }
  if (name == "--stop") {
    options.stop_ids.emplace();
    return read_ids(value, ',', *options.stop_ids);
  }
  std::int64_t whole = 0;
  if (!read_whole(value, whole)) return false;
  if (name == "--max-new-tokens") options.max_new_tokens = whole;
  else if (name == "--top-k") options.top_k = whole;
  else if (name == "--seed") options.seed = whole;
  else if (name == "--threads" && whole >= 0 && whole < 1 << 16) command.load.threads = static_cast<int>(whole);
  else return false;
  return true;
}

void run(const Command& command) {
  const auto start = Clock::now();
  exported_model::Generator generator(command.file, command.load);
  const double loaded = seconds_since(start);
  std::vector<std::vector<std::int64_t>> prompts;
  for (std::string line; std::getline(std::cin, line);) {
    prompts.emplace_back();
    if (!read_ids(line, ' ', prompts.back()))
      throw exported_model::InputTextError("line " + std::to_string(prompts.size()) + " of standard input is no list of ids",
                                           "whole numbers with blanks between");
  }
  const auto begin = Clock::now();
  double first = 0;
  std::size_t tokens = 0;
  const auto found = generator.generate(prompts, command.write, [&](const exported_model::Token& token) {
    if (++tokens == 1) first = seconds_since(begin);
    if (token.logprob) std::printf("%zu %lld %.6g\n", token.row, static_cast<long long>(token.id), *token.logprob);
    else std::printf("%zu %lld\n", token.row, static_cast<long long>(token.id));
    // Fails where nobody reads any more.
    return std::fflush(stdout) == 0;
  });
  for (std::size_t row = 0; row < found.size(); ++row)
    std::printf("%zu %s\n", row, found[row].finish == exported_model::Finish::stop_token ? "stop_token" : "length");
  if (command.verbose)
    std::fprintf(stderr, "loaded in %.2f s; the first token after %.3f s; %zu tokens in %.2f s, %.1f per second\n", loaded,
                 first, tokens, seconds_since(begin), static_cast<double>(tokens) / seconds_since(begin));
}

}  // namespace

int main(int argc, char** argv) {
  Command command;
  for (int index = 1; index < argc; ++index) {
    const std::string argument = argv[index];
    if (argument == "-v") command.verbose = true;
    else if (argument == "--logprobs") command.write.logprobs = true;
    else if (argument.rfind("--", 0) == 0) {
      if (++index == argc || !take(command, argument, argv[index])) return usage();
    } else if (command.file.empty()) command.file = argument;
    else return usage();
  }
  if (command.file.empty()) return usage();
  try {
    run(command);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "generate: %s\n", exported_model::detail::first_line(error).c_str());
    return 1;
  }
  return 0;
}
