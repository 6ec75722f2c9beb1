// Arguments that operators do not check themselves, compared with the rules of operators.def before any code of a file
// runs. The rules of runtime/artifact/argument_check.py: a number that stands for an entry of a table, or that an
// operator trusts, is a constant within bounds. Nothing is followed from one method into another.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/api/function_impl.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <cmath>
#include <cstdint>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <exported_model/errors.h>
#include <exported_model/operators.h>
#include <exported_model/zip_records.h>

namespace exported_model::detail {

struct Enumeration {
  std::string_view argument;
  double lowest, highest;
  std::string_view source;  // the operator whose result is such a number
};
struct Bounds {
  std::string_view operator_name, argument;
  double lowest, highest;
};
struct Exception {
  std::string_view operator_name, argument;
  double number;
};
struct Whole {
  std::string_view operator_name, argument, dtype;
};

constexpr Enumeration kEnumerations[] = {
#define ENUMERATION(argument, lowest, highest, source) {#argument, lowest, highest, "prim::" #source},
#include <exported_model/operators.def>
};
constexpr Bounds kBounds[] = {
#define BOUNDS(space, name, argument, lowest, highest) {#space "::" #name, #argument, lowest, highest},
#include <exported_model/operators.def>
};
constexpr Exception kExceptions[] = {
#define EXCEPT(space, name, argument, number) {#space "::" #name, #argument, number},
#include <exported_model/operators.def>
};
constexpr Whole kWholes[] = {
#define WHOLE(space, name, argument, dtype) {#space "::" #name, #argument, #dtype},
#include <exported_model/operators.def>
};

// The graphs of a module, read before they run.
class ArgumentCheck {
 public:
  // `allow`: operators that the caller vouches for, with any arguments.
  ArgumentCheck(const std::string& origin, const std::vector<std::string>& allow)
      : origin_(origin), allow_(allow.begin(), allow.end()) {}

  // Throws OperatorNotAllowedError at the first argument that is not as it has to be.
  void check(const torch::jit::Module& module) {
    std::vector<torch::jit::Module> waiting = {module};
    std::vector<c10::ClassTypePtr> classes;
    while (!waiting.empty()) {
      const torch::jit::Module owner = waiting.back();
      waiting.pop_back();
      if (!classes_.insert(owner.type().get()).second) continue;
      classes.push_back(owner.type());
      for (const auto& child : owner.children()) waiting.push_back(child);
    }
    for (const auto& type : classes)
      for (torch::jit::Function* method : type->methods()) check(*torch::jit::toGraphFunction(*method).graph()->block());
  }

 private:
  using Value = torch::jit::Value;
  using Node = torch::jit::Node;

  void check(const torch::jit::Block& whole) {
    std::vector<const torch::jit::Block*> blocks = {&whole};
    while (!blocks.empty()) {
      const torch::jit::Block* block = blocks.back();
      blocks.pop_back();
      for (const Node* node : block->nodes()) {
        for (const torch::jit::Block* inner : node->blocks()) blocks.push_back(inner);
        check(*node);
      }
    }
  }

  void check(const Node& node) const {
    const std::string name = node.kind().toQualString();
    if (name == "prim::CallFunction") refuse("calls a function that belongs to no class");
    if (name == "prim::CreateObject") refuse("makes an object of a class");
    if (name == "prim::CallMethod") {
      const auto receiver = node.input(0)->type()->cast<c10::ClassType>();
      // Which methods code may call of classes of C++ was checked in its text.
      const bool cpp = receiver && receiver->name() && starts_with(receiver->name()->qualifiedName(), "__torch__.torch.classes.");
      if (!cpp && (!receiver || classes_.count(receiver.get()) == 0))
        refuse("calls a method of an object that is no part of the model");
    }
    const c10::FunctionSchema* schema = node.maybeSchema();
    if (schema == nullptr || allow_.count(name) > 0) return;
    for (std::size_t place = 0; place < schema->arguments().size() && place < node.inputs().size(); ++place)
      check(name, schema->arguments()[place].name(), *node.input(place));
    for (const auto& rule : kWholes)
      if (rule.operator_name == name && is_fraction(argument(node, *schema, rule.argument)) &&
          !has_fractions(argument(node, *schema, rule.dtype)))
        refuse("calls " + name + " with a fraction as " + std::string(rule.argument),
               "a whole number, or a dtype that has fractions");
  }

