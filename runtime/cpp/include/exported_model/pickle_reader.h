// A reader of pickles that runs nothing: it keeps a stack of values and checks each step. The rules of
// runtime/artifact/pickles/interpreter.py.
//
// TorchScript writes pickles of one form: memo entries in order, containers filled at once and before anything refers
// to them, nothing left on the stack. That form is demanded, for what is outside of it (cycles, lists that change
// after they were given a type, entries that were never made) is where the unpickler trusts the file.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/pickle_bytes.h>
#include <exported_model/pickle_packed.h>
#include <exported_model/pickle_tensors.h>
#include <exported_model/pickle_values.h>

namespace exported_model::detail {

class PickleReader {
 public:
  // `records` are those of its tensors, `classes` those that the code declares. All outlive this object.
  PickleReader(const std::string& data, Records& records, const Classes& classes)
      : bytes_(data), records_(records), classes_(classes) {}

  // The value that TorchScript's unpickler would make. Throws InvalidPickle.
  ValueRef run() {
    if (bytes_.take(2) != "\x80\x02") throw InvalidPickle{"another protocol than 2"};
    for (int count = 0; count < kMaxOpcodes; ++count) {
      const char code = bytes_.take(1)[0];
      if (code != '.') {
        step(code);
        continue;
      }
      if (!bytes_.at_end() || !marks_.empty() || stack_.size() != 1)
        throw InvalidPickle{"more or less than one value at its end"};
      return stack_[0];
    }
    throw InvalidPickle{"more than " + std::to_string(kMaxOpcodes) + " opcodes"};
  }

 private:
  void step(char code) {
    switch (code) {
      case 'K': return push_integer(static_cast<std::int64_t>(bytes_.number(1)));
      case 'M': return push_integer(static_cast<std::int64_t>(bytes_.number(2)));
      case 'J': return push_integer(static_cast<std::int32_t>(bytes_.number(4)));
      case 'G': bytes_.number(8); return push(Kind::real);
      case '\x8a': return push_long();
      case 'N': return push(Kind::none);
      case '\x88': return push_integer(1, Kind::boolean);
      case '\x89': return push_integer(0, Kind::boolean);
      case 'X': return push_text();
      case 'q': return remember(bytes_.number(1));
      case 'r': return remember(bytes_.number(4));
      case 'h': return recall(bytes_.number(1));
      case 'j': return recall(bytes_.number(4));
      case '(': return marks_.push_back(stack_.size());
      case ')': return push_tuple({});
      case 't': return push_tuple(since_mark());
      case '\x85': return push_tuple(popped(1));
      case '\x86': return push_tuple(popped(2));
      case '\x87': return push_tuple(popped(3));
      case ']': push(Kind::list); stack_.back()->depth = 1; return;
      case '}': push(Kind::dict); stack_.back()->depth = 1; return;
      case 'e': return fill_list();
      case 'u': return fill_dict();
      case 'c': return push_name();
      case 'Q': return stack_.push_back(records_.storage(*pop()));
      case '\x81': return make_object();
      case 'b': return build();
      case 'R': return call();
      default: throw InvalidPickle{"the pickle opcode " + std::to_string(static_cast<unsigned char>(code)), true};
    }
  }

  // The stack. A mark is a place in it, below which nothing is taken while the mark stands.

  void push(Kind kind) {
    stack_.push_back(std::make_shared<Value>());
    stack_.back()->kind = kind;
  }

  void push_integer(std::int64_t integer, Kind kind = Kind::integer) {
    push(kind);
    stack_.back()->integer = integer;
  }

  void push_long() {
    if (bytes_.take(1) != "\x08") throw InvalidPickle{"a long number of other than 8 bytes"};
    push_integer(static_cast<std::int64_t>(bytes_.number(8)));
  }

  void push_text() {
    std::string text = bytes_.text(bytes_.number(4));
    push(Kind::text);
    stack_.back()->text = std::move(text);
  }

  void push_tuple(std::vector<ValueRef> items) {
    push(Kind::tuple);
    stack_.back()->depth = depth_of(items);
    stack_.back()->items = std::move(items);
  }

  ValueRef pop() {
    if (stack_.size() <= (marks_.empty() ? 0 : marks_.back()))
      throw InvalidPickle{"a value that is taken and is not there"};
    ValueRef value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }

  std::vector<ValueRef> popped(std::size_t count) {
    std::vector<ValueRef> items;
    for (std::size_t index = 0; index < count; ++index) items.insert(items.begin(), pop());
    return items;
  }

  std::vector<ValueRef> since_mark() {
    if (marks_.empty()) throw InvalidPickle{"the end of a container that has no beginning"};
    const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<ValueRef> items(begin, stack_.end());
    stack_.erase(begin, stack_.end());
    marks_.pop_back();
    return items;
  }

  void remember(std::uint64_t place) {
    const ValueRef value = pop();
    stack_.push_back(value);
    if (place != memo_.size())
      throw InvalidPickle{"memo entry " + std::to_string(place) + " after " + std::to_string(memo_.size()) + " others"};
    const bool list = value->kind == Kind::list && value->items.empty();
    if (list || value->kind == Kind::unbuilt || (value->kind == Kind::dict && value->attributes.empty()))
      throw InvalidPickle{"a memo entry for what is not complete"};
    memo_.push_back(value);
  }

