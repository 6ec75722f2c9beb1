// What users of exported_model::Generator notice. `generator-tests DATA TEST [ARTIFACT]` runs one test; DATA is what
// tests/test_cpp.py made.

#include <exported_model/generator.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <stdexcept>
#include <thread>
#include <type_traits>

#include "expect.h"

namespace em = exported_model;

namespace {

using Ids = std::vector<std::int64_t>;

std::string data;

std::string file(const std::string& name) { return data + "/" + name; }

std::shared_ptr<const em::Session> shared() { return std::make_shared<const em::Session>(file("generation-plain.pt")); }

Ids prompt(std::int64_t first, std::size_t length) {
  Ids ids;
  for (std::size_t place = 0; place < length; ++place) ids.push_back(3 + (first + 7 * static_cast<std::int64_t>(place)) % 380);
  return ids;
}

em::GenerateOptions at_most(std::int64_t tokens) {
  em::GenerateOptions options;
  options.max_new_tokens = tokens;
  options.stop_ids = Ids{};
  return options;
}

template <typename Value>
std::optional<Value> given(const nlohmann::json& options, const char* name) {
  const auto found = options.find(name);
  return found == options.end() ? std::nullopt : std::optional<Value>(found->get<Value>());
}

const char* name_of(em::Finish finish) {
  return finish == em::Finish::stop_token ? "stop_token" : finish == em::Finish::stopped ? "stopped" : "length";
}

// The ids, the reasons and the probabilities of the Python runtime, bit for bit: greedy, with every setting, drawn with
// seeds, prompts of several pieces, more rows than are written together.
void as_python(const std::string& artifact) {
  em::Generator generator(file(artifact + ".pt"));
  const auto cases = nlohmann::json::parse(std::ifstream(file(artifact + ".generated")));
  EXPECT(cases.size() >= 8);
  std::size_t tokens = 0;
  for (const auto& one : cases) {
    const auto& json = one.at("options");
    em::GenerateOptions options;
    options.max_new_tokens = given<std::int64_t>(json, "max_new_tokens");
    options.temperature = given<double>(json, "temperature");
    options.top_k = given<std::int64_t>(json, "top_k");
    options.top_p = given<double>(json, "top_p");
    options.min_p = given<double>(json, "min_p");
    options.repetition_penalty = given<double>(json, "repetition_penalty");
    options.seed = given<std::int64_t>(json, "seed");
    options.logprobs = true;
    std::map<std::size_t, em::Generated> streamed;
    const auto found = generator.generate(one.at("prompts").get<std::vector<Ids>>(), options, [&](const em::Token& token) {
      streamed[token.row].ids.push_back(token.id);
      streamed[token.row].logprobs.push_back(*token.logprob);
      if (token.finish) streamed[token.row].finish = *token.finish;
      return true;
    });
    const auto& expected = one.at("results");
    EXPECT(found.size() == expected.size() && streamed.size() == found.size());
    for (std::size_t row = 0; row < found.size(); ++row) {
      EXPECT(found[row].ids == expected[row].at("ids").get<Ids>());
      EXPECT(found[row].logprobs == expected[row].at("logprobs").get<std::vector<double>>());
      EXPECT(name_of(found[row].finish) == expected[row].at("finish").get<std::string>());
      EXPECT(streamed[row].ids == found[row].ids && streamed[row].logprobs == found[row].logprobs);
      EXPECT(streamed[row].finish == found[row].finish);
      tokens += found[row].ids.size();
    }
  }
  std::printf("%zu cases, %zu tokens, equal to Python's\n", cases.size(), tokens);
}

// A callback that has enough ends its own row; the others are what they are without it.
void stopping() {
  em::Generator generator(shared());
  const std::vector<Ids> prompts{prompt(1, 5), prompt(2, 9), prompt(3, 2)};
  const auto whole = generator.generate(prompts, at_most(20));
  std::map<std::size_t, std::size_t> seen;
  const auto cut = generator.generate(prompts, at_most(20), [&](const em::Token& token) {
    EXPECT(!token.logprob && token.finish.has_value() == (seen[token.row] == 19));
    return ++seen[token.row] < 6 || token.row != 1;
  });
  EXPECT(cut[0].ids == whole[0].ids && cut[2].ids == whole[2].ids && cut[0].finish == em::Finish::length);
  EXPECT(cut[1].ids == Ids(whole[1].ids.begin(), whole[1].ids.begin() + 6) && cut[1].finish == em::Finish::stopped);
  EXPECT(cut[0].logprobs.empty() && seen[0] == 20 && seen[1] == 6);
  // An id that is written early on ends its row, and is the last one of it.
  auto options = at_most(20);
  options.stop_ids = Ids{whole[0].ids[3]};
  const auto stopped = generator.generate({prompts[0]}, options)[0];
  EXPECT(stopped.finish == em::Finish::stop_token && stopped.ids.back() == whole[0].ids[3] && stopped.ids.size() <= 4);
  // The same seed, the same draws, whoever else is written.
  options = at_most(12);
  options.temperature = 1.5;
  options.seed = 7;
  const auto drawn = generator.generate({prompts[0], prompts[0]}, options);
  EXPECT(drawn[0].ids != drawn[1].ids);
  EXPECT(generator.generate({prompts[0]}, options)[0].ids == drawn[0].ids);
  options.seed = 8;
  EXPECT(generator.generate({prompts[0]}, options)[0].ids == drawn[1].ids);
  options.seed.reset();
  EXPECT(generator.generate({prompts[0]}, options)[0].ids != generator.generate({prompts[0]}, options)[0].ids);
}

void refused() {
  em::Generator generator(shared());
  const auto text = [&](const std::vector<Ids>& prompts, const std::function<void(em::GenerateOptions&)>& change,
                        const std::string& words) {
    em::GenerateOptions options;
    change(options);
    expect_throw<em::InputTextError>([&] { generator.generate(prompts, options); }, words);
  };
  using O = em::GenerateOptions&;
  const Ids good = prompt(1, 5);
  const double nan = std::nan("");
  text({prompt(1, 700)}, [](O) {}, "the prompt has 700 tokens; expected at most 699, which leaves room for a new one");
  text({good, prompt(1, 800)}, [](O) {}, "prompt 2 has 800 tokens");
  text({prompt(1, 690)}, [](O o) { o.max_new_tokens = 11; }, "there is room for 10; expected max_new_tokens of at most that, not 11");
  text({}, [](O) {}, "there are no prompts");
  text({good, {}}, [](O) {}, "prompt 2 is empty");
  text({good}, [](O o) { o.max_new_tokens = 0; }, "max_new_tokens is 0; expected a whole number from 1");
  text({good}, [](O o) { o.seed = -1; }, "seed is -1");
  text({good}, [](O o) { o.seed = std::int64_t{1} << 62; }, "seed is 4611686018427387904; expected a whole number from 0 to");
  text({good}, [&](O o) { o.repetition_penalty = nan; }, "repetition_penalty is nan; expected a number from 0");
  text({good}, [](O o) { o.repetition_penalty = 0; }, "repetition_penalty is 0; expected a number above 0");
  text({good}, [](O o) { o.repetition_penalty = -1; }, "repetition_penalty is -1");
  text({good}, [&](O o) { o.temperature = nan; }, "temperature is nan");
  text({good}, [&](O o) { o.temperature = INFINITY; }, "temperature is inf");
  text({good}, [](O o) { o.temperature = -0.5; }, "temperature is -0.5; expected a number from 0");
  text({good}, [](O o) { o.temperature = 1e-45; }, "make the largest score");
  text({good}, [](O o) { o.top_p = 1.1; }, "top_p is 1.1; expected a number from 0 to 1");
  text({good}, [&](O o) { o.min_p = nan; }, "min_p is nan");
  text({good}, [](O o) { o.top_k = -1; }, "top_k is -1");
  text({good}, [](O o) { o.stop_ids = Ids{-1}; }, "a stop id is -1");
  expect_throw<em::InputValueError>([&] { generator.generate({{3, -1}}); }, "the prompt holds -1; expected ids from 0 to 399");
  expect_throw<em::InputValueError>([&] { generator.generate({{3}, {400}}); }, "prompt 2 holds 400");
  expect_throw<em::InputTaskError>([] { em::Generator(file("plain-fp32.pt")); },
                                   "a Generator on an artifact for text-classification; expected one for text-generation");
  expect_throw<em::InputTaskError>([] { em::Generator(std::make_shared<const em::Session>(file("plain-fp32.pt"))); }, "a Generator on");
  expect_throw<em::ArtifactNotFoundError>([] { em::Generator(file("nothing.pt")); }, "there is no file");
  // And it still writes, to the last place of the longest row.
  EXPECT(generator.generate({prompt(1, 690)}, at_most(10))[0].ids.size() == 10);
}

void busy() {
  em::Generator generator(shared());
  const Ids one = prompt(1, 5);
  const auto expected = generator.generate({one}, at_most(5));
  int asked = 0;
  const auto found = generator.generate({one}, at_most(5), [&](const em::Token&) {
    const auto again = [&] { generator.generate({one}); };
    expect_throw<em::GeneratorBusyError>(again, "this Generator is still writing for another call");
    std::thread([&] { expect_throw<em::GeneratorBusyError>(again, "make one Generator per thread"); }).join();
    return ++asked < 99;
  });
  EXPECT(asked == 5 && found[0].ids == expected[0].ids);
  // What a callback throws passes through, and ends the turn.
  expect_throw<std::out_of_range>([&] { generator.generate({one}, at_most(5), [](const em::Token&) -> bool { throw std::out_of_range("enough"); }); }, "enough");
  EXPECT(generator.generate({one}, at_most(5))[0].ids == expected[0].ids);
  em::Generator moved = std::move(generator);
  EXPECT(moved.generate({one}, at_most(5))[0].ids == expected[0].ids);
}

static_assert(!std::is_copy_constructible_v<em::Generator> && std::is_nothrow_move_constructible_v<em::Generator>);

// Four threads, a Generator each, over one copy of the weights.
void one_session() {
  const auto session = shared();
  std::vector<std::vector<Ids>> expected;
  for (std::int64_t number = 0; number < 4; ++number) {
    const auto found = em::Generator(session).generate({prompt(number, 4), prompt(number, 30)}, at_most(25));
    expected.push_back({found[0].ids, found[1].ids});
  }
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (std::size_t thread = 0; thread < 4; ++thread)
    threads.emplace_back([&, thread] {
      em::Generator generator(session);
      for (std::size_t call = 0; call < 12; ++call) {
        const std::size_t which = (thread + call) % 4;
        const auto first = static_cast<std::int64_t>(which);
        const auto found = generator.generate({prompt(first, 4), prompt(first, 30)}, at_most(25));
        if (found[0].ids != expected[which][0] || found[1].ids != expected[which][1]) ++wrong[thread];
      }
    });
  for (auto& thread : threads) thread.join();
  for (const int count : wrong) EXPECT(count == 0);
}

// The method itself: what it writes, and arguments that do not fit.
void decoding() {
  const em::Session session(file("generation-plain.pt"));
  struct Call {
    at::Tensor input_ids = at::full({1, 1}, 5, at::kLong), positions = at::zeros({1, 1}, at::kLong),
               kept = at::zeros({1, 1}, at::kLong);
    std::vector<at::Tensor> caches = {at::zeros({1, 2, 64, 8}), at::zeros({1, 2, 64, 8}), at::zeros({1, 2, 64, 8}),
                                      at::zeros({1, 2, 64, 8})};
  };
  const auto decode = [&](const Call& call) { return session.decode(call.input_ids, call.positions, call.kept, call.caches); };
  const Call call;
  EXPECT(decode(call).sizes() == std::vector<std::int64_t>({1, 1, 400}));
  EXPECT(call.caches[0].select(2, 0).abs().sum().item<float>() > 0);
  EXPECT(call.caches[0].narrow(2, 1, 63).abs().sum().item<float>() == 0);
  const auto changed = [&](const std::function<void(Call&)>& change) {
    return [&decode, change] {
      Call other;
      change(other);
      decode(other);
    };
  };
  using C = Call&;
  expect_throw<em::InputValueError>(changed([](C c) { c.input_ids.fill_(400); }), "input_ids holds 400; expected 0 to 399");
  expect_throw<em::InputValueError>(changed([](C c) { c.positions.fill_(64); }), "positions holds 64");
  expect_throw<em::InputValueError>(changed([](C c) { c.positions.fill_(-1); }), "positions holds -1");
  expect_throw<em::InputValueError>(changed([](C c) { c.kept.fill_(1); }), "kept holds 1");
  expect_throw<em::InputTypeError>(changed([](C c) { c.input_ids = at::ones({1, 1}); }), "input_ids is no dense int64 tensor");
  expect_throw<em::InputTypeError>(changed([](C c) { c.kept = at::Tensor(); }), "kept is no dense int64 tensor");
  expect_throw<em::InputRankError>(changed([](C c) { c.positions = at::zeros({1}, at::kLong); }), "positions has shape [1]");
  expect_throw<em::InputSizeError>(changed([](C c) { c.positions = at::zeros({1, 2}, at::kLong); }), "positions has shape [1, 2]");
  expect_throw<em::InputSizeError>(changed([](C c) { c.kept = at::zeros({2, 1}, at::kLong); }), "kept has shape [2, 1]");
  expect_throw<em::InputSizeError>(changed([](C c) { c.caches.clear(); }), "0 caches; expected 4");
  expect_throw<em::InputSizeError>(changed([](C c) { c.caches[3] = at::zeros({2, 2, 64, 8}); }), "cache 3 is another tensor");
  expect_throw<em::InputSizeError>(changed([](C c) { c.caches[0] = at::Tensor(); }), "cache 0 is another tensor");
  expect_throw<em::InputSizeError>(changed([](C c) { c.caches[1] = at::zeros({1, 2, 64, 8}, at::kDouble); }), "cache 1 is another tensor; expected float32 of shape [1, 2, 64, 8]");
  expect_throw<em::InputTaskError>([] {
    const em::Session other(file("plain-fp32.pt"));
    other.decode(at::zeros({1, 1}, at::kLong), at::zeros({1, 1}, at::kLong), at::zeros({1, 1}, at::kLong), {});
  }, "decode on an artifact for text-classification");
}

}  // namespace

int main(int argc, char** argv) {
  EXPECT(argc == 3 || argc == 4);
  data = argv[1];
  const std::map<std::string, std::function<void()>> tests = {
      {"as_python", [&] { as_python(argv[3]); }}, {"stopping", stopping}, {"refused", refused},
      {"busy", busy}, {"one_session", one_session}, {"decoding", decoding}};
  try {
    tests.at(argv[2])();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[2], error.what());
    return 1;
  }
  return 0;
}
