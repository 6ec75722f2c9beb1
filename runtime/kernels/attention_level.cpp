// Attention on one level's vectors: softmax(query * keys^T * scale + mask) * values, for a range of tasks.
//
// A task takes one head of the keys. Its keys and values are packed, a panel of them at a time (as many as fit the
// second-level cache; most calls have one panel), into the order in which the products read them:
// keys as [block of keys][width][keys of the block], values as [block of columns][key][columns of the block].
// Then for each block of queries: the scores, softmax over the panel, and the product with the values. With several
// panels the maximum and sum of each query run along, and what was summed is scaled when the maximum grows.
//
// fp32 is computed in fp32. bf16 is packed as fp32 and computed in that, or, where the processor has products of bf16
// pairs, packed in pairs: a pair takes a lane of 32 bits, so that the same code serves both ("depth" counts lanes).
// fp32 that may be coarse is rounded when it is packed, and computed as bf16 is. Where there are tile registers, the
// same packed pairs are what they take, if a head has whole tiles of features.
#include "blocking.h"
#include "softmax.h"
#include "tiles.h"
#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// Registers hold a tile of rows x 2 vectors of sums, two vectors of the packed operand and one broadcast number.
#if defined(EM_NATIVE_AVX512)
constexpr int tile_rows = 12;
#else
constexpr int tile_rows = 6;
#endif
constexpr int64_t tile_vectors = 2;
constexpr int64_t block = tile_vectors * lanes;
#if defined(EM_NATIVE_AMX)
constexpr int64_t query_block = 32;
#else
constexpr int64_t query_block = 24;
#endif
// Keys of a panel: what the packed keys and values may take, and the scores of a block of queries beside them.
constexpr int64_t panel_bytes = 512 * 1024;
constexpr int64_t panel_keys = 1024;
// Queries of more bytes than this, with their keys and values, do not stay in the second-level cache.
constexpr int64_t fetched_ahead = 512 * 1024;
// Query blocks whose state is kept while one panel after the other is packed.
constexpr int64_t kept_blocks = 8;

#if defined(EM_NATIVE_AVX512_BF16)
constexpr bool has_pairs = true;
#else
constexpr bool has_pairs = false;
#endif
#if defined(EM_NATIVE_AMX)
constexpr bool has_tiles = true;
#else
constexpr bool has_tiles = false;
#endif

template <bool pairs>
EM_NATIVE_INLINE Vec product(Vec a, Vec b, Vec c) {
#if defined(EM_NATIVE_AVX512_BF16)
  if constexpr (pairs) return multiply_add_pairs(a, b, c);
#endif
  return multiply_add(a, b, c);
}

// c = a * b * factor, or c + a * b: rows x depth numbers at a, depth x (vectors * lanes) packed ones at b.
template <bool pairs, bool accumulate, int vectors, int rows>
void tile(const float* a, int64_t a_stride, const float* b, int64_t depth, float* c, int64_t c_stride, float factor) {
  Vec sums[rows][vectors];
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) sums[i][v] = zero();
  for (int64_t k = 0; k < depth; k++) {
    Vec packed[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) packed[v] = load(b + (k * vectors + v) * lanes);
#pragma GCC unroll 12
    for (int i = 0; i < rows; i++) {
      const Vec broadcast = all(a[i * a_stride + k]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; v++) sums[i][v] = product<pairs>(broadcast, packed[v], sums[i][v]);
    }
  }
  const Vec scaled = all(factor);
#pragma GCC unroll 12
  for (int i = 0; i < rows; i++)
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
      float* to = c + i * c_stride + v * lanes;
      // Added last: a sum of sums loses less than one long sum.
      store(to, accumulate ? add(load(to), sums[i][v]) : multiply(sums[i][v], scaled));
    }
}

using Tile = void (*)(const float*, int64_t, const float*, int64_t, float*, int64_t, float);