  // The constant that an argument is; nothing where there is no such argument, or it is computed.
  static std::optional<c10::IValue> argument(const Node& node, const c10::FunctionSchema& schema,
                                             std::string_view name) {
    const auto place = schema.argumentIndexWithName(std::string(name));
    return place ? torch::jit::toIValue(node.input(*place)) : std::nullopt;
  }

  static bool is_fraction(const std::optional<c10::IValue>& value) {
    return value && value->isDouble() && std::trunc(value->toDouble()) != value->toDouble();
  }

  // None, float64, float32, float16 and bfloat16.
  static bool has_fractions(const std::optional<c10::IValue>& dtype) {
    if (!dtype || dtype->isNone()) return dtype.has_value();
    const std::int64_t number = dtype->isInt() ? dtype->toInt() : 0;
    return number == 5 || number == 6 || number == 7 || number == 15;
  }

  void check(const std::string& name, const std::string& argument, const Value& value) const {
    for (const auto& rule : kEnumerations)
      if (rule.argument == argument && rule.source != value.node()->kind().toQualString() &&
          !within(value, rule.lowest, rule.highest))
        refuse(name, argument, value, constants(rule.lowest, rule.highest));
    for (const auto& rule : kBounds)
      if (rule.operator_name == name && rule.argument == argument && !within(value, rule.lowest, rule.highest))
        refuse(name, argument, value, constants(rule.lowest, rule.highest));
    for (const auto& rule : kExceptions)
      if (rule.operator_name == name && rule.argument == argument) {
        const auto constant = torch::jit::toIValue(&value);
        if (constant && has(*constant, rule.number)) refuse(name, argument, value, "another number");
      }
  }

  // Whether a constant is this number, or is a tensor of whole numbers with it among them.
  static bool has(const c10::IValue& value, double expected) {
    if (!value.isTensor()) return number(value) == expected;
    const at::Tensor& tensor = value.toTensor();
    return !tensor.is_floating_point() && !tensor.is_complex() && tensor.eq(expected).any().item<bool>();
  }

  static std::optional<double> number(const c10::IValue& value) {
    if (value.isBool()) return value.toBool() ? 1 : 0;
    if (value.isInt()) return static_cast<double>(value.toInt());
    if (value.isDouble()) return value.toDouble();
    return std::nullopt;
  }

  // Texts, such as the padding `same`, are no numbers, and operators compare them themselves.
  static bool within(const c10::IValue& value, double lowest, double highest) {
    if (value.isList()) {
      for (const c10::IValue& item : value.toListRef())
        if (!within(item, lowest, highest)) return false;
      return true;
    }
    const auto found = number(value);
    return value.isNone() || value.isString() || (found && lowest <= *found && *found <= highest);
  }

  static bool within(const Value& value, double lowest, double highest) {
    // Of a list that something else uses, its items could be changed there.
    if (value.node()->kind() == c10::prim::ListConstruct && value.uses().size() == 1) {
      for (const Value* item : value.node()->inputs())
        if (!constant_within(*item, lowest, highest)) return false;
      return true;
    }
    return constant_within(value, lowest, highest);
  }

  static bool constant_within(const Value& value, double lowest, double highest) {
    const auto constant = torch::jit::toIValue(&value);
    return constant && within(*constant, lowest, highest);
  }

  static std::string constants(double lowest, double highest) {
    if (lowest > highest) return "None";
    std::ostringstream text;
    text.precision(10);
    text << "a constant from " << lowest << " to " << highest;
    return text.str();
  }

  [[noreturn]] void refuse(const std::string& name, const std::string& argument, const Value& value,
                           const std::string& expected) const {
    std::ostringstream shown;
    if (const auto constant = torch::jit::toIValue(&value); constant && number(*constant))
      shown << *constant;
    else
      shown << "that is no such constant";
    refuse("calls " + name + " with " + argument + " " + shown.str(), expected);
  }

  [[noreturn]] void refuse(const std::string& found, const std::string& expected = kWhatExportsContain) const {
    throw OperatorNotAllowedError(origin_ + ": its code " + found, expected, kLeave);
  }

  const std::string origin_;
  const std::set<std::string> allow_;
  std::set<const c10::ClassType*> classes_;  // of the model and its parts
};

}  // namespace exported_model::detail
