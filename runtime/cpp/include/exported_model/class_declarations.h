// The classes that an artifact's code declares: their attributes with types, and the names of their methods. The
// rules of runtime/artifact/pickles/classes.py.
//
// Read by libtorch's own parser, the one that its compiler uses. It is recursive: source_reader.h has bounded how
// deep the code nests. Throws InvalidPickle for declarations that exports do not contain: TorchScript would fill such
// a class by other rules than those of pickle_reader.h.
#pragma once

#include <torch/csrc/jit/frontend/parser.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <exported_model/pickle_values.h>
#include <exported_model/zip_records.h>

namespace exported_model::detail {

// `a.b.c`, or empty for any other expression.
inline std::string dotted_name(const torch::jit::Expr& expression) {
  if (expression.kind() == torch::jit::TK_VAR) return torch::jit::Var(expression).name().name();
  if (expression.kind() != '.') return "";
  const torch::jit::Select select(expression);
  const std::string begin = dotted_name(select.value());
  return begin.empty() ? "" : begin + "." + select.selector().name();
}

// The type that an expression writes, such as `Optional[Tensor]`, `List[int]` or `__torch__.a.B`; none where exports
// hold no value of that type.
inline std::optional<Type> parse_type(const torch::jit::Expr& expression, int depth = 0) {
  if (expression.kind() == torch::jit::TK_NONE_TYPE) return Type{"NoneType", {}};
  const std::string name = dotted_name(expression);
  if (name == "Tensor" || name == "int" || name == "float" || name == "bool" || name == "str" || name == "NoneType" ||
      starts_with(name, "__torch__."))
    return Type{name, {}};
  if (expression.kind() != torch::jit::TK_SUBSCRIPT || depth >= kMaxDepth) return std::nullopt;
  const torch::jit::Subscript subscript(expression);
  Type type{dotted_name(subscript.value()), {}};
  for (const auto& inner : subscript.subscript_exprs()) {
    const auto found = parse_type(inner, depth + 1);
    if (!found) return std::nullopt;
    type.inner.push_back(*found);
  }
  if (type.kind == "Tuple") return type;
  if (type.inner.size() != 1) return std::nullopt;
  // Lists carry the type of their elements in the pickle; for other elements PyTorch has no such mark.
  const auto& elements = list_functions();
  const bool marked = std::any_of(elements.begin(), elements.end(),
                                  [&](const auto& known) { return known.second == type.inner[0].kind; });
  if (type.kind == "Optional" || (type.kind == "List" && marked)) return type;
  return std::nullopt;
}

// `["a", "b", ]`
inline bool is_list_of_names(const torch::jit::Expr& expression) {
  if (expression.kind() != torch::jit::TK_LIST_LITERAL) return false;
  for (const auto& item : torch::jit::ListLiteral(expression).inputs())
    if (item.kind() != torch::jit::TK_STRINGLITERAL) return false;
  return true;
}

// Adds `name : Type`, or `__annotations__["name"] = Type` for a name that is none in Python, to the attributes. Lists
// of names (`__parameters__ = ["a", ]`, and the start of annotations) are passed over.
inline void read_assignment(const std::string& name, const torch::jit::Assign& statement, Class& made) {
  const auto targets = statement.lhs_list();
  std::string attribute;
  std::optional<torch::jit::Expr> written;
  if (targets.size() == 1 && targets[0].kind() == torch::jit::TK_VAR) {
    const std::string target = dotted_name(targets[0]);
    const bool list = target == "__parameters__" || target == "__buffers__" || target == "__annotations__";
    const bool assigned = statement.rhs().present() && !statement.type().present();
    if (list && assigned && is_list_of_names(statement.rhs().get())) return;
    if (statement.type().present() && !statement.rhs().present()) {
      attribute = target;
      written = statement.type().get();
    }
  } else if (targets.size() == 1 && targets[0].kind() == torch::jit::TK_SUBSCRIPT && statement.rhs().present()) {
    const torch::jit::Subscript target(targets[0]);
    const auto index = target.subscript_exprs();
    if (dotted_name(target.value()) == "__annotations__" && index.size() == 1 &&
        index[0].kind() == torch::jit::TK_STRINGLITERAL) {
      attribute = torch::jit::StringLiteral(index[0]).text();
      written = statement.rhs().get();
    }
  }
  if (!written) throw InvalidPickle{name + ": a statement in its declaration that declares no attribute"};
  const auto type = parse_type(*written);
  if (!type || !made.attributes.emplace(attribute, *type).second)
    throw InvalidPickle{"the attribute " + name + "." + attribute +
                        ", declared twice or of a type that exports do not hold"};
}

inline void read_class(const std::string& module, const torch::jit::ClassDef& declared, Classes& classes) {
  const std::string name = module + "." + declared.name().name();
  if (!declared.superclass().present() || dotted_name(declared.superclass().get()) != "Module")
    throw InvalidPickle{name + ": what is no class of the form `class X(Module)`"};
  if (classes.count(name) > 0 || !is_own_class(name))
    throw InvalidPickle{"the class " + name + " twice, or under a name that PyTorch treats in its own way"};
  Class made;
  for (const auto& statement : declared.body()) {
    if (statement.kind() == torch::jit::TK_ASSIGN) {
      read_assignment(name, torch::jit::Assign(statement), made);
      continue;
    }
    if (statement.kind() != torch::jit::TK_DEF)
      throw InvalidPickle{name + ": a statement in its declaration that declares no attribute"};
    const std::string method = torch::jit::Def(statement).name().name();
    // `__setstate__` would run while the file is read, and leave attributes as it likes.
    if (starts_with(method, "__") || std::count(made.methods.begin(), made.methods.end(), method) > 0)
      throw InvalidPickle{"the method " + name + "." + method};
    made.methods.push_back(method);
  }
  classes.emplace(name, std::move(made));
}

// The dotted name of the module that a record `code/__torch__/a/b.py` is.
inline std::string module_of(const std::string& record) {
  constexpr std::size_t kBegin = 5, kEnd = 3;  // "code/" and ".py"
  const auto parts = split(record.substr(kBegin, record.size() - kBegin - kEnd), '/');
  std::string module;
  for (const auto& part : parts) {
    if (!is_word(part)) throw InvalidPickle{"code in a record named " + record, true};
    module += (module.empty() ? "" : ".") + part;
  }
  return module;
}

// Adds the classes of one record. Throws std::exception, too, where TorchScript cannot parse it.
inline void read_declarations(const std::string& record, const std::string& text, Classes& classes) {
  const std::string module = module_of(record);
  torch::jit::Parser parser(std::make_shared<torch::jit::Source>(text, record, 1));
  while (parser.lexer().cur().kind != torch::jit::TK_EOF) {
    const int kind = parser.lexer().cur().kind;
    if (kind == torch::jit::TK_DEF) parser.parseFunction(false);
    else if (kind == torch::jit::TK_CLASS_DEF) read_class(module, torch::jit::ClassDef(parser.parseClass()), classes);
    else throw InvalidPickle{record + ": what is no class and no function"};
  }
}

}  // namespace exported_model::detail
