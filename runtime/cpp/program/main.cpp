// exported-model: look at an artifact, check it on this machine, time it; in C++, without Python.
//
// In: a command line. Out: text on standard output; errors as one line on standard error, exit code 1 (2 for a wrong
// command line).

#include <exported_model/exported_model.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace {

using exported_model::Manifest;
using exported_model::Options;
using exported_model::Session;
using exported_model::Tensors;
using Clock = std::chrono::steady_clock;

constexpr const char* kUsage =
    "usage: exported-model inspect FILE [--verify]\n"
    "       exported-model check FILE [--threads N]\n"
    "       exported-model bench FILE [--threads N] [--shape 1x128] [--workers N] [--seconds S] [--raw]\n"
    "       and for all of them [--sha256 DIGEST], for check and bench [--allow-operator NAME]... [--ipex-library SO] [--native-library SO]\n"
    "\n"
    "inspect  print what the artifact says of itself, as JSON; loads no model; --verify compares all parts with their\n"
    "         digests and adds the file's sha256\n"
    "check    run the stored golden cases on this machine; exit code 1 if an answer is off\n"
    "bench    milliseconds a call; --shape sizes the inputs' free axes in order, --workers threads call one session at\n"
    "         once, --raw times the module's forward alone in turn with Session::run\n"
    "\n"
    "--sha256 refuses a file with another digest; --allow-operator lets the code call one more operator, such as\n"
    "aten::segment_reduce: you vouch for the file\n";

struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Arguments {
  std::string command, file, shape = "1x128";
  Options options;
  int workers = 1;
  double seconds = 3;
  bool raw = false, verify = false;
};

double number(const std::string& option, const std::string& text, double least, double most) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::logic_error&) {
    used = 0;
  }
  if (used != text.size() || text.empty() || !(value >= least && value <= most))
    throw UsageError(option + " is '" + text + "'; expected a number from " + std::to_string(static_cast<int>(least)) +
                     " to " + std::to_string(static_cast<int>(most)));
  return value;
}

Arguments parse(int argc, char** argv) {
  Arguments arguments;
  if (argc < 2) throw UsageError("no command");
  arguments.command = argv[1];
  const bool bench = arguments.command == "bench";
  if (!bench && arguments.command != "check" && arguments.command != "inspect")
    throw UsageError("no command '" + arguments.command + "'");
  const bool runs = arguments.command != "inspect";
  for (int index = 2; index < argc; ++index) {
    const std::string argument = argv[index];
    const auto value = [&] {
      if (index + 1 >= argc) throw UsageError(argument + " needs a value");
      return std::string(argv[++index]);
    };
    if (argument == "--sha256") arguments.options.sha256 = value();
    else if (!runs && argument == "--verify") arguments.verify = true;
    else if (runs && argument == "--allow-operator") arguments.options.allow_operators.push_back(value());
    else if (runs && argument == "--ipex-library") arguments.options.ipex_library = value();
    else if (runs && argument == "--native-library") arguments.options.native_library = value();
    else if (runs && argument == "--threads") arguments.options.threads = static_cast<int>(number(argument, value(), 1, 4096));
    else if (bench && argument == "--shape") arguments.shape = value();
    else if (bench && argument == "--workers") arguments.workers = static_cast<int>(number(argument, value(), 1, 256));
    else if (bench && argument == "--seconds") arguments.seconds = number(argument, value(), 0, 86400);
    else if (bench && argument == "--raw") arguments.raw = true;
    else if (arguments.file.empty() && argument.rfind("--", 0) != 0) arguments.file = argument;
    else throw UsageError("no option '" + argument + "' for " + arguments.command);
  }
  if (arguments.file.empty()) throw UsageError("no FILE");
  return arguments;
}

int inspect(const Arguments& arguments) {
  const exported_model::Archive archive(arguments.file);
  if (!arguments.options.sha256.empty()) archive.check_sha256(arguments.options.sha256);
  const Manifest manifest = archive.manifest();
  nlohmann::json shown = manifest.json;
  if (arguments.verify) {
    archive.verify(manifest);
    shown["sha256"] = archive.sha256();
  }
  archive.check_unchanged();
  // Characters beyond ASCII as escapes: some of them steer a terminal.
  std::printf("%s\n", shown.dump(1, ' ', true).c_str());
  return 0;
}

