#include "memory_need.hpp"

#include <fmt/format.h>

#include <limits>

#include "seine/bytes.hpp"
#include "seine/ownership.hpp"

namespace seine {
namespace {

constexpr std::int64_t kOfThread = kMiB / 4;    // stacks and scratch of a thread while it selects
constexpr std::int64_t kUnmeasured = 4 * kMiB;  // beside, of commands without a batch: theirs were not measured

std::int64_t own_share(std::int64_t of_all, std::int64_t own_rows, const PoolShape& shape) {
  return static_cast<std::int64_t>(static_cast<double>(of_all) * static_cast<double>(own_rows) /
                                   static_cast<double>(std::max<std::int64_t>(shape.rows, 1)));
}

std::int64_t stored_row_bytes(const RowFormat& format) {
  return format.row_bytes() + (format.classes > 0 ? 16 : 0);  // and two norms
}

// Of a row: its global number twice, role as read and as a column, score.
std::int64_t column_bytes(const Wanted& wanted) {
  return 18 + (wanted.score && wanted.best == 0 ? 4 : 0) + (wanted.residuals_by_label ? 4 : 0);
}

// What threads read and check: a block, as it is stored and as it is worked on, which is wider for float64 and logits.
std::int64_t blocks_of_threads(const PoolShape& shape, const Wanted& wanted) {
  const bool wide = shape.logits || shape.embeddings_type == "float64" || shape.probabilities_type == "float64";
  return wanted.threads * bytes_of_block(shape, wanted) * (wide ? 3 : 2);
}

// Rows that come and go, and the fewest that stay.
std::int64_t fewest_streamed(const RowFormat& format) {
  return (RowStore::kPieces * Ownership::kTileRows + RowStore::kFewestRows) * RowStore::kept_bytes(format);
}

}  // namespace

std::int64_t bytes_of_row_read(const PoolShape& shape, const Wanted& wanted) {
  const bool distributions = wanted.residuals || wanted.score;
  const std::int64_t width = distributions ? std::max<std::int64_t>(shape.passes, 1) * shape.classes : 0;
  constexpr std::int64_t kIdAndLabel = 16;
  return ((wanted.embeddings ? shape.dim : 0) + width) * 4 + kIdAndLabel;
}

std::int64_t bytes_of_block(const PoolShape& shape, const Wanted& wanted) {
  return std::max(kMiB, Ownership::kTileRows * bytes_of_row_read(shape, wanted));
}

MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted) {
  const RowFormat format = row_format(shape, wanted);
  const std::int64_t row_bytes = stored_row_bytes(format);
  // Picks meet rows as float32, however they are stored.
  const std::int64_t widened = format.type == Element::f16 ? wanted.batch * format.dim * 4 : 0;
  const std::int64_t fetched = rows_of_round(wanted.batch);
  const std::int64_t round = std::min(fetched, RowStore::kFewestRows) * (row_bytes + 64);
  constexpr std::int64_t kDraws = 30;  // of a row, while random batches are drawn
  const std::int64_t columns = column_bytes(wanted);
  const std::int64_t copied = own_share(wanted.copied_rows, own_rows, shape);
  const std::int64_t sampled = own_share(wanted.sampled_rows, own_rows, shape);
  const std::int64_t selecting = own_rows * wanted.state.of_row + wanted.state.beside +
                                 wanted.batch * (row_bytes + 64) + widened + 5 * round + copied * columns;
  const std::int64_t certifying = own_rows * kDraws + copied * columns + 4 * round;
  MemoryNeed need;
  constexpr std::int64_t kHashedAtOnce = 1 << 24;
  need.opening = own_rows + (shape.ids ? std::min(own_rows, kHashedAtOnce) * 46 : 0) + shape.id_chunks.least();
  need.loading = own_rows * columns + blocks_of_threads(shape, wanted) + shape.chunks.least();
  need.staging = 2 * kStagedBlocks * bytes_of_block(shape, wanted);
  // Ids of the picks are read in the end; scores of single rows where only the best were wanted; rows of other ranks.
  const std::int64_t chunks = wanted.best > 0 || wanted.regrouped ? shape.chunks.least() : shape.id_chunks.least();
  need.selecting = own_rows * columns + std::max(selecting, certifying) + wanted.threads * kOfThread + chunks;
  if (wanted.batch == 0) need.selecting += kUnmeasured;
  // Rows that are chosen are in memory twice for a moment.
  need.vectors = static_cast<std::int64_t>(static_cast<double>(own_rows * row_bytes) * wanted.copies) +
                 (copied + 2 * sampled + 5 * std::max<std::int64_t>(fetched - RowStore::kFewestRows, 0)) * row_bytes;
  if (!wanted.embeddings) need.vectors = 0;
  if (wanted.regrouped) need.moving = need.vectors;
  if (need.vectors > 0) need.streaming = own_rows * RowStore::kBytesPerRow + fewest_streamed(format);
  return need;
}

MemoryNeed on_host(MemoryNeed need) {
  need.vectors = need.moving;
  need.loading += need.staging;
  if (need.streaming > 0)
    need.streaming += RowStore::kPieces * RowStore::piece_bytes(std::numeric_limits<std::int64_t>::max());
  return need;
}

MemoryNeed on_device(MemoryNeed need) {
  need.opening = need.loading = 0;
  return need;
}

MemoryNeed with_labelled_pool(MemoryNeed need, const PoolShape& labelled, std::int64_t own_rows, const Wanted& wanted) {
  const Wanted outside = outside_of(wanted);
  const std::int64_t columns = own_rows * column_bytes(outside);
  need.loading += columns + labelled.chunks.least();
  need.selecting += columns;
  if (need.vectors == 0) return need;
  const RowFormat format = row_format(labelled, outside);
  need.vectors += own_rows * stored_row_bytes(format);
  need.streaming += own_rows * RowStore::kBytesPerRow + fewest_streamed(format);
  return need;
}

std::string too_little_memory(double least, double given) {
  return fmt::format("a rank needs at least {:.3f} GiB, streaming all that can be streamed, and --memory gives {:.3f}",
                     least, given);
}
std::string too_little_of_gpu(double least, double given) {
  return fmt::format("a rank needs at least {:.3f} GiB of a GPU, streaming all that can be streamed, and has {:.3f}",
                     least, given);
}

std::int64_t rows_kept(const Entry& entry, const RowFormat& format, std::int64_t own_rows, double room) {
  const auto bytes = static_cast<std::int64_t>(std::clamp(room, 0.0, 0x1p62));
  return share_of_engine(entry, bytes) > 0 ? 0 : std::min(own_rows, RowStore::rows_that_fit(format, bytes));
}

std::int64_t streaming_bytes(const Entry& entry, const RowFormat& format, std::int64_t own_rows, double room) {
  const std::int64_t piece = std::min(RowStore::piece_bytes(static_cast<std::int64_t>(std::max(room, 0.0))),
                                      RowStore::kMostPieceRows * std::max<std::int64_t>(format.row_bytes(), 1));
  return rows_kept(entry, format, own_rows, room) * RowStore::kept_bytes(format) + RowStore::kPieces * piece;
}

}  // namespace seine