template <bool pairs, bool accumulate, int vectors>
EM_NATIVE_INLINE Tile tile_of(int64_t rows) {
  static constexpr Tile tiles[] = {
      tile<pairs, accumulate, vectors, 1>,  tile<pairs, accumulate, vectors, 2>,  tile<pairs, accumulate, vectors, 3>,
      tile<pairs, accumulate, vectors, 4>,  tile<pairs, accumulate, vectors, 5>,  tile<pairs, accumulate, vectors, 6>,
#if defined(EM_NATIVE_AVX512)
      tile<pairs, accumulate, vectors, 7>,  tile<pairs, accumulate, vectors, 8>,  tile<pairs, accumulate, vectors, 9>,
      tile<pairs, accumulate, vectors, 10>, tile<pairs, accumulate, vectors, 11>, tile<pairs, accumulate, vectors, 12>,
#endif
  };
  return tiles[rows - 1];
}

// The tiles of one block of packed columns, at most `block` of them. In tile registers: without the factor, `depth` is
// whole tiles, and there is room for whole tiles of rows.
template <bool pairs, bool accumulate>
EM_NATIVE_INLINE void multiply_block([[maybe_unused]] bool tiled, const float* a, int64_t a_stride, int64_t rows,
                                     const float* b, int64_t columns, int64_t depth, float* c, int64_t c_stride,
                                     float factor) {
#if defined(EM_NATIVE_AMX)
  if constexpr (pairs)
    if (tiled) {
      const bool wide = columns > lanes;
      const auto run = rows > tile_side ? (wide ? multiply_tiles<false, 2, 2> : multiply_tiles<false, 2, 1>)
                                        : (wide ? multiply_tiles<false, 1, 2> : multiply_tiles<false, 1, 1>);
      return run(a, a_stride * 4, b, depth, c, c_stride * 4, accumulate, nullptr, 0);
    }
#endif
  const int64_t tiles = (rows + tile_rows - 1) / tile_rows;
  // Of equal height: 8 and 8 rows are faster than 12 and 4.
  const int64_t height = (rows + tiles - 1) / tiles;
  for (int64_t i = 0; i < rows; i += height) {
    const int64_t now = smaller(height, rows - i);
    const Tile run = columns > lanes ? tile_of<pairs, accumulate, 2>(now) : tile_of<pairs, accumulate, 1>(now);
    run(a + i * a_stride, a_stride, b, depth, c + i * c_stride, c_stride, factor);
  }
}

// `count` elements from p on as up to `lanes` lanes: numbers, or pairs of bf16.
template <bool pairs, typename T>
EM_NATIVE_INLINE Vec load_lanes(const T* p, int64_t count) {
#if defined(EM_NATIVE_AVX512_BF16)
  if constexpr (pairs) return load_pairs(p, count);
#endif
  return count >= lanes ? load(p) : load_first(p, count);
}

// Sizes that all tasks of a call share, and the calling thread's memory.
template <bool pairs>
struct Work {
  int64_t depth;           // lanes of the width
  int64_t panel;           // keys per panel, a multiple of `block`
  int64_t value_columns;   // the values' width, rounded up to whole vectors
  int64_t score_stride;
  int64_t blocks;          // query blocks whose state is kept
  bool tiled;              // computed in tile registers
  int64_t whole;           // probabilities of a query are filled up to a multiple of this
  float *keys, *values, *queries, *scores, *sums, *maxima, *totals;

  explicit Work(const Attention& a, int64_t longest) {
    depth = pairs ? (a.width + 1) / 2 : a.width;
    tiled = has_tiles && pairs && a.width % (2 * lanes) == 0;
    whole = tiled ? 2 * lanes : lanes;
    value_columns = round_up(a.value_width, lanes);
    const int64_t bytes_per_key = (pairs ? 2 : 4) * (a.width + value_columns);
    panel = smaller(panel_keys, larger(block, panel_bytes / bytes_per_key / block * block));
    panel = smaller(panel, round_up(larger(longest, 1), block));
    // Not a power of two: rows would fall on the same lines of the first-level cache.
    score_stride = panel + lanes;
    blocks = longest <= panel ? 1 : kept_blocks;
    const int64_t value_rows = pairs ? panel / 2 : panel;
    const int64_t counts[] = {panel * depth,        value_rows * value_columns,          query_block * depth,
                              query_block * score_stride, blocks * query_block * value_columns, blocks * query_block,
                              blocks * query_block};
    int64_t all_of_them = 0;
    for (const int64_t count : counts) all_of_them += round_up(count, 16);
    float* next = static_cast<float*>(scratch(static_cast<size_t>(all_of_them) * sizeof(float)));
    float** const parts[] = {&keys, &values, &queries, &scores, &sums, &maxima, &totals};
    for (int i = 0; i < 7; i++) {
      *parts[i] = next;
      next += round_up(counts[i], 16);
    }
  }
};