int check(const Arguments& arguments) {
  const exported_model::Archive archive(arguments.file);
  const Session session(archive, arguments.options);
  const auto cases = exported_model::read_cases(archive);
  const Manifest& manifest = session.manifest();
  bool passed = true;
  std::printf("%-40s %10s %10s\n", "case and output", "max error", "rms error");
  for (const auto& [name, errors] : exported_model::check(session, cases)) {
    const bool within = errors.within(manifest.tolerance);
    passed = passed && within;
    std::printf("%-40s %10.2e %10.2e%s\n", name.c_str(), errors.max, errors.rms, within ? "" : "  OFF");
  }
  std::printf("%s: %s, %s, %s backend, tolerance max %g rms %g, %d calls a case\n", passed ? "passed" : "FAILED",
              manifest.task.c_str(), manifest.precision.c_str(), manifest.backend.c_str(), manifest.tolerance.max_error,
              manifest.tolerance.rms_error, exported_model::kCheckRounds);
  return passed ? 0 : 1;
}

// Sizes by axis: the numbers of "1x128" for the inputs' axes that are free, in the order in which they first stand.
std::map<std::string, std::int64_t> sizes_of(const Manifest& manifest, const std::string& shape) {
  std::vector<std::string> axes;
  for (const auto& spec : manifest.inputs)
    for (const auto& axis : spec.axes)
      if (axis.maximum != axis.minimum && std::find(axes.begin(), axes.end(), axis.name) == axes.end())
        axes.push_back(axis.name);
  std::map<std::string, std::int64_t> sizes;
  std::size_t begin = 0, given = 0;
  while (begin <= shape.size()) {
    const std::size_t end = std::min(shape.find('x', begin), shape.size());
    const auto size = static_cast<std::int64_t>(number("--shape", shape.substr(begin, end - begin), 1, 1 << 24));
    if (given < axes.size()) sizes[axes[given]] = size;
    ++given;
    begin = end + 1;
  }
  if (given > axes.size())
    throw UsageError("--shape is " + shape + "; expected " + std::to_string(axes.size()) + " sizes at most");
  return sizes;
}

void print_times(const char* name, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) { return times[static_cast<std::size_t>(share * static_cast<double>(times.size() - 1))]; };
  std::printf("%-14s %8zu %9.3f %9.3f %9.3f %9.3f %9.3f\n", name, times.size(), times.front(), at(0.5), at(0.9), at(0.99),
              times.back());
}

int bench(const Arguments& arguments) {
  const Session session(arguments.file, arguments.options);
  const auto sizes = sizes_of(session.manifest(), arguments.shape);
  const Tensors inputs = exported_model::placeholders(session.manifest(), sizes);
  std::vector<c10::IValue> ordered;
  for (const auto& spec : session.manifest().inputs) ordered.emplace_back(inputs.at(spec.name));
  const auto forward = session.module().get_method("forward");
  const auto timed = [](const std::function<void()>& call) {
    const auto start = Clock::now();
    call();
    return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  };
  for (int call = 0; call < exported_model::kCheckRounds; ++call) session.run(inputs);

  std::vector<std::vector<double>> found(static_cast<std::size_t>(arguments.workers));
  std::vector<double> raw;
  const auto begin = Clock::now();
  const auto end = begin + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(arguments.seconds));
  const auto work = [&](std::vector<double>& times, bool with_raw) {
    at::NoGradGuard no_grad;
    do {
      times.push_back(timed([&] { session.run(inputs); }));
      if (with_raw) raw.push_back(timed([&] { forward(ordered); }));
    } while (Clock::now() < end);
  };
  std::vector<std::thread> others;
  std::atomic<bool> failed{false};
  for (std::size_t worker = 1; worker < found.size(); ++worker)
    others.emplace_back([&, worker] {
      try {
        work(found[worker], false);
      } catch (const std::exception& error) {
        std::fprintf(stderr, "exported-model: a worker failed: %s\n", error.what());
        failed = true;
      }
    });
  work(found[0], arguments.raw);
  for (auto& other : others) other.join();
  const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();

  std::vector<double> all;
  for (const auto& times : found) all.insert(all.end(), times.begin(), times.end());
  std::printf("%s at %s, %d threads, %d workers: %.1f calls a second\n", arguments.file.c_str(), arguments.shape.c_str(),
              at::get_num_threads(), arguments.workers, static_cast<double>(all.size()) / seconds);
  std::printf("%-14s %8s %9s %9s %9s %9s %9s\n", "milliseconds", "calls", "least", "median", "p90", "p99", "most");
  print_times("Session::run", all);
  if (arguments.raw) print_times("forward", raw);
  return failed ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse(argc, argv);
    if (arguments.command == "inspect") return inspect(arguments);
    return arguments.command == "check" ? check(arguments) : bench(arguments);
  } catch (const UsageError& error) {
    std::fprintf(stderr, "exported-model: %s\n%s", error.what(), kUsage);
    return 2;
  } catch (const exported_model::Error& error) {
    std::fprintf(stderr, "exported-model: %s\n", error.what());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "exported-model: %s\n", exported_model::detail::first_line(error).c_str());
  }
  return 1;
}
