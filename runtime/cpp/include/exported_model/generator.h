// Write rows of token ids on with an exported language model.
//
//     exported_model::Generator generator("model.pt");
//     exported_model::GenerateOptions options;
//     options.max_new_tokens = 40;
//     auto rows = generator.generate({prompt}, options, [](const exported_model::Token& token) {
//       std::cout << token.id << std::endl;
//       return true;  // false: this row is long enough
//     });
//     rows[0].ids
//
// In: the ids of some prompts, which a tokenizer made. Out: the new ids, each as soon as it is known, and all at the end.
// The C++ counterpart of session.text.generate without its tokenizer: the same ids at the same number of threads, the
// same draws for a seed. A Generator writes for one thread at a time. Several over one Session, each with its own
// keys and values, share the weights.
#pragma once

#include <torch/script.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/caches.h>
#include <exported_model/errors.h>
#include <exported_model/sampling.h>
#include <exported_model/session.h>

namespace exported_model {

// Why a row ended: one of the stop ids, the caller's wish, or no more room.
enum class Finish { stop_token, stopped, length };

// One new id of one row.
struct Token {
  std::size_t row = 0;            // its number among the prompts
  std::int64_t id = 0;
  std::optional<double> logprob;  // the logarithm of its probability by the model's own logits, if it was asked for
  std::optional<Finish> finish;   // set if it is the row's last one
};

// What was written behind one prompt. `ids` has the stop id too, if one ended it; `logprobs` is empty if not asked for.
struct Generated {
  std::vector<std::int64_t> ids;
  std::vector<double> logprobs;
  Finish finish = Finish::length;
};

// Called with each new id; false: its row gets no further one.
using OnToken = std::function<bool(const Token&)>;

class Generator {
 public:
  // Loads an artifact with all checks of Session. Throws as Session does, and InputTaskError where the artifact is for
  // another task.
  explicit Generator(const std::string& path, const Options& options = {})
      : Generator(std::make_shared<const Session>(
            path, options, [](const Manifest& manifest) { detail::check_generates(manifest, "a Generator"); })) {}

  // On a session that others may use too.
  explicit Generator(std::shared_ptr<const Session> session) : session_(std::move(session)) {
    detail::check_generates(session_->manifest(), "a Generator");
  }

  // Writes behind every prompt, several at once. One result per prompt, in their order.
  //
  // Throws InputTextError or InputValueError, before anything is written, where a prompt or an option does not fit;
  // GeneratorBusyError where the same Generator is writing, for another thread or for the callback that calls this;
  // ArtifactFailedError or ForkError as Session::decode. What the callback throws passes through. After any of them
  // the Generator can be used again.
  std::vector<Generated> generate(const std::vector<std::vector<std::int64_t>>& prompts,
                                  const GenerateOptions& options = {}, const OnToken& on_token = nullptr) {
    const Turn turn(*busy_);
    const Generation& generation = *session_->manifest().generation;
    const auto sampling = detail::sampling_of(generation.defaults, options);
    std::vector<Row> rows = make_rows(prompts, options, sampling);
    // Those of similar lengths together, as in Python: who shares a call decides how its sums are rounded.
    std::stable_sort(rows.begin(), rows.end(),
                     [](const Row& one, const Row& other) { return one.ids.size() < other.ids.size(); });
    std::vector<Generated> found(prompts.size());
    for (std::size_t start = 0; start < rows.size(); start += kMaxRows) {
      const auto begin = rows.begin() + static_cast<std::ptrdiff_t>(start);
      std::vector<Row*> group;
      for (auto row = begin; row != rows.end() && group.size() < kMaxRows; ++row) group.push_back(&*row);
      write(std::move(group), sampling, options, on_token, found);
    }
    return found;
  }

  const Session& session() const { return *session_; }

 private:
  // Rows that are written together. More of them make a token cheaper, and each waits longer for its own.
  static constexpr std::size_t kMaxRows = 16;
  // Tokens of a prompt per row and call: longer pieces take memory for masks and scores, and are no faster.
  static constexpr std::int64_t kPiece = 512;

  // The right to write, which one caller has at a time.
  class Turn {
   public:
    explicit Turn(std::atomic<bool>& busy) : busy_(busy) {
      if (busy_.exchange(true))
        throw GeneratorBusyError("this Generator is still writing for another call", "one call at a time",
                                 "make one Generator per thread, over the same Session");
    }
    ~Turn() { busy_ = false; }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    std::atomic<bool>& busy_;
  };

  struct Row {
    std::size_t number;
    std::vector<std::int64_t> ids;  // the prompt's and the new ones
    std::size_t most;               // of both
    at::Generator generator;
    bool ended = false;
  };

