// What a request will take, before it runs: memory, bytes, rounds and seconds. A function of the shape of the pool, the
// request and the constants of a machine; nothing is read.
#pragma once

#include <cstdint>
#include <string>

#include "seine/machine.hpp"
#include "seine/pool_files.hpp"
#include "seine/request.hpp"
#include "seine/work.hpp"

namespace seine {

struct Plan {
  int ranks = 1, threads = 1;
  std::int64_t rows_per_rank = 0;  // of the rank with the most

  // Whether it can be done in the memory given, and where not, why and what would do.
  bool possible = true;
  std::string obstacle;
  bool resident = true;             // else the vectors are streamed
  std::int64_t memory_bytes = 0;    // of a rank, at most, in this run
  std::int64_t resident_bytes = 0;  // with all vectors in memory
  std::int64_t least_bytes = 0;     // below, it cannot be done
  // The same of a GPU that a rank has alone, where the request is for one: vectors are there and not in what is above.
  std::int64_t device_bytes = 0, device_resident_bytes = 0, device_least_bytes = 0;
  Range bytes_read;  // of all ranks
  Range rounds;

  // Seconds: `start` is the launcher's.
  Range start, read, select, certificate, write;
  Range seconds() const { return start + read + select + certificate + write; }
  // Of all threads of all ranks while they work.
  Range processor_seconds;
};

// A request that check_request accepts; `threads` at least 1. Absent memory: enough. It is for GPUs where device_gib is
// there or `device` is cuda. `labelled`: the labelled pool, where one is read.
Plan plan(const PoolShape& pool, const Request& request, int ranks, const Machine& machine,
          const PoolShape* labelled = nullptr);

}  // namespace seine
