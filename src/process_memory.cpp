#include "process_memory.hpp"

#include <malloc.h>
#include <unistd.h>

#include <fstream>
#include <string>

#include "seine/bytes.hpp"

namespace seine {

void return_freed_memory() {
  constexpr int kOwnMapping = 1 << 20, kKept = 1 << 17;
  mallopt(M_MMAP_THRESHOLD, kOwnMapping);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

std::int64_t resident_bytes() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return process_bytes(1, 0);  // what sanitizers take beside is not counted: --memory means the same under them
#endif
  malloc_trim(0);
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::int64_t most_resident_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kibibytes = 0;
    if (word == "VmHWM:" && status >> kibibytes) return kibibytes * kKiB;
  }
  return 0;
}

std::int64_t process_bytes(int ranks, int threads) {
  return 27 * kMiB + (ranks > 1 ? kMiB : 0) + threads * kMiB / 8;
}

}  // namespace seine
