// What users of the library notice. `session-tests DATA TEST [ARTIFACT]` runs one test; DATA is what tests/test_cpp.py made.
// `session-tests DATA attempt` is no test: it loads the files whose paths stand on standard input, one per line, each in a
// child process of its own, and prints a line per file as tests/hostile/attempt.py does.

#include <exported_model/exported_model.h>

#include <cxxabi.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <iterator>
#include <map>
#include <thread>
#include <type_traits>
#include <typeinfo>

#include "expect.h"

namespace em = exported_model;

namespace {

std::string data;

std::string file(const std::string& name) { return data + "/" + name; }

std::string content(const std::string& name) {
  std::ifstream stream(file(name), std::ios::binary);
  EXPECT(stream.good());
  return {std::istreambuf_iterator<char>(stream), {}};
}

em::Tensors inputs(std::int64_t rows, std::int64_t length) {
  const auto ids = at::arange(rows * length, at::kLong).reshape({rows, length}).remainder(200) + 10;
  return {{"input_ids", ids}, {"attention_mask", at::ones_like(ids)}, {"token_type_ids", at::zeros_like(ids)}};
}

// The golden cases of eager fp32, within the tolerance of the file.
void golden(const std::string& artifact) {
  const em::Session session(file(artifact + ".pt"));
  const auto found = em::check(session, em::read_cases(file(artifact + ".pt")));
  EXPECT(found.size() >= 5);
  for (const auto& [name, errors] : found) {
    std::printf("%s: max %.2e, rms %.2e\n", name.c_str(), errors.max, errors.rms);
    EXPECT(errors.within(session.manifest().tolerance));
  }
}

// What the Python runtime answered in the same order of calls, bit for bit.
void as_python(const std::string& artifact) {
  const em::Session session(file(artifact + ".pt"));
  const auto cases = em::parse_cases(content(artifact + ".answers"));
  for (int round = 0; round < em::kCheckRounds; ++round)
    for (const auto& [name, one] : cases) {
      const auto answers = session.run(one.inputs);
      EXPECT(answers.size() == one.outputs.size());
      // The last round's are stored.
      if (round + 1 == em::kCheckRounds)
        for (const auto& [output, expected] : one.outputs) EXPECT(at::equal(answers.at(output), expected));
    }
  std::printf("%zu cases, equal bit for bit\n", cases.size());
}

// Inputs made of pictures are those of the Python runtime, bit for bit; what does not fit is refused by name.
void pictures() {
  em::Options options;
  options.threads = 2;
  const em::Session session(file("picture.pt"), options);
  EXPECT(session.manifest().preprocessing && session.manifest().preprocessing->kind == "image");
  const auto cases = em::parse_cases(content("picture.answers"));
  EXPECT(cases.size() == 3);
  for (const auto& [name, one] : cases) {
    const auto made = session.preprocess(one.inputs.at("picture").to(at::kByte));
    EXPECT(at::equal(made.at("pixel_values"), one.outputs.at("pixel_values")));
    EXPECT(session.run(made).size() + 1 == one.outputs.size());
  }
  expect_throw<em::InputTypeError>([&] { session.preprocess(at::zeros({4, 4, 3})); }, "the picture has dtype");
  expect_throw<em::InputTypeError>([&] { session.preprocess(at::Tensor()); }, "the picture is not a dense tensor");
  expect_throw<em::InputRankError>([&] { session.preprocess(at::zeros({4, 4}, at::kByte)); }, "the picture has shape [4, 4]");
  expect_throw<em::InputSizeError>([&] { session.preprocess(at::zeros({4, 4, 4}, at::kByte)); },
                                   "the picture has 4 channels; expected 3");
  expect_throw<em::InputSizeError>([&] { session.preprocess(at::zeros({0, 4, 3}, at::kByte)); }, "the picture has 0 height");
  expect_throw<em::InputNameError>([] { em::Session(file("plain-fp32.pt")).preprocess(at::zeros({4, 4, 3}, at::kByte)); },
                                   "makes no inputs of pictures");
}

// Inputs made of sounds are those of the Python runtime, bit for bit.
void sounds() {
  em::Options options;
  options.threads = 2;
  const em::Session session(file("sound.pt"), options);
  EXPECT(session.manifest().preprocessing && session.manifest().preprocessing->kind == "audio");
  const auto cases = em::parse_cases(content("sound.answers"));
  EXPECT(cases.size() == 3);
  for (const auto& [name, one] : cases) {
    const auto made = session.preprocess(one.inputs.at("sound"));
    EXPECT(at::equal(made.at("input_values"), one.outputs.at("input_values")));
    EXPECT(session.run(made).size() + made.size() == one.outputs.size());
  }
  expect_throw<em::InputTypeError>([&] { session.preprocess(at::zeros({4000}, at::kShort)); }, "the sound has dtype");
  expect_throw<em::InputRankError>([&] { session.preprocess(at::zeros({2, 4000})); }, "the sound has shape [2, 4000]");
  expect_throw<em::InputSizeError>([&] { session.preprocess(at::zeros({399})); },
                                   "the sound has 399 samples; expected 400 to 32399");
}

// Tensors that Python made of the same recipes, bit for bit, and the published first outputs of SplitMix64.
void recipes() {
  EXPECT(em::detail::split_mix(0, 0) == 0xE220A8397B1DCDAFu && em::detail::split_mix(0, 2) == 0x06C45D188009454Fu);
  const auto cases = em::parse_cases(content("recipes.safetensors"));
  EXPECT(cases.size() >= 4);
  for (const auto& [name, one] : cases) EXPECT(at::equal(one.inputs.at("x"), one.outputs.at("x")));
  for (const char* const bad : {"no-shape", "large", "length", "seed"})
    expect_throw<em::ManifestDamagedError>([&] { em::parse_cases(content(std::string("recipe-") + bad)); }, "damaged golden");
}

void bad_files() {
  expect_throw<em::ArtifactNotFoundError>([] { em::Session(file("nothing.pt")); }, "there is no file");
  expect_throw<em::ArtifactNotFoundError>([] { em::Session{data}; }, "Is a directory");
  expect_throw<em::NotAnArtifactError>([] { em::Session(file("cut.pt")); }, "is not a zip archive, or was cut short");
  expect_throw<em::NotAnArtifactError>([] { em::Session(file("text.pt")); }, "is not a zip archive, or was cut short");
  expect_throw<em::NotAnArtifactError>([] { em::Session(file("empty.pt")); }, "is not a zip archive, or was cut short");
  expect_throw<em::FormatVersionError>([] { em::Session(file("newer.pt")); }, "has format version 3; expected at most 2");
  expect_throw<em::FormatVersionError>([] { em::Session(file("older.pt")); }, "version 1; expected at least 2");
  expect_throw<em::ManifestMissingError>([] { em::Session(file("bare.pt")); }, "holds no manifest.json");
  expect_throw<em::ManifestDamagedError>([] { em::Session(file("no-json.pt")); }, "damaged manifest.json");
  expect_throw<em::ManifestDamagedError>([] { em::Session(file("no-task.pt")); }, "task");
  expect_throw<em::ManifestDamagedError>([] { em::Session(file("no-number.pt")); }, "format_version holds no number");
  expect_throw<em::TorchVersionError>([] { em::Session(file("newer-torch.pt")); }, "libtorch 99.0 or newer");
  expect_throw<em::CpuFeatureError>([] { em::Session(file("other-cpu.pt")); }, "lacks quantum");
  expect_throw<em::ManifestDamagedError>([] { em::read_cases(file("golden.pt")); }, "damaged golden.safetensors");
  expect_throw<em::ThreadCountError>([] { em::Options options; options.threads = 0; em::Session(file("plain-fp32.pt"), options); }, "threads is 0");
  for (const char* bytes : {"", "\xff\xff\xff\xff\xff\xff\xff\x7f", "\x02\0\0\0\0\0\0\0[]", "\x02\0\0\0\0\0\0\0{}"})
    expect_throw<em::ManifestDamagedError>([&] { em::parse_cases(std::string(bytes, *bytes == '\0' ? 0 : 8) + "{}"); }, "damaged");
}

// The vectors of NIST (FIPS 180-4), and lengths around a block's end, with and without the processor's instructions.
void sha256() {
  const auto hex = [](const std::string& text, bool instructions, std::size_t step) {
    em::detail::Sha256 digest(instructions);
    for (std::size_t place = 0; place < text.size(); place += step)
      digest.update(text.data() + place, std::min(step, text.size() - place));
    return digest.hex();
  };
  const std::map<std::string, std::string> vectors = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1'000'000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"}};
  for (const bool instructions : {true, false}) {
    for (const auto& [text, expected] : vectors) EXPECT(hex(text, instructions, 977) == expected);
    for (std::size_t length = 1; length < 200; ++length) {
      const std::string text(length, 'x');
      EXPECT(hex(text, instructions, length) == hex(text, !instructions, 7));
    }
    const std::string large(std::size_t{32} << 20, 'x');
    const auto start = std::chrono::steady_clock::now();
    EXPECT(hex(large, instructions, large.size()).size() == 64);
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - start;
    std::printf("SHA-256 %s the processor's instructions: %.2f GB a second\n", instructions ? "with" : "without",
                static_cast<double>(large.size()) / 1e9 / taken.count());
  }
}

// The digest of the whole file is compared before anything else is read.
void digest_of_the_file() {
  em::Options options;
  options.sha256 = em::Archive(file("plain-fp32.pt")).sha256();
  EXPECT(options.sha256.size() == 64);
  EXPECT(em::Session(file("plain-fp32.pt"), options).manifest().backend == "plain");
  expect_throw<em::DigestError>([&] { em::Session(file("onednn-fp32.pt"), options); }, "has sha256");
  expect_throw<em::DigestError>([&] { em::Session(file("no-json.pt"), options); }, "has sha256");
}

void from_memory() {
  std::string whole = content("plain-fp32.pt");
  const auto expected = em::Session(file("plain-fp32.pt")).run(inputs(2, 8)).at("logits");
  const em::Session session(whole.data(), whole.size());
  // The session keeps nothing of it.
  std::fill(whole.begin(), whole.end(), '\0');
  EXPECT(at::equal(session.run(inputs(2, 8)).at("logits"), expected));
  whole = content("plain-fp32.pt");
  expect_throw<em::NotAnArtifactError>([&] { em::Session(whole.data(), whole.size() / 2); }, "the buffer is not a zip archive");
  expect_throw<em::NotAnArtifactError>([&] { em::Session(nullptr, 0); }, "the buffer is not a zip archive");
  // One bit of a tensor's numbers.
  whole[whole.size() / 3] = static_cast<char>(whole[whole.size() / 3] ^ 1);
  expect_throw<em::DigestError>([&] { em::Session(whole.data(), whole.size()); }, "is not the part that was sealed");
}

// What was checked is what is loaded, whatever the path leads to; writing into the file is seen.
void files_that_change() {
  const std::string path = file("changing-" + std::to_string(getpid()) + ".pt");
  const auto write = [&](const std::string& bytes, const std::string& to) { std::ofstream(to, std::ios::binary) << bytes; };
  write(content("plain-fp32.pt"), path);
  const em::Archive archive(path);
  write(content("onednn-fp32.pt"), path + ".new");
  EXPECT(std::rename((path + ".new").c_str(), path.c_str()) == 0);
  EXPECT(em::Session(archive).manifest().backend == "plain");
  EXPECT(em::Session(path).manifest().backend == "onednn");
  const em::Archive written(path);
  std::ofstream(path, std::ios::binary | std::ios::app) << "more";
  expect_throw<em::DigestError>([&] { em::Session{written}; }, "was written to while it was read");
  std::remove(path.c_str());
}

void operators_of_ones_own() {
  expect_throw<em::OperatorNotAllowedError>([] { em::Session(file("bessel.pt")); }, "has the operator aten::special_bessel_j0");
  em::Options options;
  options.allow_operators = {"aten::special_bessel_j0"};
  EXPECT(em::Session(file("bessel.pt"), options).run(inputs(2, 8)).at("logits").size(0) == 2);
  for (const char* name : {"special_bessel_j0", "aten::", "aten::special_bessel_j0.out", ""}) {
    options.allow_operators = {name};
    expect_throw<em::OperatorNameError>([&] { em::Session(file("bessel.pt"), options); }, "allow_operators has");
  }
}

// A named error instead of a wait without end; with one thread there is nothing to wait for.
void forked_child() {
  const em::Session session(file("plain-fp32.pt"));
  const auto expected = session.run(inputs(4, 64)).at("logits");
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    expect_throw<em::ForkError>([&] { session.run(inputs(4, 64)); }, "load after the fork, or with threads=1");
    at::set_num_threads(1);
    EXPECT(at::allclose(session.run(inputs(4, 64)).at("logits"), expected, 1e-4, 1e-5));
    std::_Exit(0);
  }
  int status = -1;
  EXPECT(waitpid(child, &status, 0) == child && status == 0);
}