  void recall(std::uint64_t place) {
    if (place >= memo_.size())
      throw InvalidPickle{"memo entry " + std::to_string(place) + " of " + std::to_string(memo_.size())};
    stack_.push_back(memo_[static_cast<std::size_t>(place)]);
  }

  // Containers.

  static int depth_of(const std::vector<ValueRef>& items) {
    int deepest = 0;
    for (const auto& item : items) deepest = std::max(deepest, item->depth);
    if (deepest >= kMaxDepth)
      throw InvalidPickle{"containers in one another, more than " + std::to_string(kMaxDepth) + " deep"};
    return deepest + 1;
  }

  void fill_list() {
    auto items = since_mark();
    const ValueRef filled = pop();
    if (filled->kind != Kind::list || !filled->items.empty() || !filled->text.empty())
      throw InvalidPickle{"items for what is no empty list"};
    filled->depth = depth_of(items);
    filled->items = std::move(items);
    stack_.push_back(filled);
  }

  void fill_dict() {
    const auto items = since_mark();
    const ValueRef filled = pop();
    if (filled->kind != Kind::dict || !filled->attributes.empty() || items.size() % 2 != 0)
      throw InvalidPickle{"entries for what is no empty dict, or a key without a value"};
    filled->depth = depth_of(items);
    for (std::size_t index = 0; index < items.size(); index += 2)
      if (items[index]->kind != Kind::text || !filled->attributes.emplace(items[index]->text, items[index + 1]).second)
        throw InvalidPickle{"a dict with a key twice, or with keys that are no texts"};
    stack_.push_back(filled);
  }

  // Names, functions, objects.

  static std::string dotted(std::string name) {
    std::replace(name.begin(), name.end(), ' ', '.');
    return name;
  }

  void push_name() {
    const std::string module = bytes_.line(), name = module + " " + bytes_.line();
    const std::string qualified = dotted(name);
    const bool known = name == kTensorFunction || name == kQuantisedFunction || name == kHooksFunction ||
                       name == kPerTensor || name == kPerChannel || list_functions().count(name) > 0 ||
                       packed_classes().count(qualified) > 0 || !storage_dtype(name).empty();
    if (!known && !is_own_class(qualified)) throw InvalidPickle{"the pickled name " + name.substr(0, 120), true};
    if (!known && classes_.count(qualified) == 0)
      throw InvalidPickle{"the class " + qualified.substr(0, 120) + ", which its code does not declare"};
    push(Kind::name);
    stack_.back()->text = name;
  }

  void make_object() {
    const ValueRef arguments = pop(), name = pop();
    const std::string qualified = name->kind == Kind::name ? dotted(name->text) : "";
    const bool known = packed_classes().count(qualified) > 0 || classes_.count(qualified) > 0;
    if (arguments->kind != Kind::tuple || !arguments->items.empty() || !known)
      throw InvalidPickle{"an object of what is no class, or made with arguments"};
    push(Kind::unbuilt);
    stack_.back()->text = qualified;
  }

  void build() {
    const ValueRef state = pop(), made = pop();
    if (made->kind != Kind::unbuilt) throw InvalidPickle{"attributes for what is no new object"};
    if (packed_classes().count(made->text) > 0) check_packed(made->text, *state);
    else check_attributes(made->text, *state);
    push(Kind::object);
    stack_.back()->text = made->text;
  }

  void check_attributes(const std::string& name, const Value& state) const {
    const auto& declared = classes_.at(name).attributes;
    const bool same = state.kind == Kind::dict && state.attributes.size() == declared.size() &&
                      std::equal(declared.begin(), declared.end(), state.attributes.begin(),
                                 [](const auto& one, const auto& other) { return one.first == other.first; });
    if (!same) throw InvalidPickle{"an object of " + name + " with other attributes than its code declares"};
    for (const auto& [attribute, type] : declared)
      if (!type.fits(*state.attributes.at(attribute)))
        throw InvalidPickle{name + "." + attribute + " of another type than its code declares"};
  }

  void call() {
    const ValueRef arguments = pop(), name = pop();
    const std::string called = name->kind == Kind::name ? name->text : "";
    const bool tuple = arguments->kind == Kind::tuple;
    const auto list = list_functions().find(called);
    if (called == kTensorFunction) return stack_.push_back(rebuilt(*arguments));
    if (called == kQuantisedFunction) return stack_.push_back(rebuilt_quantised(*arguments));
    if (called == kHooksFunction && tuple && arguments->items.empty()) return push(Kind::hooks);
    if (list == list_functions().end() || !tuple || arguments->items.size() != 1)
      throw InvalidPickle{"a call of what is no function, or with other arguments than exports have"};
    const ValueRef& typed = arguments->items[0];
    const auto other = [&](const ValueRef& item) { return kind_of(*item) != list->second; };
    const auto& items = typed->items;
    if (typed->kind != Kind::list || !typed->text.empty() || std::any_of(items.begin(), items.end(), other))
      throw InvalidPickle{"a list of " + list->second + " that is none, or holds something else"};
    typed->text = list->second;
    stack_.push_back(typed);
  }

  PickleBytes bytes_;
  Records& records_;
  const Classes& classes_;
  std::vector<ValueRef> stack_, memo_;
  std::vector<std::size_t> marks_;
};

}  // namespace exported_model::detail
