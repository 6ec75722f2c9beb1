// IPEX's packed weights in a pickle: what its packing assumes of weight, bias and the numbers beside them.
// The rules of runtime/artifact/pickles/packed.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <exported_model/pickle_values.h>

namespace exported_model::detail {

// For the tokens of a call, or the sizes of an image: far above what models have, far below what overflows.
constexpr std::int64_t kMostPacked = 1 << 20;

// What BUILD gives each class. Other classes of libraries are refused: some load code.
inline const std::map<std::string, Type>& packed_classes() {
  static const auto made = [] {
    const std::string begin = "__torch__.torch.classes.ipex_prepack.";
    const Type integer{"int", {}}, boolean{"bool", {}}, tensor{"Tensor", {}};
    const Type integers{"List", {integer}};
    const Type optional_tensor{"Optional", {tensor}}, optional_integer{"Optional", {integer}};
    const Type linear{"Tuple", {tensor, optional_tensor, optional_integer}};
    // Stride, padding, dilation, groups, channels last, input size.
    const Type convolution{
        "Tuple", {tensor, optional_tensor, integers, integers, integers, integer, boolean, integers}};
    // Stride, padding, output padding, groups, dilation, channels last, input size.
    const Type transposed{
        "Tuple", {tensor, optional_tensor, integers, integers, integers, integer, integers, boolean, integers}};
    return std::map<std::string, Type>{{begin + "LinearOpContext", linear},
                                       {begin + "MKLOpContext", linear},
                                       {begin + "ConvolutionOpContext", convolution},
                                       {begin + "ConvTransposeOpContext", transposed}};
  }();
  return made;
}

// Throws InvalidPickle for a state that IPEX would pack without looking.
inline void check_packed(const std::string& name, const Value& state) {
  if (!packed_classes().at(name).fits(state))
    throw InvalidPickle{"weights of " + name + " of other types than exports have"};
  const Value &weight = *state.items[0], &bias = *state.items[1];
  const bool linear = state.items.size() == 3, transposed = state.items.size() == 9;
  const std::size_t axes = weight.size.size();
  const bool empty = std::count(weight.size.begin(), weight.size.end(), 0) > 0;
  const bool floating = is_floating(weight.text) && weight.text != "Double";
  if (!floating || empty || !(linear ? axes == 2 : axes >= 3 && axes <= 5))
    throw InvalidPickle{"weights of " + name + " of " + weight.text + " along " + std::to_string(axes) + " axes"};
  std::vector<const Value*> lists;
  std::vector<std::int64_t> numbers;
  for (std::size_t index = 2; index < state.items.size(); ++index) {
    const Value& item = *state.items[index];
    if (item.kind == Kind::integer) numbers.push_back(item.integer);
    if (item.kind == Kind::list) lists.push_back(&item);
    for (const auto& one : item.items) numbers.push_back(one->integer);
  }
  for (const auto number : numbers)
    if (number < 0 || number > kMostPacked) throw InvalidPickle{"numbers of " + name + " out of range"};
  const auto has_zero = [](const Value& list) {
    return std::any_of(list.items.begin(), list.items.end(), [](const ValueRef& one) { return one->integer == 0; });
  };
  if (!linear) {
    for (std::size_t index = 0; index + 1 < lists.size(); ++index)
      if (lists[index]->items.size() != axes - 2)
        throw InvalidPickle{"a convolution with lists of other lengths than its axes"};
    if (!lists.back()->items.empty() && lists.back()->items.size() != axes)
      throw InvalidPickle{"a convolution with lists of other lengths than its axes"};
    // Strides and dilations.
    if (has_zero(*lists[0]) || has_zero(*lists[lists.size() - 2]))
      throw InvalidPickle{"a convolution with a stride or a dilation of zero"};
  }
  const std::int64_t groups = linear ? 1 : state.items[5]->integer;
  // Within 64 bits: a tensor has fewer elements than its file has bytes, and groups were compared with a bound.
  const std::int64_t channels = transposed ? weight.size[1] * groups : weight.size[0];
  if (bias.kind == Kind::tensor && (bias.text != weight.text || bias.size != std::vector<std::int64_t>{channels}))
    throw InvalidPickle{"a bias of " + bias.text + " that does not fit " + std::to_string(channels) + " outputs"};
  if (groups < 1 || weight.size[0] % groups != 0) throw InvalidPickle{std::to_string(groups) + " groups of weights"};
}

}  // namespace exported_model::detail