// What a file says of itself steers no terminal.
void printable_messages() {
  EXPECT(em::Error("a\x1b[2J\u202e\xff\né").what() == std::string("a\\x1b[2J\\u202e\\xff é"));
}

void bad_inputs() {
  const em::Session session(file("plain-fp32.pt"));
  const auto refused = [&](const std::function<void(em::Tensors&)>& change) {
    return [&session, change] {
      auto changed = inputs(2, 8);
      change(changed);
      session.run(changed);
    };
  };
  using T = em::Tensors&;
  expect_throw<em::InputNameError>(refused([](T t) { t["pixels"] = at::ones({1}); }), "unknown input 'pixels'; expected some of input_ids");
  expect_throw<em::InputNameError>(refused([](T t) { t.erase("input_ids"); }), "input 'input_ids' is missing");
  expect_throw<em::InputNameError>(refused([](T t) { t["input_ids"] = at::Tensor(); }), "input 'input_ids' is missing");
  expect_throw<em::InputTypeError>(refused([](T t) { t["input_ids"] = at::ones({2, 8}); }), "has dtype Float; expected a tensor of int64");
  expect_throw<em::InputTypeError>(refused([](T t) { t["input_ids"] = t["input_ids"].to_sparse(); }), "not a dense tensor");
  expect_throw<em::InputRankError>(refused([](T t) { t["input_ids"] = at::ones({8}, at::kLong); }), "has shape [8]");
  expect_throw<em::InputSizeError>(refused([](T t) { t["input_ids"] = at::ones({0, 8}, at::kLong); }), "has 0 along its batch axis");
  expect_throw<em::InputSizeError>(refused([](T t) { t["attention_mask"] = at::ones({2, 7}, at::kLong); }), "as in input");
  expect_throw<em::InputSizeError>([&] { session.run(inputs(1, 5000)); }, "has 5000 along its sequence axis; expected 1 to");
  expect_throw<em::InputValueError>(refused([](T t) { t["input_ids"] = at::full({2, 8}, -1, at::kLong); }), "holds -1; expected integers from 0");
  expect_throw<em::InputValueError>(refused([](T t) { t["input_ids"] = at::full({2, 8}, 1 << 30, at::kLong); }), "holds 1073741824");
  expect_throw<em::InputValueError>(refused([](T t) { t["attention_mask"] = at::full({2, 8}, 2, at::kLong); }), "holds 2");
  // And it still answers.
  EXPECT(session.run(inputs(2, 8)).at("logits").size(0) == 2);
}