  std::vector<Row> make_rows(const std::vector<std::vector<std::int64_t>>& prompts, const GenerateOptions& options,
                             const detail::Sampling& sampling) const {
    if (prompts.empty()) throw InputTextError("there are no prompts", "at least one");
    const std::int64_t longest = session_->manifest().generation->longest;
    const std::int64_t largest = detail::largest_id(session_->manifest());
    std::vector<Row> rows;
    for (std::size_t number = 0; number < prompts.size(); ++number) {
      const auto& ids = prompts[number];
      const std::string name = prompts.size() > 1 ? "prompt " + std::to_string(number + 1) : "the prompt";
      if (ids.empty()) throw InputTextError(name + " is empty", "at least one token");
      const std::string has = name + " has " + std::to_string(ids.size()) + " tokens";
      const std::int64_t room = longest - static_cast<std::int64_t>(ids.size());
      if (room < 1)
        throw InputTextError(has, "at most " + std::to_string(longest - 1) + ", which leaves room for a new one",
                             "shorten it");
      if (options.max_new_tokens.value_or(1) > room)
        throw InputTextError(has + ", behind which there is room for " + std::to_string(room),
                             "max_new_tokens of at most that, not " + std::to_string(*options.max_new_tokens),
                             "shorten it, or ask for fewer tokens");
      for (const auto id : ids)
        if (id < 0 || id > largest)
          throw InputValueError(name + " holds " + std::to_string(id), "ids from 0 to " + std::to_string(largest));
      const std::int64_t most = std::min(room, options.max_new_tokens.value_or(detail::kNewTokens));
      rows.push_back({number, ids, ids.size() + static_cast<std::size_t>(most),
                      detail::generator_of(sampling.seed + static_cast<std::int64_t>(number))});
    }
    return rows;
  }

  // Writes some rows on together, one token of each per call; a row that has ended leaves the cache.
  void write(std::vector<Row*> rows, const detail::Sampling& sampling, const GenerateOptions& options,
             const OnToken& on_token, std::vector<Generated>& found) const {
    const Generation& generation = *session_->manifest().generation;
    at::NoGradGuard no_grad;
    detail::Caches caches(generation, static_cast<std::int64_t>(rows.size()), longest_of(rows) + 1);
    at::Tensor logits = read_prompts(rows, caches.tensors());
    for (;;) {
      for (std::size_t place = 0; place < rows.size(); ++place) {
        Row& row = *rows[place];
        const Token token = next(row, logits[static_cast<std::int64_t>(place)], sampling, options);
        Generated& result = found[row.number];
        result.ids.push_back(token.id);
        if (token.logprob) result.logprobs.push_back(*token.logprob);
        const bool more = !on_token || on_token(token);
        row.ended = token.finish || !more;
        if (row.ended) result.finish = token.finish.value_or(Finish::stopped);
      }
      std::vector<Row*> live;
      std::vector<std::int64_t> places;
      for (std::size_t place = 0; place < rows.size(); ++place)
        if (!rows[place]->ended) {
          live.push_back(rows[place]);
          places.push_back(static_cast<std::int64_t>(place));
        }
      if (live.empty()) return;
      if (live.size() < rows.size()) caches.keep_rows(places);
      rows = std::move(live);
      caches.make_room(longest_of(rows));
      std::vector<std::int64_t> ids, positions;
      for (const Row* row : rows) {
        ids.push_back(row->ids.back());
        positions.push_back(static_cast<std::int64_t>(row->ids.size()) - 1);
      }
      const auto column = at::tensor(ids, at::kLong).unsqueeze(1);
      logits = session_->decode(column, at::tensor(positions, at::kLong).unsqueeze(1), at::zeros_like(column),
                                caches.tensors()).select(1, 0);
    }
  }

  Token next(Row& row, const at::Tensor& logits, const detail::Sampling& sampling, const GenerateOptions& options) const {
    Token token;
    token.row = row.number;
    token.id = detail::choose(logits, row.ids, sampling, row.generator);
    row.ids.push_back(token.id);
    if (options.logprobs) token.logprob = logits.log_softmax(-1)[token.id].item<double>();
    const auto& stop_ids = options.stop_ids ? *options.stop_ids : session_->manifest().generation->stop_ids;
    if (row.ids.size() >= row.most) token.finish = Finish::length;
    if (std::find(stop_ids.begin(), stop_ids.end(), token.id) != stop_ids.end()) token.finish = Finish::stop_token;
    return token;
  }

  // The logits behind each prompt, [rows, vocabulary]. Shorter prompts are padded behind their end: what padding writes
  // there is not seen, and overwritten later.
  at::Tensor read_prompts(const std::vector<Row*>& rows, const std::vector<at::Tensor>& caches) const {
    const std::int64_t longest = longest_of(rows);
    std::vector<std::int64_t> sizes, padded;
    for (const Row* row : rows) {
      sizes.push_back(static_cast<std::int64_t>(row->ids.size()));
      padded.insert(padded.end(), row->ids.begin(), row->ids.end());
      padded.insert(padded.end(), static_cast<std::size_t>(longest - sizes.back()), row->ids.back());
    }
    const auto whole = at::tensor(padded, at::kLong).view({static_cast<std::int64_t>(rows.size()), longest});
    const auto lengths = at::tensor(sizes, at::kLong);
    at::Tensor found;
    for (std::int64_t start = 0; start < longest; start += kPiece) {
      const std::int64_t tokens = std::min(kPiece, longest - start);
      const auto ids = whole.narrow(1, start, tokens);
      const auto positions = at::arange(start, start + tokens, at::kLong).expand(ids.sizes());
      const auto last = lengths - 1 - start;
      const auto kept = last.clamp(0, tokens - 1).unsqueeze(1);
      const auto logits = session_->decode(ids, positions, kept, caches).select(1, 0);
      const auto here = last.ge(0).logical_and(last.lt(tokens)).unsqueeze(1);
      found = found.defined() ? at::where(here, logits, found) : logits;
    }
    return found;
  }

  static std::int64_t longest_of(const std::vector<Row*>& rows) {
    std::size_t longest = 0;
    for (const Row* row : rows) longest = std::max(longest, row->ids.size());
    return static_cast<std::int64_t>(longest);
  }

  std::shared_ptr<const Session> session_;
  std::unique_ptr<std::atomic<bool>> busy_ = std::make_unique<std::atomic<bool>>(false);
};

}  // namespace exported_model
