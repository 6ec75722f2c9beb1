// Tensors in a pickle against the records that hold their numbers: the rules of runtime/artifact/pickles/tensors.py.
//
// Throws InvalidPickle for whatever would let PyTorch read beside the record, or take its bytes for numbers of another
// kind.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/pickle_values.h>
#include <exported_model/zip.h>

namespace exported_model::detail {

// The type of numbers in `torch FloatStorage`; empty for another name.
inline std::string storage_dtype(const std::string& name) {
  constexpr std::size_t kBegin = 6, kEnd = 7;  // "torch " and "Storage"
  if (name.size() <= kBegin + kEnd || !starts_with(name, "torch ") || !ends_with(name, "Storage")) return "";
  const std::string dtype = name.substr(kBegin, name.size() - kBegin - kEnd);
  return dtypes().count(dtype) > 0 ? dtype : "";
}

// The records of one pickle: `constants/…` or `data/…`; remembers which were named.
class Records {
 public:
  Records(const Zip& zip, std::string folder)
      : zip_(zip), folder_(std::move(folder)), left_(kMaxRepeated * zip.bytes()->size()) {}

  // What a persistent id stands for: ("storage", type of numbers, record, device, count).
  ValueRef storage(const Value& identity) {
    const auto& items = identity.items;
    const std::vector<Kind> kinds = {Kind::text, Kind::name, Kind::text, Kind::text, Kind::integer};
    const bool same = identity.kind == Kind::tuple && items.size() == kinds.size() &&
                      std::equal(kinds.begin(), kinds.end(), items.begin(),
                                 [](Kind kind, const ValueRef& item) { return item->kind == kind; });
    if (!same || items[0]->text != "storage") throw InvalidPickle{"a persistent id that is no storage"};
    const std::string dtype = storage_dtype(items[1]->text);
    if (dtype.empty()) throw InvalidPickle{"a storage of " + items[1]->text.substr(0, 80)};
    // Other devices would be read on the processor all the same.
    if (items[3]->text != "cpu") throw InvalidPickle{"numbers on another device than the processor"};
    const std::string& key = items[2]->text;
    const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    const std::string name = folder_ + "/" + key;
    const Record* record = digits ? zip_.find(name) : nullptr;
    if (record == nullptr) throw InvalidPickle{"numbers in a record '" + name.substr(0, 80) + "' that is not there"};
    const std::int64_t count = items[4]->integer, width = dtypes().at(dtype);
    if (count < 0 || record->size % static_cast<std::uint64_t>(width) != 0 ||
        static_cast<std::uint64_t>(count) != record->size / static_cast<std::uint64_t>(width))
      throw InvalidPickle{std::to_string(count) + " numbers of " + dtype + " in " + name + ", which has " +
                          std::to_string(record->size) + " bytes"};
    if (const auto& known = dtypes_.emplace(name, dtype).first->second; known != dtype)
      throw InvalidPickle{name + " as " + dtype + " and as " + known};
    if (record->size > left_) throw InvalidPickle{"the same records again and again"};
    left_ -= record->size;
    auto made = std::make_shared<Value>();
    made->kind = Kind::storage, made->text = dtype, made->integer = count;
    return made;
  }

  // Truth values are bytes of 0 or 1: kernels count and index with them. And each record has a tensor.
  void check_contents() const {
    for (const auto& [name, dtype] : dtypes_)
      if (dtype == "Bool" && !holds_truth_values(*zip_.find(name)))
        throw InvalidPickle{"truth values other than 0 and 1 in " + name};
    for (const auto& record : zip_.records())
      if (starts_with(record.name, folder_ + "/") && dtypes_.count(record.name) == 0)
        throw InvalidPickle{"no tensor for the record " + record.name};
  }

 private:
  bool holds_truth_values(const Record& record) const {
    constexpr std::uint64_t kBlock = 1 << 20;
    for (std::uint64_t done = 0; done < record.size; done += kBlock) {
      const std::string block = zip_.bytes()->at(record.start + done, std::min(kBlock, record.size - done));
      if (std::any_of(block.begin(), block.end(), [](char byte) { return byte != 0 && byte != 1; })) return false;
    }
    return true;
  }