void filled_inputs() {
  const em::Session session(file("plain-fp32.pt"));
  auto given = inputs(3, 9);
  const auto expected = session.run(given).at("logits");
  EXPECT(at::equal(session.run({{"input_ids", given["input_ids"]}}).at("logits"), expected));
  // Other integers that lose nothing, and a view with strides of its own.
  given["input_ids"] = given["input_ids"].to(at::kInt);
  given["attention_mask"] = at::ones({3, 9}, at::kBool);
  given["token_type_ids"] = at::zeros({9, 3}, at::kLong).t();
  EXPECT(at::equal(session.run(given).at("logits"), expected));
}

void callers_tensors() {
  const em::Session session(file("onednn-fp32.pt"));
  const auto given = inputs(2, 12);
  const auto before = inputs(2, 12);
  const auto first = session.run(given).at("logits");
  const auto kept = first.clone();
  for (int call = 0; call < 3; ++call) session.run(inputs(2, 12));
  for (const auto& [name, tensor] : before) EXPECT(at::equal(tensor, given.at(name)));
  // An answer is the caller's own: later calls do not write to it, and it may be written to.
  EXPECT(at::equal(first, kept));
  first.add_(1);
  EXPECT(at::equal(session.run(given).at("logits"), kept));
  EXPECT(!first.requires_grad() && !first.is_inference());
}

