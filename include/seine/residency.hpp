// How much memory a rank needs for its share of a pool, and whether the vectors of its rows fit or are read again and
// again. The model behind --memory and `seine plan`: what both ask, so that they cannot disagree.
#pragma once

#include <cstdint>

#include "seine/pool_files.hpp"
#include "seine/request.hpp"
#include "seine/row_store.hpp"
#include "seine/rules.hpp"

namespace seine {

struct Entry;

// What of a row a command keeps.
struct Wanted {
  bool embeddings = false;
  bool unit_rows = false;           // divided by their 2-norm
  bool half_rows = false;           // float16 may stay float16
  bool residuals = false;           // of the prediction, for gradient embeddings
  bool residuals_by_label = false;  // covered rows take their label, where they have one, for the prediction
  std::optional<ScoreKind> score;
  std::int64_t best = 0;          // > 0: of the scores only this many best candidates, which is much quicker
  double copies = 1;              // how often the vectors are in memory at most, if they are (merges move them)
  std::int64_t batch = 0;         // picks that are kept beside the rows
  std::int64_t row_state = 0;     // bytes that an engine keeps of each row
  std::int64_t fixed_state = 0;   // bytes that it keeps beside
  std::int64_t copied_rows = 0;   // of all ranks, while a batch is selected: ground rows, rows that were kept
  std::int64_t sampled_rows = 0;  // of all ranks, while it is certified
  int threads = 1;
};

// Of `seine select`, and what it must find in the files.
Wanted wanted_by(const Request& request, const Entry& entry, const PoolShape& shape);
Needs needs_of(const Request& request, const Entry& entry);

RowFormat row_format(const PoolShape& shape, const Wanted& wanted);

// Bytes of one rank, beside what the process takes anyway.
struct MemoryNeed {
  std::int64_t opening = 0;  // before any vector is read: ids are looked for twice
  std::int64_t state = 0;    // of its rows; always in memory
  std::int64_t working = 0;  // picks, rows on their way; at least
  std::int64_t vectors = 0;  // of its rows, and of those chosen among them, if all are in memory

  std::int64_t least() const { return state + working; }
  std::int64_t most() const { return least() + vectors; }
};
MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted);

// What is left of `memory` bytes for vectors; negative: not even what is known of every row fits. They are streamed
// where they need more.
inline double room_for_vectors(const MemoryNeed& need, double memory, double in_use) {
  return memory - in_use - static_cast<double>(need.least());
}

// What rows that are read again and again take of `room`.
std::int64_t streaming_bytes(const RowFormat& format, std::int64_t own_rows, double room);
// How many of them stay in memory meanwhile.
std::int64_t rows_kept(const RowFormat& format, std::int64_t own_rows, double room);

// What the process has in memory now; and what one has before it opens a pool: program, libraries, launcher.
std::int64_t resident_bytes();
std::int64_t process_bytes(int ranks, int threads);

}  // namespace seine
