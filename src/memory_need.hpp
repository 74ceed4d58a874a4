// How much memory a rank needs for its share of a pool, and whether the vectors of its rows fit or are read again and
// again. The model behind --memory and `seine plan`: what both ask, so that they cannot disagree.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "seine/pool_files.hpp"
#include "seine/row_store.hpp"
#include "wanted.hpp"

namespace seine {

// Rows that a round of a batch fetches, where memory does not say fewer.
inline std::int64_t rows_of_round(std::int64_t batch) {
  return std::min(RowStore::kRowsAtOnce, 2 * batch + RowStore::kFewestRows / 2);
}

// Of a row, what a thread reads; and of a block, at most: the rows that it reads, checks, hashes and scores together,
// whole tiles.
std::int64_t bytes_of_row_read(const PoolShape& shape, const Wanted& wanted);
std::int64_t bytes_of_block(const PoolShape& shape, const Wanted& wanted);
// How many blocks are copied to a device together, while as many are read.
inline constexpr std::int64_t kStagedBlocks = 16;

// Bytes of one rank, beside what the process takes anyway. What is needed one after the other is not added.
struct MemoryNeed {
  std::int64_t opening = 0;    // before any vector is read: ids are looked for twice
  std::int64_t loading = 0;    // what is known of every row; blocks of the threads, chunks that are inflated
  std::int64_t staging = 0;    // beside, on the host where vectors go to a device: blocks on their way
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

// What the engine of a strategy may use of what a pool leaves: lists of facility location, which reads rows in pieces
// and keeps none. Other engines leave it to the rows.
inline constexpr std::int64_t kPartsOfEngine = 7, kPartsInAll = 8;
inline std::int64_t share_of_engine(const Entry& entry, std::int64_t left) {
  return entry.objective == Objective::coverage ? left / kPartsInAll * kPartsOfEngine : 0;
}

// Whether all vectors fit `left` bytes; they are streamed where they do not.
inline bool fits(const MemoryNeed& need, double left) {
  return need.vectors == 0 || static_cast<double>(need.most()) <= left;
}

// What is left of `left` bytes for rows, and for what an engine may use beside; below 0: so much is missing.
inline double room_of(const MemoryNeed& need, bool streams, double left) {
  return left - static_cast<double>(streams ? need.streamed() : need.most());
}

// Why a rank cannot run, in GiB; what would help is to follow.
std::string too_little_memory(double least, double given);
std::string too_little_of_gpu(double least, double given);

// What rows that are read again and again take of `room`, which is what the least leaves.
std::int64_t streaming_bytes(const Entry& entry, const RowFormat& format, std::int64_t own_rows, double room);
// How many of them stay in memory meanwhile: none where an engine takes its share.
std::int64_t rows_kept(const Entry& entry, const RowFormat& format, std::int64_t own_rows, double room);

}  // namespace seine