  const Zip& zip_;
  std::string folder_;
  std::uint64_t left_;
  std::map<std::string, std::string> dtypes_;
};

inline std::vector<std::int64_t> integers(const Value& value) {
  std::vector<std::int64_t> numbers;
  bool whole = value.kind == Kind::tuple;
  for (const auto& item : value.items) {
    whole = whole && item->kind == Kind::integer;
    numbers.push_back(item->integer);
  }
  if (!whole) throw InvalidPickle{"sizes or strides that are not whole numbers"};
  return numbers;
}

// `number` becomes its sum or product with others, or stays at the largest number where that is larger.
inline void add_up_to_limit(std::int64_t& number, std::int64_t other) {
  if (__builtin_add_overflow(number, other, &number)) number = std::numeric_limits<std::int64_t>::max();
}

inline std::int64_t product_up_to_limit(std::int64_t one, std::int64_t other) {
  std::int64_t product = 0;
  return __builtin_mul_overflow(one, other, &product) ? std::numeric_limits<std::int64_t>::max() : product;
}

// `fields`: storage, offset, sizes, strides, …, whether it has a gradient, hooks.
inline ValueRef tensor_of(const std::vector<ValueRef>& fields) {
  const Value& stored = *fields[0];
  if (fields[1]->kind != Kind::integer || fields[fields.size() - 2]->kind != Kind::boolean ||
      fields.back()->kind != Kind::hooks)
    throw InvalidPickle{"a tensor whose offset, gradient or hooks are of another type"};
  const std::int64_t offset = fields[1]->integer;
  const auto sizes = integers(*fields[2]), strides = integers(*fields[3]);
  if (sizes.size() != strides.size() || sizes.size() > kMaxAxes)
    throw InvalidPickle{"a tensor of " + std::to_string(sizes.size()) + " sizes and " + std::to_string(strides.size()) +
                        " strides"};
  const auto negative = [](std::int64_t number) { return number < 0; };
  if (offset < 0 || std::any_of(sizes.begin(), sizes.end(), negative) ||
      std::any_of(strides.begin(), strides.end(), negative))
    throw InvalidPickle{"a tensor with a negative offset, size or stride"};
  const bool empty = std::count(sizes.begin(), sizes.end(), 0) > 0;
  // Behind the last element that it reaches, and how many it shows.
  std::int64_t end = offset, shown = empty ? 0 : 1;
  if (!empty) {
    add_up_to_limit(end, 1);
    for (std::size_t axis = 0; axis < sizes.size(); ++axis) {
      add_up_to_limit(end, product_up_to_limit(sizes[axis] - 1, strides[axis]));
      shown = product_up_to_limit(shown, sizes[axis]);
    }
  }
  if (end > stored.integer || shown > std::max(stored.integer, kMaxExpanded))
    throw InvalidPickle{"a tensor that reaches beyond the " + std::to_string(stored.integer) +
                        " numbers of its record"};
  auto made = std::make_shared<Value>();
  made->kind = Kind::tensor, made->text = stored.text, made->size = sizes, made->contiguous = true;
  std::int64_t step = 1;
  for (std::size_t axis = sizes.size(); axis-- > 0;) {
    made->contiguous = made->contiguous && (strides[axis] == step || sizes[axis] == 1);
    step = product_up_to_limit(step, sizes[axis]);
  }
  return made;
}

inline const std::vector<ValueRef>& tensor_fields(const Value& arguments, std::size_t count) {
  if (arguments.kind != Kind::tuple || arguments.items.size() != count)
    throw InvalidPickle{"a tensor that is not described by " + std::to_string(count) + " fields"};
  return arguments.items;
}

// A plain tensor: storage, offset, sizes, strides, whether it has a gradient, hooks.
inline ValueRef rebuilt(const Value& arguments) {
  const auto& fields = tensor_fields(arguments, 6);
  const Value& stored = *fields[0];
  if (stored.kind != Kind::storage || is_quantised(stored.text))
    throw InvalidPickle{"a tensor without a storage, or of quantised numbers"};
  if (fields[4]->kind == Kind::boolean && fields[4]->integer == 1 && !is_floating(stored.text))
    throw InvalidPickle{"a gradient for numbers of " + stored.text};
  return tensor_of(fields);
}

// A quantised tensor: the same with scheme, scales and zero points before the last two.
inline ValueRef rebuilt_quantised(const Value& arguments) {
  const auto& fields = tensor_fields(arguments, 7);
  const Value& stored = *fields[0];
  if (stored.kind != Kind::storage || !is_quantised(stored.text) || fields[5]->kind != Kind::boolean ||
      fields[5]->integer == 1)
    throw InvalidPickle{"a quantised tensor without a storage of quantised numbers, or with a gradient"};
  const ValueRef tensor = tensor_of(fields);
  const Value& scheme = *fields[4];
  if (scheme.kind != Kind::tuple || scheme.items.empty() || scheme.items[0]->kind != Kind::name)
    throw InvalidPickle{"a quantised tensor without a scheme"};
  std::vector<std::string> kinds;
  for (std::size_t index = 1; index < scheme.items.size(); ++index) kinds.push_back(kind_of(*scheme.items[index]));
  const std::string& name = scheme.items[0]->text;
  if (name == kPerTensor && kinds == std::vector<std::string>{"float", "int"}) return tensor;
  if (name != kPerChannel || kinds != std::vector<std::string>{"Tensor", "Tensor", "int"})
    throw InvalidPickle{"a quantised tensor by a scheme with other numbers than exports have"};
  const std::int64_t axis = scheme.items[3]->integer;
  if (axis < 0 || axis >= static_cast<std::int64_t>(tensor->size.size()))
    throw InvalidPickle{"scales along axis " + std::to_string(axis) + " of " + std::to_string(tensor->size.size())};
  const std::vector<std::int64_t> rows = {tensor->size[static_cast<std::size_t>(axis)]};
  const Value &scales = *scheme.items[1], &zero_points = *scheme.items[2];
  if (scales.text != "Double" || scales.size != rows || !scales.contiguous)
    throw InvalidPickle{"scales of " + scales.text + " that do not fit " + std::to_string(rows[0]) + " rows"};
  if (zero_points.text != "Long" || zero_points.size != rows || !zero_points.contiguous)
    throw InvalidPickle{"zero points of " + zero_points.text + " that do not fit " + std::to_string(rows[0]) + " rows"};
  return tensor;
}

}  // namespace exported_model::detail
