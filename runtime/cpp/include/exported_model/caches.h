// The tensors that a file's method `decode` takes: keys and values of some rows, empty at first.
//
// The same sizes as runtime/generation/cache.py, so that both languages compute the same, bit for bit.
#pragma once

#include <torch/script.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string>
#include <vector>

#include <exported_model/decoding.h>
#include <exported_model/errors.h>
#include <exported_model/manifest.h>

namespace exported_model::detail {

class Caches {
 public:
  // `length` is how many tokens each row can have at first; `make_room` makes it more.
  Caches(const Generation& generation, std::int64_t rows, std::int64_t length)
      : generation_(generation), tensors_(make(rows, std::min(generation.longest, std::max(length, kLeast)))) {}

  const std::vector<at::Tensor>& tensors() const { return tensors_; }

  // Lets rows have so many tokens; what they hold stays. The cache grows by doubling.
  void make_room(std::int64_t length) {
    const std::int64_t known = tensors_.front().size(2);
    if (length <= known) return;
    const auto larger = make(tensors_.front().size(0), std::min(generation_.longest, std::max(length, 2 * known)));
    for (std::size_t number = 0; number < larger.size(); ++number)
      larger[number].narrow(2, 0, known).copy_(tensors_[number]);
    tensors_ = larger;
  }

  // Forgets the rows that are not named.
  void keep_rows(const std::vector<std::int64_t>& rows) {
    const auto index = at::tensor(rows, at::kLong);
    for (auto& tensor : tensors_) tensor = tensor.index_select(0, index);
  }

 private:
  static constexpr std::int64_t kLeast = 64;

  std::vector<at::Tensor> make(std::int64_t rows, std::int64_t length) const {
    try {
      std::vector<at::Tensor> tensors;
      for (const auto& spec : generation_.caches)
        tensors.push_back(at::zeros({rows, spec.heads, length, spec.width}, cache_type(spec)));
      return tensors;
    } catch (const std::exception&) {  // libtorch has no error of its own for memory
      throw ArtifactFailedError("there is no memory for a cache of " + std::to_string(rows) + " rows of " +
                                    std::to_string(length) + " tokens",
                                "", "give fewer prompts at once, shorter ones, or a smaller max_new_tokens");
    }
  }

  const Generation& generation_;
  std::vector<at::Tensor> tensors_;
};

}  // namespace exported_model::detail
