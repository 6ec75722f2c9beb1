// Attention of few queries over many keys on one level's vectors: what the new tokens of a row read of its cache.
//
// Nothing is packed. A task takes a part of the keys of one row and one head, a block of them at a time, and each key
// and value is read once from memory, for all queries ("lines") of the heads that share it. Several parts of one head
// keep their maxima and sums, which `combine_parts` puts together as the panels of attention_level.cpp are.
#include "softmax.h"
#include "vector.h"

namespace em_native {
namespace EM_NATIVE_LEVEL {
namespace {

// Keys of a block: with their values they stay in the first two levels of the cache for the next lines.
constexpr int64_t block_keys = 128;
constexpr int64_t score_stride = block_keys + lanes;
// Lines whose sums registers hold, and keys that are read beside each other.
constexpr int most_lines = 4;
constexpr int pair = 2;
#if defined(EM_NATIVE_AVX512)
constexpr int most_vectors = 4;
#else
constexpr int most_vectors = 2;
#endif

// scores[i][j] = (line i * key j) * scale for `count` keys next to each other.
template <typename T, int keys, int lines>
EM_NATIVE_INLINE void score_some(const T* key, int64_t stride, int64_t width, const float* queries, int64_t depth,
                                 float* scores, float scale) {
  Vec sums[keys][lines];
#pragma GCC unroll 2
  for (int j = 0; j < keys; j++)
#pragma GCC unroll 4
    for (int i = 0; i < lines; i++) sums[j][i] = zero();
  int64_t d = 0;
  for (; d + lanes <= width; d += lanes) {
    Vec numbers[keys];
#pragma GCC unroll 2
    for (int j = 0; j < keys; j++) numbers[j] = load(key + j * stride + d);
#pragma GCC unroll 4
    for (int i = 0; i < lines; i++) {
      const Vec query = load(queries + i * depth + d);
#pragma GCC unroll 2
      for (int j = 0; j < keys; j++) sums[j][i] = multiply_add(numbers[j], query, sums[j][i]);
    }
  }
  if (d < width)
    for (int j = 0; j < keys; j++) {
      const Vec numbers = load_first(key + j * stride + d, width - d);
#pragma GCC unroll 4
      for (int i = 0; i < lines; i++) sums[j][i] = multiply_add(numbers, load(queries + i * depth + d), sums[j][i]);
    }
#pragma GCC unroll 2
  for (int j = 0; j < keys; j++)
#pragma GCC unroll 4
    for (int i = 0; i < lines; i++) scores[i * score_stride + j] = sum_of(sums[j][i]) * scale;
}

template <typename T, int lines>
void score_keys(const T* keys, int64_t stride, int64_t count, int64_t width, const float* queries, int64_t depth,
                float* scores, float scale) {
  int64_t j = 0;
  for (; j + pair <= count; j += pair)
    score_some<T, pair, lines>(keys + j * stride, stride, width, queries, depth, scores + j, scale);
  if (j < count) score_some<T, 1, lines>(keys + j * stride, stride, width, queries, depth, scores + j, scale);
}

// sums[i] += probabilities[i] * values, `vectors` vectors of their columns; the last one of `last` numbers.
template <typename T, int lines, int vectors, bool whole>
EM_NATIVE_INLINE void add_columns(const float* probabilities, const T* values, int64_t stride, int64_t count,
                                  int64_t last, float* sums, int64_t sum_stride) {
  Vec added[lines][vectors];
#pragma GCC unroll 4
  for (int i = 0; i < lines; i++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) added[i][v] = zero();
  for (int64_t j = 0; j < count; j++) {
    Vec numbers[vectors];
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++)
      numbers[v] = whole ? load(values + j * stride + v * lanes) : load_first(values + j * stride + v * lanes, last);
#pragma GCC unroll 4
    for (int i = 0; i < lines; i++) {
      const Vec factor = all(probabilities[i * score_stride + j]);
#pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) added[i][v] = multiply_add(factor, numbers[v], added[i][v]);
    }
  }
  // Added last: a sum of sums loses less than one long sum.
#pragma GCC unroll 4
  for (int i = 0; i < lines; i++)
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
      float* to = sums + i * sum_stride + v * lanes;
      store(to, add(load(to), added[i][v]));
    }
}

template <typename T, int lines>
void add_values(const float* probabilities, const T* values, int64_t stride, int64_t count, int64_t width, float* sums,
                int64_t sum_stride) {
  int64_t c = 0;
  for (; c + most_vectors * lanes <= width; c += most_vectors * lanes)
    add_columns<T, lines, most_vectors, true>(probabilities, values + c, stride, count, lanes, sums + c, sum_stride);
  for (; c + lanes <= width; c += lanes)
    add_columns<T, lines, 1, true>(probabilities, values + c, stride, count, lanes, sums + c, sum_stride);
  if (c < width)
    add_columns<T, lines, 1, false>(probabilities, values + c, stride, count, width - c, sums + c, sum_stride);
}

template <typename T>
using Score = void (*)(const T*, int64_t, int64_t, int64_t, const float*, int64_t, float*, float);
template <typename T>
using AddValues = void (*)(const float*, const T*, int64_t, int64_t, int64_t, float*, int64_t);

// The calling thread's memory for one head of keys.
struct PartWork {
  int64_t lines, depth, columns;
  float *queries, *scores, *sums, *maxima, *totals;
  float* started;  // not 0 once a line has seen a key

