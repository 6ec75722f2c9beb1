// The tile registers of AMX as memory, for tests on processors without them: the functions of runtime/kernels/tiles.h,
// which includes this inside its namespace. Sums of bf16 are those of the instruction: even and odd inputs apart, then
// both added to what was there.

EM_NATIVE_INLINE void configure_tiles() {}
EM_NATIVE_INLINE void release_tiles() {}

alignas(64) thread_local char emulated_tiles[8][tile_side][tile_bytes];

template <int tile>
EM_NATIVE_INLINE void clear_tile() {
  __builtin_memset(emulated_tiles[tile], 0, sizeof emulated_tiles[tile]);
}

template <int tile>
EM_NATIVE_INLINE void load_tile(const void* from, int64_t stride) {
  for (int64_t i = 0; i < tile_side; i++)
    __builtin_memcpy(emulated_tiles[tile][i], static_cast<const char*>(from) + i * stride, tile_bytes);
}

template <int tile>
EM_NATIVE_INLINE void store_tile(void* to, int64_t stride) {
  for (int64_t i = 0; i < tile_side; i++)
    __builtin_memcpy(static_cast<char*>(to) + i * stride, emulated_tiles[tile][i], tile_bytes);
}

EM_NATIVE_INLINE float emulated_bf16(const char* at) {
  uint32_t bits = 0;
  __builtin_memcpy(reinterpret_cast<char*>(&bits) + 2, at, 2);
  float number;
  __builtin_memcpy(&number, &bits, 4);
  return number;
}

template <int sums, int rows, int weights>
EM_NATIVE_INLINE void multiply_pair_tiles() {
  for (int64_t i = 0; i < tile_side; i++)
    for (int64_t j = 0; j < tile_side; j++) {
      float* sum = reinterpret_cast<float*>(emulated_tiles[sums][i]) + j;
      float even = 0, odd = 0;
      for (int64_t k = 0; k < tile_side; k++) {
        const char *a = emulated_tiles[rows][i] + 4 * k, *b = emulated_tiles[weights][k] + 4 * j;
        even += emulated_bf16(a) * emulated_bf16(b);
        odd += emulated_bf16(a + 2) * emulated_bf16(b + 2);
      }
      *sum += even + odd;
    }
}

template <int sums, int rows, int weights>
EM_NATIVE_INLINE void multiply_code_tiles() {
  for (int64_t i = 0; i < tile_side; i++)
    for (int64_t j = 0; j < tile_side; j++) {
      int32_t* sum = reinterpret_cast<int32_t*>(emulated_tiles[sums][i]) + j;
      for (int64_t k = 0; k < tile_bytes; k++)
        *sum += static_cast<uint8_t>(emulated_tiles[rows][i][k]) *
                static_cast<int8_t>(emulated_tiles[weights][k / 4][4 * j + k % 4]);
    }
}
