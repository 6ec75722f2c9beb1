// Operators of models that write text: rotary positions, and attention over a cache, which is written to.
//
// Arguments are checked as in register.cpp. Nothing is written before everything was checked.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "checks.h"

namespace em_native {
namespace {

// The bytes from a tensor's first number to behind its last one; check_memory has held.
std::pair<const char*, const char*> bytes_of(const Tensor& x) {
  int64_t last = 0;
  for (int64_t i = 0; i < x.dim(); i++) last += (x.size(i) - 1) * x.stride(i);
  const char* begin = static_cast<const char*>(x.const_data_ptr());
  return {begin, x.numel() == 0 ? begin : begin + (last + 1) * static_cast<int64_t>(x.element_size())};
}

void check_apart(const char* operation, const Tensor& cache, const char* cache_name, const Tensor& other,
                 const char* other_name) {
  const auto [begin, end] = bytes_of(cache);
  const auto [other_begin, other_end] = bytes_of(other);
  const bool empty = begin == end || other_begin == other_end;
  EM_NATIVE_CHECK(empty || end <= other_begin || other_end <= begin, operation, ": ", cache_name, " and ", other_name,
                  " share memory; what is written must be apart from what is read");
}

// Numbers that stand somewhere in a tensor, as [rows, heads, tokens, width], the last axis contiguous.
struct Part {
  const void* data;
  int64_t row, head, token;
};

Part part_of(const Tensor& x) { return {x.const_data_ptr(), x.stride(0), x.stride(1), x.stride(2)}; }

// A call of attention over a cache: what is checked and done whether queries, keys and values come in three tensors or
// in one. The sizes are filled in first. Caches of bf16 may take numbers of fp32, which are rounded.
struct CacheCall {
  const char* operation;
  // The argument that has the queries.
  const char* queries_in;
  const Tensor& keys;
  const Tensor& values;
  Attention attention{};
  Type given_type{};
  std::vector<int64_t> positions{}, row_keys{};
  Tensor mask{};

  // The two caches: of one type, that of what is written to them or bf16, and of sizes that it fits.
  void check_caches(const Tensor& fresh_keys, const char* keys_from, const Tensor& fresh_values,
                    const char* values_from) const {
    check_cache("keys", keys, fresh_keys, keys_from, attention.width);
    check_cache("values", values, fresh_values, values_from, attention.value_width);
    EM_NATIVE_CHECK(keys.size(2) == values.size(2), operation, ": keys is ", shape_of(keys), " and values is ",
                    shape_of(values), "; they must have the same length");
    EM_NATIVE_CHECK(keys.scalar_type() == values.scalar_type(), operation, ": keys is ",
                    c10::toString(keys.scalar_type()), " and values is ", c10::toString(values.scalar_type()),
                    "; they must be of one type");
    check_apart(operation, keys, "keys", values, "values");
  }

  // That neither cache is a part of what is read.
  void check_read(const Tensor& x, const char* argument) const {
    check_apart(operation, keys, "keys", x, argument);
    check_apart(operation, values, "values", x, argument);
  }

  void check_positions(const Tensor& given) const {
    check_memory({operation, "positions"}, given);
    EM_NATIVE_CHECK(given.scalar_type() == at::kLong && given.dim() == 2 && given.size(0) == attention.rows &&
                        given.size(1) == attention.queries,
                    operation, ": positions is ", c10::toString(given.scalar_type()), " ", shape_of(given),
                    "; it must be Long [", attention.rows, ", ", attention.queries, "]");
  }

