// A server's worker: requests as JSON lines in, answers as JSON lines out, one copy of the weights for all threads.
//
//   worker FILE [--port P] [--workers N] [--threads T] [--queue Q]
//
// In: lines on standard input or, with --port, on connections to 127.0.0.1 (port 0 takes a free one and prints it):
//   {"id": 7, "inputs": {"input_ids": [[101, 2054, 102]]}}
// Out: a line for each, in the order in which they are done:
//   {"id": 7, "outputs": {"logits": [[0.1, 0.9]]}}   or   {"id": 7, "error": "input 'input_ids' holds -1; …"}
// A bad request fails alone. When the queue is full, reading waits. At the end of the input, or on SIGTERM or SIGINT,
// what was read is answered, then the program ends with 0. Exit code 1 if the model cannot be loaded, 2 for a wrong
// command line.

#include <exported_model/session.h>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using nlohmann::json;

// A line longer than this is no request.
constexpr std::size_t kMaxLine = 64 << 20;
// Lists in one another; no model takes more axes.
constexpr std::size_t kMaxAxes = 16;

int stop_pipe[2];  // readable from the first signal on

void on_signal(int) {
  const char byte = 0;
  if (write(stop_pipe[1], &byte, 1) < 0) std::_Exit(1);
}

// ---- JSON and tensors ----

void flatten(const json& value, std::size_t depth, std::vector<std::int64_t>& shape, std::vector<double>& numbers, bool& whole) {
  if (!value.is_array()) {
    if (depth != shape.size() || !value.is_number()) throw std::invalid_argument("expected nested lists of numbers, all rows equally long");
    whole = whole && value.is_number_integer();
    numbers.push_back(value.get<double>());
    return;
  }
  if (depth == kMaxAxes) throw std::invalid_argument("expected at most " + std::to_string(kMaxAxes) + " nested lists");
  if (depth == shape.size()) {
    if (!numbers.empty()) throw std::invalid_argument("expected nested lists of numbers, all rows equally long");
    shape.push_back(static_cast<std::int64_t>(value.size()));
  }
  if (shape[depth] != static_cast<std::int64_t>(value.size())) throw std::invalid_argument("expected rows of equal length");
  for (const auto& item : value) flatten(item, depth + 1, shape, numbers, whole);
}

at::Tensor to_tensor(const json& value) {
  std::vector<std::int64_t> shape;
  std::vector<double> numbers;
  bool whole = true;
  flatten(value, 0, shape, numbers, whole);
  const auto tensor = torch::from_blob(numbers.data(), shape, at::kDouble);
  // A copy: the numbers end with this function.
  return tensor.to(whole ? at::kLong : at::kFloat);
}

json to_json(const at::Tensor& tensor) {
  if (tensor.dim() == 0) return tensor.item<float>();
  json list = json::array();
  for (std::int64_t row = 0; row < tensor.size(0); ++row) list.push_back(to_json(tensor[row]));
  return list;
}

std::string answer(const exported_model::Session& session, const std::string& line) {
  json reply = {{"id", nullptr}};
  try {
    const json request = json::parse(line);
    reply["id"] = request.at("id");
    exported_model::Tensors inputs;
    for (const auto& [name, value] : request.at("inputs").items()) inputs[name] = to_tensor(value);
    for (const auto& [name, tensor] : session.run(inputs)) reply["outputs"][name] = to_json(tensor);
  } catch (const std::exception& error) {  // this request's, whatever it is; the others go on
    reply["error"] = exported_model::detail::first_line(error);
  }
  return reply.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

// ---- The queue ----

// Jobs in, jobs done by a fixed number of threads. `add` waits while the queue is full; the end waits for all jobs.
class Pool {
 public:
  Pool(std::size_t workers, std::size_t limit) : limit_(limit) {
    for (std::size_t worker = 0; worker < workers; ++worker) threads_.emplace_back([this] { work(); });
  }

  ~Pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
    }
    changed_.notify_all();
    for (auto& thread : threads_) thread.join();
  }

  void add(std::function<void()> job) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return jobs_.size() < limit_; });
    jobs_.push_back(std::move(job));
    changed_.notify_all();
  }

 private:
  void work() {
    for (;;) {
      std::unique_lock<std::mutex> lock(mutex_);
      changed_.wait(lock, [&] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      const auto job = std::move(jobs_.front());
      jobs_.pop_front();
      changed_.notify_all();
      lock.unlock();
      job();
    }
  }

  std::size_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

// ---- Lines ----

// Where answers go; whole lines, from any thread. Closes a socket when the last answer is out.
class Output {
 public:
  explicit Output(int descriptor) : descriptor_(descriptor) {}
  ~Output() {
    if (descriptor_ > 2) close(descriptor_);
  }
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;

  void line(const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (std::size_t sent = 0; sent < text.size();) {
      const ssize_t count = ::write(descriptor_, text.data() + sent, text.size() - sent);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) return;  // whoever asked has gone
      sent += static_cast<std::size_t>(count);
    }
  }

 private:
  int descriptor_;
  std::mutex mutex_;
};

