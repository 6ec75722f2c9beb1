// Cuts a call into tasks and hands them to the threads. Compiled for every x86-64.
#include <algorithm>
#include <vector>

#include "kernels.h"

namespace em_native {
namespace {

// Below this many multiplications per thread a call is faster on one thread than woken on two.
constexpr double least_work = 2e5;
// The same for a norm, in elements.
constexpr int64_t least_elements = 16 * 1024;
// Shares per thread if tasks must be cut: enough to even out, few enough that keys are seldom packed twice.
constexpr int64_t shares = 4;

struct AttentionCall {
  const Kernels& kernels;
  const Attention& attention;
  AttentionPlan plan;
};

struct NormCall {
  const Kernels& kernels;
  const Norm& norm;
};

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

void attention(const Kernels& kernels, const Attention& a, int threads, ParallelFor parallel_for) {
  const int64_t group = a.heads / a.kv_heads;
  int64_t longest = a.queries, units = a.rows * a.kv_heads;
  double work = static_cast<double>(a.queries) * static_cast<double>(a.keys) * static_cast<double>(a.rows);
  if (a.offsets) {
    longest = 0;
    work = 0;
    for (int64_t i = 0; i < a.segments; i++) {
      const int64_t length = a.offsets[i + 1] - a.offsets[i];
      longest = std::max(longest, length);
      work += static_cast<double>(length) * static_cast<double>(length);
    }
    // The heads alone: where they divide evenly among the threads, so does the work.
    units = a.kv_heads;
  }
  if (longest == 0) return;
  work *= static_cast<double>(a.heads) * static_cast<double>(a.width + a.value_width);
  const int64_t blocks = divide_up(longest * group, kernels.query_block);
  int64_t parts = 1;
  if (units % threads != 0 && units < shares * threads) parts = std::min(blocks, divide_up(shares * threads, units));
  std::vector<int64_t> before;
  AttentionCall call{kernels, a, {}};
  call.plan.task_lines = divide_up(blocks, parts) * kernels.query_block;
  call.plan.longest_keys = a.offsets ? longest : a.keys;
  int64_t tasks;
  if (a.offsets) {
    before.reserve(static_cast<size_t>(a.segments) + 1);
    before.push_back(0);
    for (int64_t i = 0; i < a.segments; i++) {
      const int64_t lines = (a.offsets[i + 1] - a.offsets[i]) * group;
      before.push_back(before.back() + divide_up(lines, call.plan.task_lines));
    }
    call.plan.tasks_before = before.data();
    call.plan.tasks_per_head = before.back();
    tasks = before.back() * a.kv_heads;
  } else {
    call.plan.tasks_per_head = divide_up(a.queries * group, call.plan.task_lines);
    tasks = call.plan.tasks_per_head * units;
  }
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const AttentionCall& c = *static_cast<const AttentionCall*>(context);
    c.kernels.attention(c.attention, c.plan, begin, end);
  };
  // Tasks that make up `least_work` stay together.
  const double per_task = std::max(1.0, work / static_cast<double>(tasks));
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(std::min(least_work / per_task, 1e9)));
  parallel_for(0, tasks, grain, body, &call);
}

void norm(const Kernels& kernels, const Norm& n, ParallelFor parallel_for) {
  NormCall call{kernels, n};
  const Body body = [](void* context, int64_t begin, int64_t end) {
    const NormCall& c = *static_cast<const NormCall*>(context);
    c.kernels.norm(c.norm, begin, end);
  };
  parallel_for(0, n.rows, std::max<int64_t>(1, least_elements / n.size), body, &call);
}

}  // namespace em_native