  // A copy: what was checked must stay as it is. There are tokens.
  void take_positions(const Tensor& given) {
    Attention& a = attention;
    const int64_t* p = given.const_data_ptr<int64_t>();
    positions.resize(static_cast<size_t>(a.rows * a.queries));
    row_keys.resize(static_cast<size_t>(a.rows));
    for (int64_t row = 0; row < a.rows; row++)
      for (int64_t token = 0; token < a.queries; token++) {
        const int64_t at = p[row * given.stride(0) + token * given.stride(1)];
        EM_NATIVE_CHECK(at >= 0 && at < keys.size(2), operation, ": positions holds ", at, "; the caches have ",
                        keys.size(2), " tokens, from 0 on");
        positions[static_cast<size_t>(row * a.queries + token)] = at;
        int64_t& length = row_keys[static_cast<size_t>(row)];
        length = std::max(length, at + 1);
      }
    a.keys = *std::max_element(row_keys.begin(), row_keys.end());
    a.positions = positions.data();
    a.row_keys = row_keys.data();
  }

  // The types of what is computed, once the sizes are known. If the caches are of bf16, many queries of fp32 are rounded
  // too, and few are not.
  void choose_types(const Tensor& given) {
    given_type = type_of({operation, queries_in}, given);
    attention.cache_type = type_of({operation, "keys"}, keys);
    attention.type = few_queries(attention) ? given_type : attention.cache_type;
  }

  bool rounds() const { return attention.type != given_type; }

  Tensor in_type(const Tensor& x) const {
    return rounds() ? at::empty(x.sizes(), keys.options()).copy_(x) : x;
  }

  // What the attention writes to: the output, or its like.
  Tensor found_in(const Tensor& output) const {
    return rounds() ? at::empty(output.sizes(), keys.options()) : output;
  }

  // After the positions: it may be made for the whole length.
  void take_cache_mask(const Tensor& given) {
    check_memory({operation, "mask"}, given);
    attention.mask_type = type_of({operation, "mask"}, given);
    EM_NATIVE_CHECK(attention.mask_type == Type::fp32 || attention.mask_type == given_type, operation,
                    ": mask is BFloat16 and ", queries_in, " is Float; mask must be Float");
    mask = given.dim() == 4 && given.stride(3) != 0 ? last_axis_contiguous(given) : given;
    take_mask(operation, attention, mask, attention.queries, attention.keys, 3);
    check_read(mask, "mask");
  }

  void write(const Part& from, const Tensor& cache) const {
    CacheWrite w{};
    w.from = from.data;
    w.from_row = from.row, w.from_head = from.head, w.from_token = from.token;
    w.to = cache.mutable_data_ptr();
    w.to_row = cache.stride(0), w.to_head = cache.stride(1), w.to_token = cache.stride(2);
    w.rows = attention.rows, w.heads = attention.kv_heads, w.tokens = attention.queries, w.width = cache.size(3);
    w.positions = positions.data();
    w.element_size = static_cast<int64_t>(cache.element_size());
    w.rounded = attention.type != attention.cache_type;
    write_cache(w, parallel_for);
  }

  // Writes the new keys and values, and gives what the queries see: [rows, tokens, heads, width] at `output`.
  void run(const Part& query, const Part& key, const Part& value, const Tensor& output) {
    write(key, keys);
    write(value, values);
    Attention& a = attention;
    a.query = query.data;
    a.query_row = query.row, a.query_head = query.head, a.query_token = query.token;
    a.key = keys.const_data_ptr();
    a.value = values.const_data_ptr();
    a.key_row = keys.stride(0), a.key_head = keys.stride(1), a.key_token = keys.stride(2);
    a.value_row = values.stride(0), a.value_head = values.stride(1), a.value_token = values.stride(2);
    a.output = output.mutable_data_ptr();
    a.output_head = a.value_width;
    a.output_token = a.heads * a.output_head;
    a.output_row = a.queries * a.output_token;
    attention_cached(kernels(), a, at::get_num_threads(), parallel_for);
  }