void eight_threads() {
  const em::Session session(file("onednn-fp32.pt"));
  std::vector<em::Tensors> asked;
  std::vector<at::Tensor> expected;
  for (std::int64_t number = 0; number < 8; ++number) asked.push_back(inputs(1 + number % 3, 5 + 3 * number));
  for (const auto& one : asked) {
    for (int call = 0; call < 3; ++call) session.run(one);
    expected.push_back(session.run(one).at("logits"));
  }
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (std::size_t thread = 0; thread < 8; ++thread)
    threads.emplace_back([&, thread] {
      for (std::size_t call = 0; call < 200; ++call) {
        const std::size_t which = (thread + call) % asked.size();
        if (!at::allclose(session.run(asked[which]).at("logits"), expected[which], 1e-5, 1e-6)) ++wrong[thread];
      }
    });
  for (auto& thread : threads) thread.join();
  for (const int count : wrong) EXPECT(count == 0);
}

static_assert(!std::is_copy_constructible_v<em::Session> && !std::is_copy_assignable_v<em::Session>);
static_assert(std::is_nothrow_move_constructible_v<em::Session> && std::is_nothrow_move_assignable_v<em::Session>);

void moving() {
  em::Session first(file("plain-fp32.pt"));
  const auto expected = first.run(inputs(1, 6)).at("logits");
  em::Session second(std::move(first));
  EXPECT(at::equal(second.run(inputs(1, 6)).at("logits"), expected));
  second = em::Session(file("onednn-fp32.pt"));
  EXPECT(second.manifest().backend == "onednn");
  EXPECT(at::allclose(second.run(inputs(1, 6)).at("logits"), expected, 1e-4, 1e-4));
}