// Keys `from` to `to` into work.keys: the block that begins at key j stands at j * depth.
template <bool pairs, typename T>
void pack_keys(const Work<pairs>& work, const T* keys, int64_t stride, int64_t count, int64_t width) {
  constexpr int64_t per_lane = pairs ? 2 : 1;
  for (int64_t j = 0; j < count; j += block) {
    const int64_t columns = count - j > lanes ? block : lanes;
    for (int64_t part = 0; part < columns; part += lanes)
      for (int64_t d = 0; d < work.depth; d += lanes) {
        Vec rows[lanes];
        const int64_t here = smaller(lanes, count - j - part);
        for (int64_t i = 0; i < lanes; i++)
          rows[i] = i < here ? load_lanes<pairs>(keys + (j + part + i) * stride + d * per_lane, width - d * per_lane)
                             : zero();
        transpose(rows);
        const int64_t valid = smaller(lanes, work.depth - d);
        float* to = work.keys + j * work.depth + d * columns + part;
        for (int64_t i = 0; i < valid; i++) store(to + i * columns, rows[i]);
      }
  }
}

// Values into work.values: the block of columns that begins at column c stands at c * rows of the panel.
template <bool pairs, typename T>
void pack_values(const Work<pairs>& work, const T* values, int64_t stride, int64_t count, int64_t width) {
  const int64_t value_rows = pairs ? work.panel / 2 : work.panel;
  for (int64_t c = 0; c < work.value_columns; c += lanes) {
    // The last block may have a single vector.
    const int64_t block_start = c / block * block;
    const int64_t columns = smaller(block, work.value_columns - block_start);
    float* to = work.values + block_start * value_rows + (c - block_start);
    const int64_t here = width - c;
    const T* from = values + c;
#if defined(EM_NATIVE_AVX512_BF16)
    if constexpr (pairs) {
      for (int64_t j = 0; j < round_up(count, work.tiled ? block : 2); j += 2, to += columns, from += 2 * stride) {
        // Tiles multiply probabilities of 0 with what stands here.
        const Vec low = j < count ? load_lanes<false>(from, here) : zero();
        const Vec high = j + 1 < count ? load_lanes<false>(from + stride, here) : zero();
        if constexpr (sizeof(T) == 2)
          store(to, pair_up(low, high));
        else
          store(to, pair_up_rounded(low, high));
      }
      continue;
    }
#endif
    for (int64_t j = 0; j < count; j++, to += columns, from += stride) store(to, load_lanes<false>(from, here));
  }
}

