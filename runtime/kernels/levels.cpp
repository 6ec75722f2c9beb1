// Which level the processor has, which one to use, and memory that each thread keeps. Compiled for every x86-64.
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "kernels.h"

namespace em_native {

namespace avx2 {
extern const Kernels table;
}
#if EM_NATIVE_LEVELS > 1
namespace avx512 {
extern const Kernels table;
}
#endif
#if EM_NATIVE_LEVELS > 2
namespace avx512_vnni {
extern const Kernels table;
}
#endif
#if EM_NATIVE_LEVELS > 3
namespace avx512_bf16 {
extern const Kernels table;
}
#endif
#if EM_NATIVE_LEVELS > 4
namespace amx {
extern const Kernels table;
}
#endif

namespace {

constexpr const char* variable = "EXPORTED_MODEL_KERNELS";

// The registers that the operating system saves: bits of XCR0.
uint64_t saved_registers() {
  uint32_t low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<uint64_t>(high) << 32) | low;
}

// Tiles with products of bf16 and of codes: bits of leaf 7, edx. A process has to ask Linux before it uses them, for
// they make what is saved of a thread larger; that holds for all of its threads.
bool has_amx(uint32_t features, uint64_t saved) {
  constexpr uint32_t amx = 1u << 22 | 1u << 24 | 1u << 25;
  constexpr uint64_t tiles = 0x60000;
  constexpr long ask_for_state = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM of <asm/prctl.h>, XFEATURE_XTILEDATA
  if ((features & amx) != amx || (saved & tiles) != tiles) return false;
  return syscall(SYS_arch_prctl, ask_for_state, tile_data) == 0;
}

int detect() {
#if defined(EM_NATIVE_EMULATED)
  return levels;
#endif
  constexpr uint32_t osxsave = 1u << 27, fma = 1u << 12;                                      // leaf 1, ecx
  // Leaf 7, ebx; of AVX-512 the parts F, DQ, BW, VL.
  constexpr uint32_t avx2 = 1u << 5, avx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;
  constexpr uint32_t vnni = 1u << 11;                                                         // leaf 7, ecx
  constexpr uint32_t bf16 = 1u << 5;                                                          // leaf 7.1, eax
  constexpr uint64_t ymm = 0x6, zmm = 0xe6;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || (c & (osxsave | fma)) != (osxsave | fma)) return 0;
  const uint64_t saved = saved_registers();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & avx2) || (saved & ymm) != ymm) return 0;
  if ((b & avx512) != avx512 || (saved & zmm) != zmm) return 1;
  if (!(c & vnni)) return 2;
  const bool amx = has_amx(d, saved);
  if (a < 1 || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & bf16)) return 3;
  return amx ? 5 : 4;
}

const Kernels& choose() {
  const int available = available_levels();
  if (available == 0)
    throw std::runtime_error(
        "this processor has no AVX2 and FMA (or the operating system does not save their registers), which the native "
        "operators need; export with another backend");
  const char* wanted = std::getenv(variable);
  if (!wanted || !*wanted) return *all_levels()[available - 1];
  std::string names;
  for (int i = 0; i < levels; i++) {
    const Kernels& level = *all_levels()[i];
    if (std::strcmp(level.name, wanted) != 0) {
      names += (i ? ", " : "") + std::string(level.name);
      continue;
    }
    if (i < available) return level;
    throw std::runtime_error(std::string(variable) + " is " + wanted + ", and this processor has at most " +
                             all_levels()[available - 1]->name + "; name that or a lower level, or unset it");
  }
  // What came from outside is not repeated in full.
  throw std::runtime_error(std::string(variable) + " names no level of the native operators; it must be one of " +
                           names + ", or unset");
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

}  // namespace

const Kernels* const* all_levels() {
  static const Kernels* const found[levels] = {
      &avx2::table,
#if EM_NATIVE_LEVELS > 1
      &avx512::table,
#endif
#if EM_NATIVE_LEVELS > 2
      &avx512_vnni::table,
#endif
#if EM_NATIVE_LEVELS > 3
      &avx512_bf16::table,
#endif
#if EM_NATIVE_LEVELS > 4
      &amx::table,
#endif
  };
  return found;
}

int available_levels() {
  static const int found = std::min(detect(), levels);
  return found;
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

void* scratch(size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local size_t size = 0;
  if (size < bytes) {
    memory.reset();
    size = 0;
    const size_t whole = (bytes + 4095) / 4096 * 4096;
    memory.reset(std::aligned_alloc(4096, whole));
    if (!memory) throw std::bad_alloc();
    size = whole;
  }
  return memory.get();
}

}  // namespace em_native