// The warnings of other code in the process stay as they were.
void warnings_of_others() {
  struct Counting : c10::WarningHandler {
    void process(const c10::Warning&) override { ++count; }
    int count = 0;
  } handler;
  c10::WarningUtils::WarningHandlerGuard guard(&handler);
  const em::Session session(file("plain-fp32.pt"));
  TORCH_WARN("something");
  EXPECT(handler.count == 1);
}

void ipex_missing() {
  em::Options options;
  options.ipex_library = "/nothing.so";
  expect_throw<em::IpexMissingError>([&] { em::Session(file("ipex-fp32.pt"), options); }, "cannot load IPEX: /nothing.so");
  // Nothing was done: another artifact loads.
  EXPECT(em::Session(file("plain-fp32.pt")).manifest().backend == "plain");
}

void thread_count_of_ipex() {
  const em::Session session(file("ipex-fp32.pt"));
  session.run(inputs(2, 8));
  at::set_num_threads(1);
  expect_throw<em::ThreadCountError>([&] { session.run(inputs(2, 8)); }, "libtorch uses 1 threads now; expected 2");
  at::set_num_threads(2);
  session.run(inputs(2, 8));
}

double resident_mb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.rfind("VmRSS:", 0) == 0) return std::stod(line.substr(6)) / 1024;
  return 0;
}