// One block of queries against the keys [panel_start, panel_start + panel_count) of its segment.
template <bool pairs, typename T>
void attend(const Attention& a, const Work<pairs>& work, const Segment& segment, int64_t kv_head, int64_t first_line,
            int64_t count, int64_t panel_start, int64_t panel_count, int64_t slot, bool* started) {
  constexpr int64_t per_lane = pairs ? 2 : 1;
  Line lines[query_block];
  int64_t from = panel_count, to = 0;
  for (int64_t i = 0; i < count; i++) {
    lines[i] = line_at(a, segment, kv_head, first_line + i);
    from = smaller(from, lines[i].first_key - panel_start);
    to = larger(to, lines[i].last_key - panel_start);
  }
  from = larger(0, from) / block * block;
  to = smaller(to, panel_count);
  if (from >= to) return;
  for (int64_t i = 0; i < count; i++) {
    const T* query = static_cast<const T*>(a.query) + segment.row * a.query_row + lines[i].head * a.query_head +
                     (segment.start + lines[i].query) * a.query_token;
    for (int64_t d = 0; d < work.depth; d += lanes) {
      const Vec numbers = load_lanes<pairs>(query + d * per_lane, a.width - d * per_lane);
      store_first(work.queries + i * work.depth + d, numbers, smaller(lanes, work.depth - d));
    }
  }
  for (int64_t j = from; j < to; j += block) {
    const int64_t columns = panel_count - j > lanes ? block : lanes;
    multiply_block<pairs, false>(work.tiled, work.queries, work.depth, count, work.keys + j * work.depth, columns,
                                 work.depth, work.scores + (j - from), work.score_stride, a.scale);
  }
  float* tops = work.maxima + slot * query_block;
  float* totals = work.totals + slot * query_block;
  float* sums = work.sums + slot * query_block * work.value_columns;
  const int64_t columns = to - from;
  const int64_t mask_bytes = a.mask_type == Type::fp32 ? 4 : 2;
  for (int64_t i = 0; i < count; i++) {
    const char* mask = nullptr;
    if (a.mask)
      mask = static_cast<const char*>(a.mask) +
             mask_bytes * (segment.row * a.mask_row + lines[i].head * a.mask_head + lines[i].query * a.mask_query +
                           (panel_start + from) * a.mask_key);
    const int64_t first_key = smaller(columns, larger(0, lines[i].first_key - panel_start - from));
    const int64_t last_key = smaller(columns, larger(0, lines[i].last_key - panel_start - from));
    const auto run = work.tiled ? softmax<pairs, has_tiles> : softmax<pairs, false>;
    const float factor = run(a, work.scores + i * work.score_stride, mask, first_key, last_key,
                             round_up(columns, work.whole), *started, tops + i, totals + i);
    if (*started && factor != 1.0f)
      for (int64_t c = 0; c < work.value_columns; c += lanes) {
        float* p = sums + i * work.value_columns + c;
        store(p, multiply(load(p), all(factor)));
      }
  }
  const int64_t value_rows = pairs ? work.panel / 2 : work.panel;
  for (int64_t c = 0; c < work.value_columns; c += block) {
    const int64_t here = smaller(block, work.value_columns - c);
    const float* packed = work.values + c * value_rows + from / per_lane * here;
    const int64_t depth = ((work.tiled ? round_up(columns, work.whole) : columns) + per_lane - 1) / per_lane;
    if (*started)
      multiply_block<pairs, true>(work.tiled, work.scores, work.score_stride, count, packed, here, depth, sums + c,
                                  work.value_columns, 1.0f);
    else
      multiply_block<pairs, false>(work.tiled, work.scores, work.score_stride, count, packed, here, depth, sums + c,
                                   work.value_columns, 1.0f);
  }
  *started = true;
}

// What was summed, divided by its sum, into the output; 0 where nothing was.
template <bool pairs, typename T>
void finish(const Attention& a, const Work<pairs>& work, const Segment& segment, int64_t kv_head, int64_t first_line,
            int64_t count, int64_t slot, bool started) {
  for (int64_t i = 0; i < count; i++) {
    const Line line = line_at(a, segment, kv_head, first_line + i);
    T* output = static_cast<T*>(a.output) + segment.row * a.output_row + line.head * a.output_head +
                (segment.start + line.query) * a.output_token;
    const float total = started ? work.totals[slot * query_block + i] : 0.0f;
    const float* sums = work.sums + (slot * query_block + i) * work.value_columns;
    const Vec factor = all(1.0f / total);
    for (int64_t c = 0; c < a.value_width; c += lanes) {
      const Vec result = total == 0.0f ? zero() : multiply(load(sums + c), factor);
      if (c + lanes <= a.value_width)
        store(output + c, result);
      else
        store_first(output + c, result, a.value_width - c);
    }
  }
}

struct Task {
  Segment segment;
  int64_t unit;  // the same for tasks with the same keys
  int64_t kv_head, first_line, last_line;
};

