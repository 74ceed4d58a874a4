// Which global rows a rank owns: runs of whole 256-row tiles, dealt round-robin so that sorted pools stay balanced.
// Nothing in a result depends on it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "seine/bytes.hpp"
#include "seine/comm.hpp"

namespace seine {

class Ownership {
 public:
  static constexpr std::int64_t kTileRows = 256;

  Ownership(std::int64_t rows, const Comm& comm) : Ownership(rows, comm.rank(), comm.size()) {}
  Ownership(std::int64_t rows, int rank, int ranks);
  static std::int64_t largest_share(std::int64_t rows, int ranks);  // what rank 0 owns
  struct Run {
    std::int64_t first, count;
  };
  const std::vector<Run>& runs() const { return runs_; }
  std::int64_t own() const { return own_; }  // number of rows of this rank
  int owner(std::int64_t row) const;
  bool owns(std::int64_t row) const { return owner(row) == rank_; }
  std::int64_t local(std::int64_t row) const;  // position among the owner's rows

 private:
  std::int64_t rows_, run_length_, own_ = 0;
  int rank_, ranks_;
  std::vector<Run> runs_;
};

// Calls work(first, count) over the own rows, in order, in blocks of at most 4,096 rows and 64 MiB. A row that is wider
// than that comes alone.
template <class Work>
void for_blocks(const Ownership& own, std::int64_t row_bytes, const Work& work) {
  constexpr std::int64_t most_rows = 4096, most_bytes = 64 * kMiB;
  const std::int64_t block = std::clamp<std::int64_t>(most_bytes / std::max<std::int64_t>(row_bytes, 1), 1, most_rows);
  for (const Ownership::Run& run : own.runs())
    for (std::int64_t at = 0; at < run.count; at += block) work(run.first + at, std::min(block, run.count - at));
}

}  // namespace seine
