// How much memory a rank needs for its share of a pool, and whether the vectors of its rows fit or are read again and
// again. The model behind --memory and `seine plan`.
#pragma once

#include <cstdint>

#include "seine/pool_files.hpp"
#include "seine/row_store.hpp"
#include "seine/rules.hpp"

namespace seine {

// What of a row a command keeps.
struct Wanted {
  bool embeddings = false;
  bool unit_rows = false;           // divided by their 2-norm
  bool half_rows = false;           // float16 may stay float16
  bool residuals = false;           // of the prediction, for gradient embeddings
  bool residuals_by_label = false;  // covered rows take their label, where they have one, for the prediction
  std::optional<ScoreKind> score;
  std::int64_t best = 0;       // > 0: of the scores only this many best candidates, which is much quicker
  double copies = 1;           // how often the vectors are in memory at most, if they are (merges move them once)
  std::int64_t batch = 0;      // picks that are kept beside the rows
  std::int64_t row_state = 0;  // bytes that an engine keeps of each row
  int threads = 1;
};

RowFormat row_format(const PoolShape& shape, const Wanted& wanted);

// Bytes of one rank, beside what the process takes anyway.
struct MemoryNeed {
  std::int64_t state = 0;    // of its rows; always in memory
  std::int64_t working = 0;  // picks, rows on their way; at least
  std::int64_t vectors = 0;  // of its rows, if all are in memory

  std::int64_t least() const { return state + working; }
  std::int64_t most() const { return least() + vectors; }
};
MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted);

// What the process has in memory now.
std::int64_t resident_bytes();

}  // namespace seine
