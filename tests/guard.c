/* malloc for tests/fuzz_operators.py, by LD_PRELOAD: what PyTorch allocates ends at a page that faults.

   PyTorch takes all memory of tensors from posix_memalign. Each such block is put at the end of pages of its own, with
   an inaccessible page behind. New memory holds the byte 0xE7, so that memory that nobody wrote shows in outputs; the
   few bytes between block and page hold 0x5A, and the process is aborted where these have changed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)
#define SPACE ((size_t)1 << 42)

static char *base, *next;

struct head {
  size_t size, total;
};

int posix_memalign(void **out, size_t align, size_t size) {
  if (base == NULL) {
    base = mmap(NULL, SPACE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) abort();
    next = base;
  }
  if (size > SPACE / 4) return ENOMEM;
  size_t padded = (size + align - 1) / align * align;
  size_t body = (padded + PAGE - 1) / PAGE * PAGE;
  /* A page for the head, the body, and a page that stays inaccessible. Addresses are never used twice, so that
     what is read after it was freed faults too. */
  size_t total = body + 2 * PAGE;
  if (next + total > base + SPACE) return ENOMEM;
  char *start = next;
  if (mprotect(start, PAGE + body, PROT_READ | PROT_WRITE) != 0) return ENOMEM;
  next += total;
  struct head *head = (struct head *)start;
  head->size = size;
  head->total = total;
  char *block = start + PAGE + body - padded;
  memset(block, 0xE7, size < (64 << 20) ? size : (64 << 20));
  memset(block + size, 0x5A, padded - size);
  *out = block;
  return 0;
}

void free(void *pointer) {
  static void (*real)(void *);
  char *block = pointer;
  if (base != NULL && block >= base && block < base + SPACE) {
    /* The head is found from the block's first page, which no other block shares. */
    char *page = (char *)((uintptr_t)block & ~(PAGE - 1));
    struct head *head = (struct head *)(page - PAGE);
    char *end = (char *)head + head->total - PAGE;
    for (char *byte = block + head->size; byte < end; byte++)
      if ((unsigned char)*byte != 0x5A) abort();
    madvise(head, head->total - PAGE, MADV_DONTNEED);
    mprotect(head, head->total - PAGE, PROT_NONE);
    return;
  }
  if (real == NULL) real = (void (*)(void *))dlsym(RTLD_NEXT, "free");
  real(pointer);
}
