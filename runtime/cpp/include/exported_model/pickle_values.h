// What the reader of pickles puts on its stack, the types that code declares, and the rules for both, as data:
// runtime/artifact/pickles/rules.py, values.py and types.py. Everything that is not here is refused.
//
// TorchScript's unpickler trusts its input: it indexes without looking, fills in what it is told, and reads numbers
// where the pickle says they are. So each rule stands for a check that it does not make.
#pragma once

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace exported_model::detail {

// Real files have some thousands: about thirty per tensor.
constexpr int kMaxOpcodes = 300'000;
// Tuples, lists and dicts in one another. A quantised tensor in an object's attributes is five deep.
constexpr int kMaxDepth = 8;
// PyTorch has no limit for axes, its kernels have.
constexpr std::size_t kMaxAxes = 16;
// Elements that a tensor may show more often than its record holds them (strides of zero): 64 MB in fp32.
constexpr std::int64_t kMaxExpanded = 1 << 24;
// The unpickler reads a record again each time that it is named: so many times the file's size in all.
constexpr std::uint64_t kMaxRepeated = 8;

// Storage → bytes per element. PyTorch has more types of numbers; no model does. The last two are in quantised
// tensors.
inline const std::map<std::string, std::int64_t>& dtypes() {
  static const std::map<std::string, std::int64_t> known = {
      {"Float", 4}, {"Double", 8}, {"Half", 2}, {"BFloat16", 2}, {"Long", 8},  {"Int", 4},
      {"Short", 2}, {"Char", 1},   {"Byte", 1}, {"Bool", 1},     {"QInt8", 1}, {"QUInt8", 1}};
  return known;
}

inline bool is_floating(const std::string& dtype) {
  return dtype == "Float" || dtype == "Double" || dtype == "Half" || dtype == "BFloat16";
}

inline bool is_quantised(const std::string& dtype) { return dtype == "QInt8" || dtype == "QUInt8"; }

// Functions that a pickle may call, by module and name.
constexpr const char* kTensorFunction = "torch._utils _rebuild_tensor_v2";
constexpr const char* kQuantisedFunction = "torch._utils _rebuild_qtensor";
constexpr const char* kHooksFunction = "collections OrderedDict";  // the empty place of backward hooks
constexpr const char* kPerTensor = "torch per_tensor_affine";
constexpr const char* kPerChannel = "torch per_channel_affine";

// Functions that give a list the type of its elements. Lists without are refused, and dicts as well: nothing says what
// they hold.
inline const std::map<std::string, std::string>& list_functions() {
  static const std::map<std::string, std::string> known = {{"torch.jit._pickle build_tensorlist", "Tensor"},
                                                           {"torch.jit._pickle build_intlist", "int"},
                                                           {"torch.jit._pickle build_doublelist", "float"},
                                                           {"torch.jit._pickle build_boollist", "bool"}};
  return known;
}

inline bool is_word(const std::string& text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](unsigned char letter) {
    return letter < 128 && (std::isalnum(letter) != 0 || letter == '_');
  });
}

inline std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts(1);
  for (const char letter : text)
    if (letter == at) parts.emplace_back();
    else parts.back() += letter;
  return parts;
}

// The file's own classes, which its code declares. Those of C++ libraries are none, nor are those of PyTorch's
// quantised modules, which get other attributes than the code says.
inline bool is_own_class(const std::string& name) {
  const auto parts = split(name, '.');
  if (parts.size() < 2 || parts[0] != "__torch__") return false;
  if (parts.size() > 2 && parts[1] == "torch" && parts[2] == "classes") return false;
  const auto sound = [](const std::string& part) { return is_word(part) && part != "quantized"; };
  return std::all_of(parts.begin(), parts.end(), sound);
}

// What is wrong with a pickle. `named`: it names a function, class or opcode that exports do not use.
struct InvalidPickle {
  std::string problem;
  bool named = false;
};

enum class Kind {
  none, boolean, integer, real, text, name, storage, tensor, tuple, list, dict, unbuilt, object, hooks
};

struct Value;
using ValueRef = std::shared_ptr<Value>;

struct Value {
  Kind kind = Kind::none;
  // An integer, a truth value, or the count of numbers in a storage.
  std::int64_t integer = 0;
  // A text; the name of a function, class or object; the type of numbers of a storage or tensor; or the type of a
  // list's elements, empty while nothing has given it one.
  std::string text;
  std::vector<std::int64_t> size;  // of a tensor
  bool contiguous = false;
  std::vector<ValueRef> items;                  // of a tuple or list
  std::map<std::string, ValueRef> attributes;  // of a dict: those of an object, before BUILD
  int depth = 0;
};

// The name of a plain value's type or of an object's class; empty for all that is no value of its own.
inline std::string kind_of(const Value& value) {
  switch (value.kind) {
    case Kind::none: return "NoneType";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::real: return "float";
    case Kind::text: return "str";
    case Kind::tensor: return "Tensor";
    case Kind::object: return value.text;
    default: return "";
  }
}

// A type as code declares it: the name of a plain type or class, or `List`, `Tuple` or `Optional` of `inner`.
struct Type {
  std::string kind;
  std::vector<Type> inner;

  // Whether a value has exactly this type: no number counts for one of another kind.
  bool fits(const Value& value) const {
    if (kind == "Optional") return value.kind == Kind::none || inner[0].fits(value);
    if (kind == "List") return value.kind == Kind::list && value.text == inner[0].kind;
    if (kind == "Tuple") {
      if (value.kind != Kind::tuple || value.items.size() != inner.size()) return false;
      for (std::size_t index = 0; index < inner.size(); ++index)
        if (!inner[index].fits(*value.items[index])) return false;
      return true;
    }
    return kind_of(value) == kind;
  }
};

// A class that the code declares.
struct Class {
  std::map<std::string, Type> attributes;
  std::vector<std::string> methods;
};

using Classes = std::map<std::string, Class>;

}  // namespace exported_model::detail
