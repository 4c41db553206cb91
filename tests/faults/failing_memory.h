// Memory that runs out when a test says so. The program that links failing_memory.cc has malloc, calloc,
// realloc, aligned_alloc, posix_memalign, memalign, mmap and mprotect interposed, in all of its libraries;
// operator new reaches malloc.
#pragma once

#include <cstdint>

namespace failing_memory {

// From now on allocation number n (from 0, of any thread) fails; with `lasting` all after it do as well.
void Arm(long n, bool lasting);
// Memory is plentiful again. How many allocations were tried since Arm().
long Disarm();

// Blocks that are allocated and not freed.
int64_t LiveBlocks();

}  // namespace failing_memory
