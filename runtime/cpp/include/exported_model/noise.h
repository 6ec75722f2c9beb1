// Large inputs of golden cases as recipes: seeded noise, or ones, with zeros behind the end of shorter rows.
//
// In: the numbers of a recipe. Out: its tensor, bit for bit that of runtime/format/noise.py; runtime/format/manifest.py
// specifies both. Refuses (std::invalid_argument) numbers that describe no tensor, or one that is too large.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace exported_model::detail {

constexpr std::int64_t kMostNumbers = std::int64_t{1} << 27;
constexpr std::int64_t kMostAxes = 8;
constexpr std::int64_t kSeeds = std::int64_t{1} << 62;

struct Recipe {
  std::int64_t seed, block, axis;
  std::vector<std::int64_t> shape, lengths;
};

inline Recipe decode_recipe(const at::Tensor& stored) {
  const bool numbers = stored.dim() == 1 && stored.scalar_type() == at::kLong && stored.numel() >= 4;
  const auto* first = numbers ? stored.data_ptr<std::int64_t>() : nullptr;
  if (first == nullptr || first[3] < 1 || first[3] > kMostAxes || stored.numel() < 4 + first[3])
    throw std::invalid_argument("no seed, block, axis, rank and shape");
  const auto *shape = first + 4, *lengths = shape + first[3], *end = first + stored.numel();
  if (first[0] < 0 || first[0] >= kSeeds) throw std::invalid_argument("a seed out of range");
  Recipe recipe{first[0], first[1], first[2], {shape, lengths}, {lengths, end}};
  std::int64_t numel = 1;
  for (const auto size : recipe.shape) {
    if (size < 1 || size > kMostNumbers / numel) throw std::invalid_argument("a shape out of range");
    numel *= size;
  }
  const auto rank = static_cast<std::int64_t>(recipe.shape.size());
  if (recipe.block < 0 || (recipe.block > 0 && rank < 2)) throw std::invalid_argument("blocks out of range");
  if (recipe.lengths.empty()) return recipe;
  if (static_cast<std::int64_t>(recipe.lengths.size()) != recipe.shape[0] || recipe.axis < 1 || recipe.axis >= rank)
    throw std::invalid_argument("lengths of other rows");
  for (const auto length : recipe.lengths)
    if (length < 0 || length > recipe.shape[static_cast<std::size_t>(recipe.axis)])
      throw std::invalid_argument("a length out of range");
  return recipe;
}

// The output of SplitMix64 after `count` others.
inline std::uint64_t split_mix(std::uint64_t seed, std::uint64_t count) {
  std::uint64_t state = seed + (count + 1) * 0x9E3779B97F4A7C15u;
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9u;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EBu;
  return state ^ (state >> 31);
}

// Numbers from -width/2 to width/2, each the top 20 bits of one output: exact in float32.
inline at::Tensor uniform(std::int64_t seed, const std::vector<std::int64_t>& shape, float width) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  auto* numbers = tensor.data_ptr<float>();
  for (std::int64_t i = 0; i < tensor.numel(); ++i) {
    const auto top = split_mix(static_cast<std::uint64_t>(seed), static_cast<std::uint64_t>(i)) >> 44;
    numbers[i] = (static_cast<float>(top) / 1048576.0f - 0.5f) * width;
  }
  return tensor;
}

inline at::Tensor make_noise(const Recipe& recipe) {
  at::Tensor tensor = uniform(recipe.seed, recipe.shape, 4);
  if (recipe.block == 0) return tensor;
  auto squares = recipe.shape;
  for (auto axis = squares.end() - 2; axis != squares.end(); ++axis) *axis = (*axis - 1) / recipe.block + 1;
  const auto rank = static_cast<std::int64_t>(squares.size());
  at::Tensor coarse = uniform(recipe.seed + 1, squares, 8);
  for (auto axis = rank - 2; axis < rank; ++axis) {
    const auto size = recipe.shape[static_cast<std::size_t>(axis)];
    // The square of each row or column: repeating and cutting would make a tensor of any size of a large block.
    coarse = coarse.index_select(axis, at::floor_divide(at::arange(size, at::kLong), recipe.block));
  }
  return tensor.add_(coarse);
}

// `noise` or ones.
inline at::Tensor make_tensor(const Recipe& recipe, bool noise) {
  at::Tensor tensor = noise ? make_noise(recipe) : at::ones(recipe.shape, at::kLong);
  for (std::size_t row = 0; row < recipe.lengths.size(); ++row) {
    const auto length = recipe.lengths[row], size = recipe.shape[static_cast<std::size_t>(recipe.axis)];
    tensor.select(0, static_cast<std::int64_t>(row)).narrow(recipe.axis - 1, length, size - length).zero_();
  }
  return tensor;
}

}  // namespace exported_model::detail
