// The kernels' interface: pointers, sizes and strides, nothing of torch.
//
// The files *_level.cpp are compiled once per level (CMakeLists.txt) and fill one table of functions per level;
// levels.cpp chooses the table. register.cpp and register_decoder.cpp check the arguments and call the functions at the
// end of this file.
// The kernels check nothing: whoever calls them has checked every size, stride and offset.
#pragma once

#include <cstddef>
#include <cstdint>

namespace em_native {

// Calls body(context, from, to) for ranges that together make up [begin, end), on several threads.
using Body = void (*)(void* context, int64_t begin, int64_t end);
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain, Body body, void* context);

enum class Type { fp32, bf16, int8 };  // int8: codes of packed weights alone

// Strides count elements. The last axis of query, key, value and output is contiguous.
struct Attention {
  Type type;
  const void* query;
  const void* key;
  const void* value;
  void* output;
  int64_t rows, heads, kv_heads, queries, keys, width, value_width;
  int64_t query_row, query_head, query_token;
  int64_t key_row, key_head, key_token;
  int64_t value_row, value_head, value_token;
  int64_t output_row, output_head, output_token;
  // Tokens offsets[i] to offsets[i + 1] are one segment; null: every row is one segment, and segments is 0.
  const int64_t* offsets;
  int64_t segments;
  // Added to the scaled products; null: nothing is. A stride of 0 repeats.
  const void* mask;
  Type mask_type;
  int64_t mask_row, mask_head, mask_query, mask_key;
  float scale;
  // Of a cache, and null otherwise: where each query stands, [rows, queries], and how many keys each row has. Few
  // queries of fp32 (`few_queries`) read one of bf16; otherwise its type is that of the queries.
  const int64_t* positions;
  const int64_t* row_keys;
  Type cache_type;
  // The queries are the last of the keys, or stand at `positions`. Causal: key <= query. Window > 0: query - key < window, and if not causal
  // key - query < window; at most queries + keys.
  bool causal;
  int64_t window;
  // Inputs of fp32 may be rounded to bf16 for the products, and are where the processor has products of bf16 pairs.
  bool coarse;
};

// How the work is cut: a task is a share of the queries of one segment (or row) and one head of the keys.
// "Lines" are the queries of all heads that share that head, one head's after the other's.
struct AttentionPlan {
  int64_t task_lines;
  // Tasks per head of the keys that come before each segment, and their sum at the end; null without offsets.
  const int64_t* tasks_before;
  int64_t tasks_per_head;
  int64_t longest_keys;  // of any segment
};

// Attention of few queries: a task is a part of the keys of one row and one head. With several parts their maxima and
// sums stand at `partial`, which `combine_parts` puts together.
struct PartsPlan {
  int64_t parts, part_keys;
  float* partial;  // [rows, heads of the keys, parts, lines, 2 + partial_columns]
  int64_t partial_columns;
};

// New keys or values, [rows, heads, tokens, width], to their places in a cache, [rows, heads, length, width].
struct CacheWrite {
  const void* from;
  int64_t from_row, from_head, from_token;
  void* to;
  int64_t to_row, to_head, to_token;
  int64_t rows, heads, tokens, width;
  const int64_t* positions;  // [rows, tokens], below the length
  int64_t element_size;      // of what is written
  bool rounded;              // from fp32 to bf16
};

// Rotary positions: y = x * cos + turned(x) * sin, where turned(x) is the second half of the features, negated, and then
// the first. [rows, heads, tokens, width] to [rows, tokens, heads, width]; the width is even.
struct Rotate {
  Type type;
  const void* x;
  int64_t x_row, x_head, x_token;
  const void* cosines;  // [rows, tokens, width]; a stride of 0 repeats
  const void* sines;    // of the same type and strides
  Type angle_type;
  int64_t angle_row, angle_token;
  void* output;
  int64_t rows, heads, tokens, width;
};

// y = norm(x + residual) * weight + bias over the last axis; every tensor is contiguous.
struct Norm {
  Type type;
  const void* x;
  const void* residual;  // null: nothing is added
  const void* weight;    // null: 1
  const void* bias;      // null: 0
  Type weight_type;      // of weight and bias
  void* output;
  void* sum;  // x + residual, rounded to the type; null: not wanted
  // The output as codes with a scale and a zero per row, as Quantise gives them; null: not wanted. Rows of at most
  // 64 Ki numbers.
  uint8_t* codes;
  float* scales;
  int64_t rows, size;
  float epsilon;
  bool centred;  // layer norm; otherwise RMS norm
};

enum class Activation { none, gelu, gelu_tanh, relu, silu, tanh, sigmoid };

// y = activation(first half of the features) * second half: [rows, 2 * size] to [rows, size].
struct Gated {
  Type type;
  const void* x;
  int64_t x_row;
  void* output;
  int64_t rows, size;
  Activation activation;
};

// y = activation(x * weight^T + bias) + residual, for [rows, inputs] and [outputs, inputs]. Strides count elements; the
// last axis of every tensor is contiguous.
struct Linear {
  Type type;         // of x (unless it is codes), residual and output
  const void* x;     // codes from 0 to 255 if the weight has codes
  int64_t x_row;
  const void* weight;  // as `pack` lays it out
  Type weight_type;    // fp32 (for x of fp32), bf16 or int8
  const float* row_scales;     // codes: per row the scale and the code of 0, which is a whole number
  const float* weight_scales;  // codes: one per output
  const void* bias;            // null: 0
  Type bias_type;
  const void* residual;        // null: nothing is added
  int64_t residual_row;
  void* output;
  int64_t output_row;
  int64_t rows, inputs, outputs;
  Activation activation;
};

