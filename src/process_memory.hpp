// The memory of this process, whatever it is for.
#pragma once

#include <cstdint>

namespace seine {

// From now on memory that is freed is not kept for later: blocks of a MiB go back to the system at once.
void return_freed_memory();
// What the process has in memory now; and what one has before it opens a pool: program, libraries, launcher.
std::int64_t resident_bytes();
std::int64_t most_resident_bytes();  // since it started
std::int64_t process_bytes(int ranks, int threads);

}  // namespace seine
