// What an artifact's code may name and its pickles may hold: read from the archive before libtorch does. The rules of
// runtime/artifact/operator_allowlist.py and runtime/artifact/pickles.
//
// TorchScript has no Python in it, but its operators reach outside: `aten::save` writes files, `aten::from_file` maps
// them, custom classes load libraries, and many operators and the unpickler trust what they are told.
#pragma once

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include <exported_model/class_declarations.h>
#include <exported_model/division_check.h>
#include <exported_model/errors.h>
#include <exported_model/handles.h>
#include <exported_model/operators.h>
#include <exported_model/pickle_reader.h>
#include <exported_model/pickle_tensors.h>
#include <exported_model/source_reader.h>
#include <exported_model/zip.h>

namespace exported_model::detail {

[[noreturn]] inline void refuse_code(const Zip& zip, const std::string& where, const std::string& problem) {
  const std::string found = zip.bytes()->origin() + ": " + where + " has " + problem.substr(0, 200);
  throw OperatorNotAllowedError(found, kWhatExportsContain, kLeave);
}

// Whether exports hold a record of this name, and libtorch reads it as they mean it.
inline bool is_known_record(const std::string& name) {
  if (one_of(name, {"data.pkl", "constants.pkl", "version", "byteorder"})) return true;
  const auto parts = split(name, '/');
  if (parts[0] == "code") return parts.size() > 1 && ends_with(name, ".py") && name != "code/.py";
  return parts.size() == 2 && one_of(parts[0], {"data", "constants", "extra", ".data"});
}

// One record with a version that gives lists their types (3 and above), which libtorch takes from the first of these
// names that it finds and reads as a number without looking; and numbers in this processor's order.
inline void check_version(const Zip& zip) {
  constexpr std::uint64_t kShortRecord = 32;
  const auto text = [&](const Record& record) {
    if (record.size > kShortRecord)
      zip.refuse(record.name + " declares " + std::to_string(record.size) + " bytes",
                 "at most " + std::to_string(kShortRecord));
    return zip.content(record);
  };
  int found = 0;
  for (const char* name : {".data/version", "version"}) {
    const Record* record = zip.find(name);
    if (record == nullptr) continue;
    ++found;
    std::string version = text(*record);
    if (!version.empty() && version.back() == '\n') version.pop_back();
    if (version != "10" && !(version.size() == 1 && version[0] >= '3' && version[0] <= '9'))
      zip.refuse("its version is '" + version + "'", kWhatExportsContain);
  }
  if (found != 1) zip.refuse(std::to_string(found) + " records with its version", kWhatExportsContain);
  // The record is newer than torch 1.13; without it numbers are read in this order.
  if (const Record* order = zip.find("byteorder"); order != nullptr && text(*order) != "little")
    zip.refuse("numbers in another order of bytes", kWhatExportsContain);
}

// What `folder`.pkl holds, compared with its records.
inline ValueRef read_pickle(const Zip& zip, const std::string& folder, const Classes& classes) {
  const Record* record = zip.find(folder + ".pkl");
  if (record == nullptr) throw InvalidPickle{"no bytes: it is not there"};
  Records records(zip, folder);
  const std::string data = zip.content(*record);
  const ValueRef found = PickleReader(data, records, classes).run();
  records.check_contents();
  return found;
}

// A tuple of tensors, packed weights and texts; code reaches them as `CONSTANTS.c0` and so on.
inline std::vector<ValueRef> check_constants(const Zip& zip) {
  const ValueRef found = read_pickle(zip, "constants", {});
  const auto known = [](const ValueRef& item) {
    return item->kind == Kind::tensor || item->kind == Kind::text || packed_classes().count(kind_of(*item)) > 0;
  };
  if (found->kind != Kind::tuple || !std::all_of(found->items.begin(), found->items.end(), known))
    throw InvalidPickle{"a constant that is no tensor"};
  return found->items;
}

// An object whose class has a method `forward`.
inline void check_model(const Zip& zip, const Classes& classes) {
  const ValueRef found = read_pickle(zip, "data", classes);
  const auto declared = found->kind == Kind::object ? classes.find(found->text) : classes.end();
  if (declared == classes.end() ||
      std::count(declared->second.methods.begin(), declared->second.methods.end(), "forward") == 0)
    throw InvalidPickle{"no object with a method forward"};
}

// Throws OperatorNotAllowedError at the first name that is not on the lists, and UnsafeArchiveError where a pickle
// says of a record or a class what is not so, or has another form than exports have.
inline void check_code(const Zip& zip, const std::vector<std::string>& allow_operators) {
  const AllowedNames allowed(allow_operators);
  check_version(zip);
  std::uint64_t total = 0;
  for (const auto& record : zip.records())
    if (starts_with(record.name, "code/")) total += record.size;
  if (total > kMaxCodeBytes)
    zip.refuse(std::to_string(total) + " bytes of code", "at most " + std::to_string(kMaxCodeBytes));

  std::vector<std::pair<std::string, std::string>> sources;
  for (const auto& record : zip.records()) {
    if (!is_known_record(record.name)) refuse_code(zip, record.name, "the record " + record.name);
    if (!starts_with(record.name, "code/")) continue;
    sources.emplace_back(record.name, zip.content(record));
    SourceReader([&](Use use, const std::string& name) {
      const std::string problem = allowed.problem(use, name);
      if (!problem.empty()) refuse_code(zip, record.name, problem);
    }).read(sources.back().second);
    const std::string division = DivisionCheck(allow_operators).problem(sources.back().second);
    if (!division.empty()) refuse_code(zip, record.name, division);
  }

  std::string where = "its code";
  try {
    Classes classes;
    for (const auto& [name, text] : sources) {
      try {
        read_declarations(name, text, classes);
      } catch (const std::exception& error) {
        refuse_code(zip, name, "source that cannot be parsed (" + first_line(error) + ")");
      }
    }
    where = "constants.pkl";
    const auto constants = check_constants(zip);
    where = "its code";
    for (const auto& source : sources) check_handles(source.second, constants);
    where = "data.pkl";
    check_model(zip, classes);
  } catch (const InvalidPickle& invalid) {
    if (invalid.named) refuse_code(zip, where, invalid.problem);
    zip.refuse(where + " has " + invalid.problem, kWhatExportsContain);
  }
}

}  // namespace exported_model::detail