// The rows of a linear are cut into blocks of this height; a task is one of them and one panel of outputs.
struct LinearPlan {
  int64_t height;
};

// A weight in the order in which the products read it. Panels of `columns` outputs, and as many inputs at a time as
// a block has (`depth` of fp32, `half_depth` of bf16, `code_depth` of int8); the last panel is filled up with zeros.
// Within a block of inputs and a panel: for each step (1 input of fp32, 2 of bf16, `codes` of int8) the numbers of
// all columns, an output's next to each other. After codes come their sums per output.
struct WeightLayout {
  int64_t columns, depth, half_depth, code_depth, codes;
};

struct Pack {
  Type type;
  const void* weight;  // [outputs, inputs], contiguous
  void* packed;        // packed_bytes() bytes
  int64_t outputs, inputs;
};

// A weight as codes that are widened where they are used, so that the products are those of numbers. Panels of
// `code_columns` outputs, the same on every level; the last one is filled up with any codes.
//   8 bits: int8 [panels, inputs, code_columns]. A number is the code times the output's scale (Linear::weight_scales).
//   4 bits: [panels, inputs / 8, code_columns, 4] bytes: for an output eight inputs, the first in the lowest bits. A
//   number is (code - zero) * scale; these are fp16, [panels, groups, code_columns], for `group` inputs each.
struct CodedWeight {
  const void* codes;
  int bits;
  const uint16_t* scales;  // 4 bits
  const uint16_t* zeros;   // 4 bits
  int64_t group;           // 4 bits: 32, 64 or 128, which divide every level's block of inputs
};
constexpr int64_t code_columns = 32;

// Rows of a table whose weight is coded by 8 bits: the rows are the outputs, and `size` is its inputs.
struct Lookup {
  const int64_t* rows;
  int64_t count, size;
  const int8_t* codes;
  const float* scales;
  float* output;  // [count, size]
};

// Rows to codes: x is about (code - zero) * scale, with a scale and a zero per row.
struct Quantise {
  Type type;
  const void* x;
  int64_t x_row, rows, size;
  uint8_t* codes;  // [rows, size]
  float* scales;   // [rows, 2]
};

// What a level offers.
struct Kernels {
  const char* name;
  // Queries that are computed together; a task's share is a multiple of it.
  int64_t query_block;
  void (*attention)(const Attention&, const AttentionPlan&, int64_t first_task, int64_t last_task);
  void (*attention_parts)(const Attention&, const PartsPlan&, int64_t first_task, int64_t last_task);
  // Units: the rows' heads of the keys.
  void (*combine_parts)(const Attention&, const PartsPlan&, int64_t first_unit, int64_t last_unit);
  void (*rotate)(const Rotate&, int64_t first_token, int64_t last_token);
  void (*norm)(const Norm&, int64_t first_row, int64_t last_row);
  // Products of bf16 pairs: for weights of bf16, inputs of fp32 are rounded to bf16.
  bool pairs;
  // Tile registers: for weights of codes, the last digits of few rows and of many differ.
  bool tiles;
  WeightLayout weight_layout;
  // Rows that are computed together; the height of a block is a multiple of it, and at most `linear_block`, or
  // `tiled_block` for weights that tile registers multiply (all but fp32).
  int64_t linear_rows, linear_block, tiled_block;
  void (*linear)(const Linear&, const LinearPlan&, int64_t first_task, int64_t last_task);
  void (*linear_codes)(const Linear&, const CodedWeight&, const LinearPlan&, int64_t first_task, int64_t last_task);
  void (*quantise)(const Quantise&, int64_t first_row, int64_t last_row);
  void (*gated)(const Gated&, int64_t first_row, int64_t last_row);
  // exp of each number, as the softmax computes it for fp32 and (coarse) for bf16. For tests.
  void (*exponential)(const float* from, float* to, int64_t count, bool coarse);
};

// The levels of this build from the lowest up, whether or not the processor has them.
const Kernels* const* all_levels();
constexpr int levels = EM_NATIVE_LEVELS;
// How many of them the processor and the operating system have.
int available_levels();
// The level to use: the highest available one, or what EXPORTED_MODEL_KERNELS names. Throws std::runtime_error with
// one line if there is none.
const Kernels& kernels();

// At least that many bytes at a multiple of 64, the calling thread's until its next call.
void* scratch(size_t bytes);

void attention(const Kernels&, const Attention&, int threads, ParallelFor);
// Whether the queries of a row are so few that its cache is read as it is.
bool few_queries(const Attention&);
// With positions and row_keys.
void attention_cached(const Kernels&, const Attention&, int threads, ParallelFor);
void write_cache(const CacheWrite&, ParallelFor);
void rotate(const Kernels&, const Rotate&, ParallelFor);
void norm(const Kernels&, const Norm&, ParallelFor);
void linear(const Kernels&, const Linear&, int threads, ParallelFor);
// The same with a coded weight; `weight` is not read.
void linear_codes(const Kernels&, const Linear&, const CodedWeight&, ParallelFor);
void look_up(const Lookup&, ParallelFor);
void quantise(const Kernels&, const Quantise&, ParallelFor);
void gated(const Kernels&, const Gated&, ParallelFor);
void pack(const WeightLayout&, const Pack&, ParallelFor);
int64_t packed_bytes(const WeightLayout&, Type, int64_t outputs, int64_t inputs);

}  // namespace em_native