// Whether there is something to read; false once a signal came.
bool readable(int descriptor) {
  pollfd waiting[] = {{stop_pipe[0], POLLIN, 0}, {descriptor, POLLIN, 0}};
  while (poll(waiting, 2, -1) < 0 && errno == EINTR) {
  }
  return (waiting[0].revents & POLLIN) == 0;
}

// Give every line to the pool, until the input ends or a signal comes.
void serve(int input, const std::shared_ptr<Output>& output, const exported_model::Session& session, Pool& pool) {
  std::string pending;
  std::vector<char> block(1 << 16);
  const auto submit = [&](std::string line) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) return;
    pool.add([&session, output, line = std::move(line)] { output->line(answer(session, line)); });
  };
  while (readable(input)) {
    const ssize_t count = read(input, block.data(), block.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    pending.append(block.data(), static_cast<std::size_t>(count));
    std::size_t begin = 0;
    for (std::size_t end; (end = pending.find('\n', begin)) != std::string::npos; begin = end + 1)
      submit(pending.substr(begin, end - begin));
    pending.erase(0, begin);
    if (pending.size() > kMaxLine) {
      output->line("{\"id\":null,\"error\":\"a line of more than 64 MB\"}\n");
      return;
    }
  }
  submit(pending);
}

void listen_on(int port, const exported_model::Session& session, Pool& pool) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  const int yes = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  socklen_t size = sizeof(address);
  if (bind(listener, reinterpret_cast<sockaddr*>(&address), size) != 0 || listen(listener, 64) != 0)
    throw std::runtime_error("cannot listen on port " + std::to_string(port) + ": " + std::strerror(errno));
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  std::printf("listening on 127.0.0.1:%d\n", ntohs(address.sin_port));
  std::fflush(stdout);
  std::vector<std::thread> readers;
  while (readable(listener)) {
    const int connection = accept(listener, nullptr, nullptr);
    if (connection < 0) continue;
    readers.emplace_back([&, connection] { serve(connection, std::make_shared<Output>(connection), session, pool); });
  }
  close(listener);
  for (auto& reader : readers) reader.join();
}

int usage() {
  std::fprintf(stderr, "usage: worker FILE [--port P] [--workers N] [--threads T] [--queue Q]\n");
  return 2;
}

}  // namespace

int main(int argc, char** argv) {
  std::string file;
  int port = -1, workers = 2, threads = 1, queue = 64;
  for (int index = 1; index < argc; ++index) {
    const std::string argument = argv[index];
    int* const number = argument == "--port"      ? &port
                        : argument == "--workers" ? &workers
                        : argument == "--threads" ? &threads
                        : argument == "--queue"   ? &queue
                                                  : nullptr;
    if (number != nullptr) {
      char* end = nullptr;
      const long value = index + 1 < argc ? std::strtol(argv[++index], &end, 10) : -1;
      if (end == nullptr || *end != '\0' || value < (number == &port ? 0 : 1) || value > 65535) return usage();
      *number = static_cast<int>(value);
    } else if (file.empty() && argument.rfind("--", 0) != 0) {
      file = argument;
    } else {
      return usage();
    }
  }
  if (file.empty()) return usage();
  if (pipe(stop_pipe) != 0) return 1;
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGTERM, on_signal);
  std::signal(SIGINT, on_signal);
  try {
    exported_model::Options options;
    options.threads = threads;
    const exported_model::Session session(file, options);
    Pool pool(static_cast<std::size_t>(workers), static_cast<std::size_t>(queue));
    if (port >= 0) listen_on(port, session, pool);
    else serve(STDIN_FILENO, std::make_shared<Output>(STDOUT_FILENO), session, pool);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "worker: %s\n", exported_model::detail::first_line(error).c_str());
    return 1;
  }
  return 0;
}