 private:
  void check_cache(const char* argument, const Tensor& cache, const Tensor& fresh, const char* fresh_name,
                   int64_t width) const {
    const Name name{operation, argument};
    check_memory(name, cache);
    EM_NATIVE_CHECK(cache.scalar_type() == fresh.scalar_type() || cache.scalar_type() == at::kBFloat16, name, " is ",
                    c10::toString(cache.scalar_type()), " and ", fresh_name, " is ",
                    c10::toString(fresh.scalar_type()), "; they must be of one type, or ", argument, " BFloat16");
    EM_NATIVE_CHECK(cache.dim() == 4 && cache.size(0) == attention.rows && cache.size(1) == attention.kv_heads &&
                        cache.size(3) == width && cache.size(2) <= largest_size && cache.is_contiguous(),
                    name, " is ", shape_of(cache), "; it must be contiguous, [", attention.rows, ", ",
                    attention.kv_heads, ", length, ", width, "], the length at most ", largest_size);
  }
};

Tensor attend_cached(const Tensor& query_, const Tensor& key, const Tensor& value, const Tensor& keys,
                     const Tensor& values, const Tensor& positions, const std::optional<Tensor>& mask, double scale,
                     int64_t window) {
  kernels();
  const char* const name = "attend_cached";
  check_attention(name, query_, key, value, scale, window);
  CacheCall call{name, "query", keys, values};
  Attention& a = call.attention;
  type_of({name, "query"}, query_);
  a.rows = query_.size(0);
  a.heads = query_.size(1);
  a.kv_heads = key.size(1);
  a.queries = query_.size(2);
  a.width = query_.size(3);
  a.value_width = value.size(3);
  a.scale = static_cast<float>(scale);
  a.causal = true;
  EM_NATIVE_CHECK(key.size(2) == a.queries, name, ": key has ", key.size(2), " tokens and query has ", a.queries,
                  "; they must be equal");
  call.check_caches(key, "key", value, "value");
  call.check_positions(positions);
  call.choose_types(query_);
  const std::pair<const char*, const Tensor&> read[] = {{"query", query_}, {"key", key}, {"value", value}};
  for (const auto& [argument, x] : read) call.check_read(x, argument);
  a.window = std::min(window, keys.size(2));
  // Before the positions are copied: sizes that no memory stands behind end here.
  const Tensor output = at::empty({a.rows, a.queries, a.heads, a.value_width}, query_.options());
  if (output.numel() == 0) return output;
  call.take_positions(positions);
  if (mask) call.take_cache_mask(*mask);
  const Tensor query = last_axis_contiguous(call.in_type(query_));
  const Tensor fresh_keys = last_axis_contiguous(call.in_type(key));
  const Tensor fresh_values = last_axis_contiguous(call.in_type(value));
  const Tensor found = call.found_in(output);
  call.run(part_of(query), part_of(fresh_keys), part_of(fresh_values), found);
  if (!found.is_same(output)) output.copy_(found);
  return output;
}

// The angles of a rotation, whose sizes and types are filled in. Holds what it made contiguous.
struct Angles {
  Tensor cosines, sines;

  Angles(const char* operation, const char* turned, Rotate& r, const Tensor& cosines_, const Tensor& sines_) {
    const std::pair<const char*, const Tensor&> both[] = {{"cosines", cosines_}, {"sines", sines_}};
    for (const auto& [argument, angles] : both) {
      const Name name{operation, argument};
      check_memory(name, angles);
      r.angle_type = type_of(name, angles);
      EM_NATIVE_CHECK(r.angle_type == Type::fp32 || r.angle_type == r.type, name, " is BFloat16 and ", turned,
                      " is Float; it must be Float");
      EM_NATIVE_CHECK(angles.dim() == 4 && (angles.size(0) == r.rows || angles.size(0) == 1) && angles.size(1) == 1 &&
                          angles.size(2) == r.tokens && angles.size(3) == r.width,
                      name, " is ", shape_of(angles), "; it must be [", r.rows, " or 1, 1, ", r.tokens, ", ", r.width,
                      "]");
    }
    EM_NATIVE_CHECK(cosines_.scalar_type() == sines_.scalar_type() && cosines_.size(0) == sines_.size(0), operation,
                    ": cosines and sines differ; they must be alike");
    cosines = cosines_;
    sines = sines_;
  }