Task task_at(const Attention& a, const AttentionPlan& plan, int64_t task) {
  Task found;
  int64_t part;
  if (a.offsets) {
    // Head after head, so that the threads' shares are alike although the segments are not.
    found.kv_head = task / plan.tasks_per_head;
    const int64_t within = task % plan.tasks_per_head;
    int64_t low = 0, high = a.segments;  // the last segment with tasks_before <= within
    while (high - low > 1) {
      const int64_t middle = (low + high) / 2;
      if (plan.tasks_before[middle] <= within)
        low = middle;
      else
        high = middle;
    }
    part = within - plan.tasks_before[low];
    const int64_t length = a.offsets[low + 1] - a.offsets[low];
    found.segment = {0, a.offsets[low], length, length};
    found.unit = found.kv_head * a.segments + low;
  } else {
    found.unit = task / plan.tasks_per_head;
    part = task % plan.tasks_per_head;
    const int64_t row = found.unit / a.kv_heads;
    found.segment = {row, 0, a.queries, a.row_keys ? a.row_keys[row] : a.keys};
    found.kv_head = found.unit % a.kv_heads;
  }
  const int64_t lines = found.segment.queries * (a.heads / a.kv_heads);
  found.first_line = part * plan.task_lines;
  found.last_line = lines - found.first_line > plan.task_lines ? found.first_line + plan.task_lines : lines;
  return found;
}

// Fetches the tokens [from, to) of one head into the cache: they lie far apart, which the processor does not foresee.
template <typename T>
EM_NATIVE_INLINE void fetch_ahead(const T* tokens, int64_t stride, int64_t from, int64_t to, int64_t width) {
  constexpr int64_t line = 64 / sizeof(T);
  for (int64_t j = from; j < to; j++)
    for (int64_t d = 0; d < width; d += line) __builtin_prefetch(tokens + j * stride + d);
}

template <typename T>
EM_NATIVE_INLINE const T* keys_of(const Attention& a, const Task& task) {
  const Segment& at = task.segment;
  return static_cast<const T*>(a.key) + at.row * a.key_row + task.kv_head * a.key_head + at.start * a.key_token;
}

template <typename T>
EM_NATIVE_INLINE const T* values_of(const Attention& a, const Task& task) {
  const Segment& at = task.segment;
  return static_cast<const T*>(a.value) + at.row * a.value_row + task.kv_head * a.value_head + at.start * a.value_token;
}

// The share `part` of `parts` of what the next task reads, if it reads other keys: while this one computes.
template <typename T>
EM_NATIVE_INLINE void fetch_next(const Attention& a, const Task& task, const Task& next, int64_t part, int64_t parts) {
  if (next.unit == task.unit || part >= parts) return;
  const int64_t keys = smaller(next.segment.keys, panel_keys);
  const int64_t from = keys * part / parts, to = keys * (part + 1) / parts;
  fetch_ahead(keys_of<T>(a, next), a.key_token, from, to, a.width);
  fetch_ahead(values_of<T>(a, next), a.value_token, from, to, a.value_width);
}

// What the block of queries after this one reads and writes.
template <typename T>
EM_NATIVE_INLINE void fetch_queries(const Attention& a, const Task& task, int64_t first_line) {
  constexpr int64_t line_size = 64 / sizeof(T);
  const Segment& at = task.segment;
  const int64_t last_line = smaller(task.last_line, first_line + query_block);
  for (int64_t i = first_line; i < last_line; i++) {
    const Line line = line_at(a, at, task.kv_head, i);
    const T* query = static_cast<const T*>(a.query) + at.row * a.query_row + line.head * a.query_head +
                     (at.start + line.query) * a.query_token;
    T* output = static_cast<T*>(a.output) + at.row * a.output_row + line.head * a.output_head +
                (at.start + line.query) * a.output_token;
    for (int64_t d = 0; d < a.width; d += line_size) __builtin_prefetch(query + d);
    for (int64_t d = 0; d < a.value_width; d += line_size) __builtin_prefetch(output + d, 1);
  }
}