  PartWork(const Attention& a, int64_t count) {
    lines = count;
    depth = round_up(a.width, lanes);
    columns = round_up(a.value_width, lanes);
    const int64_t counts[] = {lines * depth, most_lines * score_stride, lines * columns, lines, lines, lines};
    int64_t all_of_them = 0;
    for (const int64_t part : counts) all_of_them += round_up(part, 16);
    float* next = static_cast<float*>(scratch(static_cast<size_t>(all_of_them) * sizeof(float)));
    float** const parts[] = {&queries, &scores, &sums, &maxima, &totals, &started};
    for (int i = 0; i < 6; i++) {
      *parts[i] = next;
      next += round_up(counts[i], 16);
    }
  }
};

template <typename T>
EM_NATIVE_INLINE void begin(const Attention& a, const PartWork& work, const Segment& segment, int64_t kv_head) {
  for (int64_t i = 0; i < work.lines; i++) {
    const Line line = line_at(a, segment, kv_head, i);
    const T* query = static_cast<const T*>(a.query) + segment.row * a.query_row + line.head * a.query_head +
                     line.query * a.query_token;
    for (int64_t d = 0; d < work.depth; d += lanes) {
      const int64_t here = a.width - d;
      store(work.queries + i * work.depth + d, here >= lanes ? load(query + d) : load_first(query + d, here));
    }
    for (int64_t c = 0; c < work.columns; c += lanes) store(work.sums + i * work.columns + c, zero());
    work.started[i] = 0.0f;
    work.maxima[i] = minus_infinity();
    work.totals[i] = 0.0f;
  }
}

// The lines [first, first + lines) and the keys [start, end).
template <typename T>
EM_NATIVE_INLINE void attend_block(const Attention& a, const PartWork& work, const Segment& segment, int64_t kv_head,
                                   int64_t first, int64_t lines, int64_t start, int64_t end) {
  static constexpr Score<T> score[] = {score_keys<T, 1>, score_keys<T, 2>, score_keys<T, 3>, score_keys<T, 4>};
  static constexpr AddValues<T> add_to[] = {add_values<T, 1>, add_values<T, 2>, add_values<T, 3>, add_values<T, 4>};
  Line at[most_lines];
  int64_t from = end, to = start;
  for (int64_t i = 0; i < lines; i++) {
    at[i] = line_at(a, segment, kv_head, first + i);
    from = smaller(from, at[i].first_key);
    to = larger(to, at[i].last_key);
  }
  from = larger(from, start);
  to = smaller(to, end);
  if (from >= to) return;
  const T* keys = static_cast<const T*>(a.key) + segment.row * a.key_row + kv_head * a.key_head + from * a.key_token;
  const T* values =
      static_cast<const T*>(a.value) + segment.row * a.value_row + kv_head * a.value_head + from * a.value_token;
  const int64_t count = to - from;
  score[lines - 1](keys, a.key_token, count, a.width, work.queries + first * work.depth, work.depth, work.scores,
                   a.scale);
  const int64_t mask_bytes = a.mask_type == Type::fp32 ? 4 : 2;
  for (int64_t i = 0; i < lines; i++) {
    const char* mask = nullptr;
    if (a.mask)
      mask = static_cast<const char*>(a.mask) +
             mask_bytes * (segment.row * a.mask_row + at[i].head * a.mask_head + at[i].query * a.mask_query +
                           from * a.mask_key);
    const int64_t line = first + i;
    const bool started = work.started[line] != 0.0f;
    const float factor = softmax<false>(
        a, work.scores + i * score_stride, mask, smaller(count, larger(0, at[i].first_key - from)),
        smaller(count, larger(0, at[i].last_key - from)), round_up(count, lanes), started, work.maxima + line,
        work.totals + line);
    if (started && factor != 1.0f)
      for (int64_t c = 0; c < work.columns; c += lanes) {
        float* p = work.sums + line * work.columns + c;
        store(p, multiply(load(p), all(factor)));
      }
    work.started[line] = 1.0f;
  }
  add_to[lines - 1](work.scores, values, a.value_token, count, a.value_width, work.sums + first * work.columns,
                    work.columns);
}

// `sums` divided by `total` to the output of one line; 0 where no key was seen.
template <typename T>
EM_NATIVE_INLINE void write_line(const Attention& a, int64_t row, const Line& line, const float* sums, float total) {
  T* output = static_cast<T*>(a.output) + row * a.output_row + line.head * a.output_head + line.query * a.output_token;
  const Vec factor = all(1.0f / total);
  for (int64_t c = 0; c < a.value_width; c += lanes) {
    const Vec result = total == 0.0f ? zero() : multiply(load(sums + c), factor);
    if (c + lanes <= a.value_width)
      store(output + c, result);
    else
      store_first(output + c, result, a.value_width - c);
  }
}

// Queries and output of type T, and a cache of type C.
template <typename T, typename C>
void run_parts(const Attention& a, const PartsPlan& plan, int64_t first_task, int64_t last_task) {
  const PartWork work(a, a.queries * (a.heads / a.kv_heads));
  for (int64_t task = first_task; task < last_task; task++) {
    const int64_t unit = task / plan.parts, part = task % plan.parts, row = unit / a.kv_heads;
    const int64_t kv_head = unit % a.kv_heads;
    const Segment segment{row, 0, a.queries, a.row_keys[row]};
    begin<T>(a, work, segment, kv_head);
    int64_t from = segment.keys, to = 0;
    for (int64_t i = 0; i < work.lines; i++) {
      const Line line = line_at(a, segment, kv_head, i);
      from = smaller(from, line.first_key);
      to = larger(to, line.last_key);
    }
    from = larger(from, part * plan.part_keys);
    const int64_t end = smaller(to, (part + 1) * plan.part_keys);
    for (int64_t start = from; start < end; start += block_keys)
      for (int64_t first = 0; first < work.lines; first += most_lines)
        attend_block<C>(a, work, segment, kv_head, first, smaller(most_lines, work.lines - first), start,
                        smaller(end, start + block_keys));
    for (int64_t i = 0; i < work.lines; i++) {
      const float* sums = work.sums + i * work.columns;
      if (plan.parts == 1) {
        write_line<T>(a, row, line_at(a, segment, kv_head, i), sums, work.totals[i]);
        continue;
      }
      float* kept = plan.partial + (task * work.lines + i) * (2 + plan.partial_columns);
      kept[0] = work.maxima[i];
      kept[1] = work.totals[i];
      for (int64_t c = 0; c < work.columns; c += lanes) store(kept + 2 + c, load(sums + c));
    }
  }
}

template <typename T>
void combine(const Attention& a, const PartsPlan& plan, int64_t first_unit, int64_t last_unit) {
  const PartWork work(a, 1);
  const int64_t lines = a.queries * (a.heads / a.kv_heads), size = 2 + plan.partial_columns;
  for (int64_t unit = first_unit; unit < last_unit; unit++) {
    const Segment segment{unit / a.kv_heads, 0, a.queries, a.row_keys[unit / a.kv_heads]};
    for (int64_t i = 0; i < lines; i++) {
      const float* parts = plan.partial + (unit * plan.parts * lines + i) * size;
      float top = minus_infinity(), total = 0.0f;
      for (int64_t part = 0; part < plan.parts; part++)
        if (parts[part * lines * size] > top) top = parts[part * lines * size];
      const float base = top == minus_infinity() ? 0.0f : top;
      for (int64_t c = 0; c < work.columns; c += lanes) store(work.sums + c, zero());
      for (int64_t part = 0; part < plan.parts; part++) {
        const float* kept = parts + part * lines * size;
        float factor[lanes];
        store(factor, exponential(all(kept[0] - base)));
        total += kept[1] * factor[0];
        for (int64_t c = 0; c < work.columns; c += lanes)
          store(work.sums + c, multiply_add(load(kept + 2 + c), all(factor[0]), load(work.sums + c)));
      }
      write_line<T>(a, segment.row, line_at(a, segment, unit % a.kv_heads, i), work.sums, total);
    }
  }
}

}  // namespace

void attention_parts(const Attention& a, const PartsPlan& plan, int64_t first_task, int64_t last_task) {
  if (a.type == Type::bf16)
    run_parts<uint16_t, uint16_t>(a, plan, first_task, last_task);
  else if (a.cache_type == Type::bf16)
    run_parts<float, uint16_t>(a, plan, first_task, last_task);
  else
    run_parts<float, float>(a, plan, first_task, last_task);
}

void combine_parts(const Attention& a, const PartsPlan& plan, int64_t first_unit, int64_t last_unit) {
  if (a.type == Type::fp32)
    combine<float>(a, plan, first_unit, last_unit);
  else
    combine<uint16_t>(a, plan, first_unit, last_unit);
}

}  // namespace EM_NATIVE_LEVEL
}  // namespace em_native