void load_and_unload() {
  constexpr int kRounds = 1000, kSettled = 200;
  double settled = 0;
  for (int round = 1; round <= kRounds; ++round) {
    const em::Session session(file("onednn-fp32.pt"));
    session.run(inputs(1, 8));
    if (round == kSettled) settled = resident_mb();
  }
  const double grown = resident_mb() - settled;
  std::printf("1,000 rounds of loading, running and unloading: %.1f MB after %d, %+.1f MB at the end\n", settled, kSettled, grown);
  EXPECT(grown < 20);
}

// What loading a file and calling the model comes to: `refused NAME MESSAGE`, `answered` or `unnamed MESSAGE`.
std::string attempt(const std::string& path) {
  try {
    em::Options options;
    options.threads = 1;
    const auto session = std::make_shared<const em::Session>(path, options);
    session->run(inputs(2, 8));
    if (session->manifest().generation) {
      em::GenerateOptions asked;
      asked.max_new_tokens = 3;
      asked.seed = 1;
      for (const auto& row : em::Generator(session).generate({{7, 8, 9}, {7}}, asked)) EXPECT(row.ids.size() == 3);
    }
    return "answered";
  } catch (const em::Error& error) {
    int status = 0;
    char* name = abi::__cxa_demangle(typeid(error).name(), nullptr, nullptr, &status);
    const std::string type = std::string(name).substr(std::string("exported_model::").size());
    std::free(name);
    return "refused " + type + " " + error.what();
  } catch (const std::exception& error) {
    return std::string("unnamed ") + error.what();
  }
}

void attempts() {
  constexpr unsigned kSeconds = 20;
  at::set_num_threads(1);
  for (std::string path; std::getline(std::cin, path);) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(kSeconds);
      std::puts(attempt(path).c_str());
      std::fflush(stdout);
      std::_Exit(0);
    }
    int status = 0;
    EXPECT(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status)) std::printf("signal %d\n", WTERMSIG(status));
    else if (WEXITSTATUS(status) != 0) std::printf("exit code %d\n", WEXITSTATUS(status));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  EXPECT(argc == 3 || argc == 4);
  data = argv[1];
  const std::map<std::string, std::function<void()>> tests = {
      {"golden", [&] { golden(argv[3]); }}, {"as_python", [&] { as_python(argv[3]); }},
      {"recipes", recipes},
      {"pictures", pictures},               {"sounds", sounds},
      {"bad_files", bad_files},             {"bad_inputs", bad_inputs},
      {"filled_inputs", filled_inputs},     {"callers_tensors", callers_tensors},
      {"eight_threads", eight_threads},     {"moving", moving},
      {"warnings_of_others", warnings_of_others}, {"ipex_missing", ipex_missing},
      {"thread_count_of_ipex", thread_count_of_ipex}, {"load_and_unload", load_and_unload},
      {"sha256", sha256},                   {"digest_of_the_file", digest_of_the_file},
      {"from_memory", from_memory},         {"files_that_change", files_that_change},
      {"operators_of_ones_own", operators_of_ones_own}, {"forked_child", forked_child},
      {"printable_messages", printable_messages}, {"attempt", attempts}};
  try {
    tests.at(argv[2])();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[2], error.what());
    return 1;
  }
  return 0;
}