  // After the output was allocated, which is larger: of one layout, whatever the given ones have.
  void take(Rotate& r) {
    cosines = cosines.contiguous();
    sines = sines.contiguous();
    r.cosines = cosines.const_data_ptr();
    r.sines = sines.const_data_ptr();
    r.angle_row = cosines.size(0) == 1 ? 0 : r.tokens * r.width;
    r.angle_token = r.width;
  }
};

// Queries, keys and values behind each other in the last axis, heads next to each other in each.
Tensor attend_joined(const Tensor& joined_, const std::optional<Tensor>& cosines, const std::optional<Tensor>& sines,
                     const Tensor& keys, const Tensor& values, const Tensor& positions,
                     const std::optional<Tensor>& mask, double scale, int64_t window) {
  const Kernels& level = kernels();
  const char* const name = "attend_joined";
  const Name joined_name{name, "joined"};
  check_memory(joined_name, joined_);
  CacheCall call{name, "joined", keys, values};
  Attention& a = call.attention;
  type_of(joined_name, joined_);
  EM_NATIVE_CHECK(joined_.dim() == 3 && joined_.size(0) <= largest_size && joined_.size(1) <= largest_size &&
                      joined_.size(2) <= largest_size,
                  joined_name, " is ", shape_of(joined_), "; it must have 3 axes, none over ", largest_size);
  check_settings(name, scale, window);
  const std::pair<const char*, const Tensor&> caches[] = {{"keys", keys}, {"values", values}};
  for (const auto& [argument, cache] : caches)
    EM_NATIVE_CHECK(cache.dim() == 4 && cache.size(1) >= 1 && cache.size(1) <= largest_size && cache.size(3) >= 1 &&
                        cache.size(3) <= widest,
                    name, ": ", argument, " is ", shape_of(cache),
                    "; it must have 4 axes, at least 1 head, and a width from 1 to ", widest);
  a.rows = joined_.size(0);
  a.queries = joined_.size(1);
  a.kv_heads = keys.size(1);
  a.width = keys.size(3);
  a.value_width = values.size(3);
  const int64_t features = joined_.size(2), of_queries = features - a.kv_heads * (a.width + a.value_width);
  a.heads = of_queries / a.width;
  EM_NATIVE_CHECK(of_queries > 0 && of_queries % a.width == 0 && a.heads % a.kv_heads == 0, joined_name, " has ",
                  features, " features; behind the queries' heads, a multiple of ", a.kv_heads, " of width ", a.width,
                  ", it must have ", a.kv_heads, " of keys and ", a.kv_heads, " of values, of width ", a.value_width);
  a.scale = static_cast<float>(scale);
  a.causal = true;
  call.check_caches(joined_, "joined", joined_, "joined");
  call.check_positions(positions);
  call.check_read(joined_, "joined");
  call.choose_types(joined_);
  a.window = std::min(window, keys.size(2));
  EM_NATIVE_CHECK(cosines.has_value() == sines.has_value(), name,
                  ": one of cosines and sines is None; both must be, or none");
  Rotate r{};
  r.type = type_of(joined_name, joined_);
  // The heads of queries and keys, which stand next to each other.
  r.rows = a.rows, r.heads = a.heads + a.kv_heads, r.tokens = a.queries, r.width = a.width;
  std::optional<Angles> angles;
  if (cosines) {
    EM_NATIVE_CHECK(a.width % 2 == 0, name, ": keys is ", shape_of(keys),
                    "; with cosines the last axis must be even");
    angles.emplace(name, "joined", r, *cosines, *sines);
    call.check_read(*cosines, "cosines");
    call.check_read(*sines, "sines");
  }
  // Before the positions are copied: sizes that no memory stands behind end here.
  const Tensor output = at::empty({a.rows, a.queries, a.heads * a.value_width}, joined_.options());
  if (output.numel() == 0) return output;
  call.take_positions(positions);
  if (mask) call.take_cache_mask(*mask);
  const Tensor joined = last_axis_contiguous(joined_);
  // Queries and keys, then values: the first number, and the strides of rows and tokens.
  struct Place {
    Tensor of;
    int64_t first, row, token;
    Part heads(int64_t behind, int64_t width) const {
      const char* data = static_cast<const char*>(of.const_data_ptr());
      return {data + (first + behind) * static_cast<int64_t>(of.element_size()), row, width, token};
    }
  };
  const int64_t of_keys = a.kv_heads * a.width, of_values = a.kv_heads * a.value_width;
  Place turned{joined, 0, joined.stride(0), joined.stride(1)};
  Place fresh{joined, of_queries + of_keys, joined.stride(0), joined.stride(1)};
  if (angles) {
    turned = {at::empty({r.rows, r.tokens, r.heads * r.width}, joined.options()), 0, r.tokens * r.heads * r.width,
              r.heads * r.width};
    r.x = joined.const_data_ptr();
    r.x_row = joined.stride(0), r.x_head = a.width, r.x_token = joined.stride(1);
    angles->take(r);
    r.output = turned.of.mutable_data_ptr();
    rotate(level, r, parallel_for);
  }
  if (call.rounds()) {
    const auto rounded = [&](const Place& place, int64_t count) {
      const Tensor made = call.in_type(place.of.narrow(2, place.first, count));
      return Place{made, 0, made.stride(0), made.stride(1)};
    };
    turned = rounded(turned, of_queries + of_keys);
    fresh = rounded(fresh, of_values);
  }
  const Tensor found = call.found_in(output);
  call.run(turned.heads(0, a.width), turned.heads(of_queries, a.width), fresh.heads(0, a.value_width), found);
  if (!found.is_same(output)) output.copy_(found);
  return output;
}

Tensor rotate_operator(const Tensor& x_, const Tensor& cosines_, const Tensor& sines_) {
  const Kernels& level = kernels();
  check_memory({"rotate", "x"}, x_);
  Rotate r{};
  r.type = type_of({"rotate", "x"}, x_);
  EM_NATIVE_CHECK(x_.dim() == 4 && x_.size(3) >= 2 && x_.size(3) <= largest_size && x_.size(3) % 2 == 0,
                  "rotate: x is ", shape_of(x_), "; it must have 4 axes, the last one even");
  r.rows = x_.size(0), r.heads = x_.size(1), r.tokens = x_.size(2), r.width = x_.size(3);
  Angles angles("rotate", "x", r, cosines_, sines_);
  const Tensor output = at::empty({r.rows, r.tokens, r.heads, r.width}, x_.options());
  if (output.numel() == 0) return output.transpose(1, 2);
  const Tensor x = last_axis_contiguous(x_);
  r.x = x.const_data_ptr();
  r.x_row = x.stride(0), r.x_head = x.stride(1), r.x_token = x.stride(2);
  angles.take(r);
  r.output = output.mutable_data_ptr();
  rotate(level, r, parallel_for);
  return output.transpose(1, 2);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(em_native, library) {
  // Writes the new keys and values to their positions in `keys` and `values`, then each query sees the keys up to its
  // own position. The result: [rows, tokens, heads, width], of the queries' type. Caches of bf16 take fp32 too.
  library.def(
      "attend_cached(Tensor query, Tensor key, Tensor value, Tensor(a!) keys, Tensor(b!) values, Tensor positions, "
      "Tensor? mask, float scale, int window) -> Tensor");
  // The same for queries, keys and values as one linear gives them, [rows, tokens, features]. With cosines and sines
  // the queries and keys are rotated first. The result: [rows, tokens, heads * width].
  library.def(
      "attend_joined(Tensor joined, Tensor? cosines, Tensor? sines, Tensor(a!) keys, Tensor(b!) values, "
      "Tensor positions, Tensor? mask, float scale, int window) -> Tensor");
  library.def("rotate(Tensor x, Tensor cosines, Tensor sines) -> Tensor");
}

TORCH_LIBRARY_IMPL(em_native, CPU, library) {
  library.impl("attend_cached", attend_cached);
  library.impl("attend_joined", attend_joined);
  library.impl("rotate", rotate_operator);
}

}  // namespace em_native