template <bool pairs, typename T>
void run(const Attention& a, const AttentionPlan& plan, int64_t first_task, int64_t last_task) {
  const Work<pairs> work(a, plan.longest_keys);
#if defined(EM_NATIVE_AMX)
  if (work.tiled) configure_tiles();
#endif
  int64_t packed_unit = -1, packed_start = -1;
  // Small inputs were just written, and are in the cache.
  const bool far = a.rows * a.queries * a.heads * a.width * static_cast<int64_t>(sizeof(T)) > fetched_ahead;
  Task next = task_at(a, plan, first_task);
  for (int64_t number = first_task; number < last_task; number++) {
    const Task task = next;
    if (number + 1 < last_task) next = task_at(a, plan, number + 1);
    const Segment& segment = task.segment;
    const T* keys = keys_of<T>(a, task);
    const T* values = values_of<T>(a, task);
    const int64_t parts = (task.last_line - task.first_line + query_block - 1) / query_block;
    for (int64_t line = task.first_line; line < task.last_line; line += work.blocks * query_block) {
      bool started[kept_blocks] = {};
      const int64_t end = smaller(task.last_line, line + work.blocks * query_block);
      for (int64_t start = 0; start < segment.keys; start += work.panel) {
        const int64_t count = smaller(work.panel, segment.keys - start);
        if (packed_unit != task.unit || packed_start != start) {
          pack_keys<pairs>(work, keys + start * a.key_token, a.key_token, count, a.width);
          pack_values<pairs>(work, values + start * a.value_token, a.value_token, count, a.value_width);
          packed_unit = task.unit;
          packed_start = start;
        }
        for (int64_t slot = 0; line + slot * query_block < end; slot++) {
          const int64_t first_line = line + slot * query_block;
          if (start == 0 && far) {
            fetch_next<T>(a, task, next, (first_line - task.first_line) / query_block, parts);
            const bool last = first_line + query_block >= task.last_line;
            fetch_queries<T>(a, last ? next : task, last ? next.first_line : first_line + query_block);
          }
          attend<pairs, T>(a, work, segment, task.kv_head, first_line, smaller(query_block, end - first_line), start,
                           count, slot, started + slot);
        }
      }
      for (int64_t slot = 0; line + slot * query_block < end; slot++) {
        const int64_t first_line = line + slot * query_block;
        finish<pairs, T>(a, work, segment, task.kv_head, first_line, smaller(query_block, end - first_line), slot,
                         started[slot]);
      }
    }
  }
#if defined(EM_NATIVE_AMX)
  if (work.tiled) release_tiles();
#endif
}

}  // namespace

void attention(const Attention& a, const AttentionPlan& plan, int64_t first_task, int64_t last_task) {
  if (a.type == Type::fp32 && a.coarse)
    run<has_pairs, float>(a, plan, first_task, last_task);
  else if (a.type == Type::fp32)
    run<false, float>(a, plan, first_task, last_task);
  else
    run<has_pairs, uint16_t>(a, plan, first_task, last_task);
}

// parts_level.cpp
void attention_parts(const Attention&, const PartsPlan&, int64_t first_task, int64_t last_task);
void combine_parts(const Attention&, const PartsPlan&, int64_t first_unit, int64_t last_unit);
// rotate_level.cpp
void rotate(const Rotate&, int64_t first, int64_t last);
// norm_level.cpp
void norm(const Norm&, int64_t first_row, int64_t last_row);
void quantise(const Quantise&, int64_t first_row, int64_t last_row);
// linear_level.cpp
void linear(const Linear&, const LinearPlan&, int64_t first_task, int64_t last_task);
// coded_level.cpp
void linear_codes(const Linear&, const CodedWeight&, const LinearPlan&, int64_t first_task, int64_t last_task);
// gated_level.cpp
void gated(const Gated&, int64_t first_row, int64_t last_row);

void exponential_of(const float* from, float* to, int64_t count, bool coarse) {
  for (int64_t i = 0; i < count; i += lanes) {
    const int64_t here = smaller(lanes, count - i);
    const Vec x = load_first(from + i, here);
    store_first(to + i, coarse ? exponential_coarse(x) : exponential(x), here);
  }
}

extern const Kernels table;
const Kernels table = {EM_NATIVE_TEXT(EM_NATIVE_LEVEL), query_block, attention, attention_parts, combine_parts,
                       rotate, norm, has_pairs, has_tiles,
                       {linear_columns, linear_depth, linear_half_depth, linear_code_depth, codes_per_step},
                       linear_rows, linear_block, linear_tiled_block, linear, linear_codes,
                       quantise, gated, exponential_of};

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
