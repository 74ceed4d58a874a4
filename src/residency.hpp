// How much memory a rank needs for its share of a pool, and whether the vectors of its rows fit or are read again and
// again. The model behind --memory and `seine plan`: what both ask, so that they cannot disagree.
#pragma once

#include <algorithm>
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
  bool regrouped = false;         // rows move between ranks
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
// Whether the labelled pool of the request is read, and what is kept of its rows.
bool reads_labelled_pool(const Request& request, const Entry& entry);
Wanted outside_of(Wanted wanted);

RowFormat row_format(const PoolShape& shape, const Wanted& wanted);

// Rows that a round of a batch fetches, where memory does not say fewer.
inline std::int64_t rows_of_round(std::int64_t batch) {
  return std::min(RowStore::kRowsAtOnce, 2 * batch + RowStore::kFewestRows / 2);
}

// How much a thread reads, checks, hashes and scores together, in whole tiles; and what a row is of that.
inline constexpr std::int64_t kBlockBytes = 1 << 20;
// How many of them are copied to a device together, while as many are read.
inline constexpr std::int64_t kStagedBlocks = 16;
std::int64_t bytes_of_row_read(const PoolShape& shape, const Wanted& wanted);

// Bytes of one rank, beside what the process takes anyway. What is needed one after the other is not added.
struct MemoryNeed {
  std::int64_t opening = 0;    // before any vector is read: ids are looked for twice
  std::int64_t loading = 0;    // what is known of every row; blocks of the threads, chunks that are inflated
  std::int64_t selecting = 0;  // what is known of every row; state of the engine, picks, rows on their way; at least
  std::int64_t streaming = 0;  // beside, where vectors are read again; at least
  std::int64_t vectors = 0;    // of its rows, and of those chosen among them, if all are in memory
  std::int64_t moving = 0;     // of these, on the host wherever vectors are: rows on their way between ranks

  std::int64_t most() const { return std::max(loading, selecting) + vectors; }
  std::int64_t streamed() const { return std::max(loading, selecting + streaming); }
  std::int64_t least() const { return vectors > 0 ? std::min(streamed(), most()) : most(); }
};
MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted);
// What of it the host needs, and what a device, where one has memory of its own: it holds the vectors, and all that
// engines work on.
MemoryNeed on_host(MemoryNeed need);
MemoryNeed on_device(MemoryNeed need);
// With labelled rows that are in another pool, of which this rank has so many.
MemoryNeed with_labelled_pool(MemoryNeed need, const PoolShape& labelled, std::int64_t own_rows, const Wanted& wanted);

// Whether all vectors fit `left` bytes; they are streamed where they do not.
inline bool fits(const MemoryNeed& need, double left) {
  return need.vectors == 0 || static_cast<double>(need.most()) <= left;
}

// What rows that are read again and again take of `room`, which is what the least leaves.
std::int64_t streaming_bytes(const RowFormat& format, std::int64_t own_rows, double room);
// How many of them stay in memory meanwhile.
std::int64_t rows_kept(const RowFormat& format, std::int64_t own_rows, double room);

// From now on memory that is freed is not kept for later: blocks of a MiB go back to the system at once.
void return_freed_memory();
// What the process has in memory now; and what one has before it opens a pool: program, libraries, launcher.
std::int64_t resident_bytes();
std::int64_t process_bytes(int ranks, int threads);

}  // namespace seine
