#include "residency.hpp"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>

#include "backend/by_nearest.hpp"
#include "engines/coverage_bound.hpp"
#include "engines/shadows.hpp"
#include "seine/certificate.hpp"
#include "seine/ownership.hpp"
#include "seine/pick.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

constexpr std::int64_t kMiB = 1 << 20;
constexpr std::int64_t kOfThread = kMiB / 4;    // stacks and scratch of a thread while it selects
constexpr std::int64_t kUnmeasured = 4 * kMiB;  // beside, of commands without a batch: theirs were not measured

// Bytes that the engine of an objective keeps of each row. The numbers were measured; tools/bench_plan.py compares.
std::int64_t row_state_of(const Entry& entry, const Request& request, const PoolShape& shape) {
  // State, key, how many picks it has seen, whether it may be picked.
  const auto rule = [](RuleKind kind) { return static_cast<std::int64_t>(state_bytes(kind)) + 13; };
  const std::int64_t weights = request.score_power > 0 ? 24 : 0;
  switch (entry.objective) {
    case Objective::radius:
      return rule(RuleKind::nearest) + weights;
    case Objective::potential:
      return rule(RuleKind::race) + weights + 2 + (entry.outer ? 30 : 0);  // norms, score and filler of gradients
    case Objective::coverage: {
      // Levels of coverage of ground rows, each in a list of its own, and shadows: the one place to adjust where the
      // engine changes.
      const std::int64_t ground = std::min(ground_rows_of(entry, request, shape.rows), shape.rows);
      const bool shadowed = CoverageBound::pays(ground, shape.dim);
      const std::int64_t shadow = shadowed ? Shadows::most(shape.dim) * static_cast<std::int64_t>(sizeof(float)) : 0;
      const std::int64_t of_ground = 183 + (ground < shape.rows ? shadow : 0);
      return 33 + shadow + of_ground * ground / std::max<std::int64_t>(shape.rows, 1) + weights;
    }
    case Objective::log_determinant:
      return rule(RuleKind::variance) + 16;
    default:
      return 0;
  }
}

// Bytes beside: distances between picks, matrices.
std::int64_t fixed_state_of(const Entry& entry, const Request& request, const PoolShape& shape) {
  const std::int64_t picks = std::min(request.batch, shape.rows);
  if (entry.objective == Objective::log_determinant) return picks * shape.dim * 8 + 32 * shape.dim * shape.dim;
  if (entry.objective == Objective::coverage) {
    // Candidates that are brought up to date together, at most, and as they come from all ranks.
    constexpr std::int64_t kTimes = 3;
    const std::int64_t ground = std::min(ground_rows_of(entry, request, shape.rows), shape.rows);
    return kTimes * std::min(kGainsTogether, shape.rows) * shape.dim * 4 +
           (CoverageBound::pays(ground, shape.dim) ? CoverageBound::most_bytes(shape.dim) : 0);
  }
  if (entry.objective != Objective::radius) return 0;
  const std::int64_t compared = std::min(picks, kComparedPicks);
  return std::min<std::int64_t>(compared * compared * 4, shape.rows * shape.dim / 2) +
         std::min(kSliceRows, shape.rows) * kActiveRowBytes;
}

std::int64_t own_share(std::int64_t of_all, std::int64_t own_rows, const PoolShape& shape) {
  return static_cast<std::int64_t>(static_cast<double>(of_all) * static_cast<double>(own_rows) /
                                   static_cast<double>(std::max<std::int64_t>(shape.rows, 1)));
}

std::int64_t stored_row_bytes(const RowFormat& format) {
  return format.row_bytes() + (format.classes > 0 ? 16 : 0);  // and two norms
}

}  // namespace

Wanted wanted_by(const Request& request, const Entry& entry, const PoolShape& shape) {
  Wanted wanted;
  wanted.embeddings = entry.needs.embeddings;
  wanted.unit_rows = request.normalize == Normalize::by_strategy ? entry.unit_rows : request.normalize == Normalize::l2;
  if (entry.ground_rows) wanted.unit_rows = true;  // a cosine, whatever the norms
  wanted.half_rows = entry.objective == Objective::radius || entry.objective == Objective::potential;
  wanted.residuals = entry.outer;
  wanted.residuals_by_label = entry.residuals_by_label && entry.residuals_by_label(request);
  if (entry.score) wanted.score = entry.score;
  if (entry.score && request.reduce == Reduce::exact) wanted.best = request.batch;
  if (request.score) wanted.score = strategy(*request.score).score;
  wanted.batch = std::min(request.batch, shape.rows);
  wanted.row_state = row_state_of(entry, request, shape);
  wanted.fixed_state = fixed_state_of(entry, request, shape);
  wanted.threads = std::max(1, request.pool.threads);
  wanted.regrouped = request.reduce == Reduce::merge;
  if (wanted.regrouped) wanted.copies = 4;
  if (request.keep) wanted.copied_rows += prefiltered_rows(*request.keep, request.batch, shape.rows);
  if (ground_rows_of(entry, request, shape.rows) < shape.rows)
    wanted.copied_rows += ground_rows_of(entry, request, shape.rows);
  const bool is_sampled = entry.objective == Objective::radius || entry.objective == Objective::potential ||
                          entry.objective == Objective::coverage;
  if (is_sampled && request.certificate == CertificateMode::automatic && shape.rows > kEvaluationRows)
    wanted.sampled_rows = kEvaluationRows;
  return wanted;
}

bool reads_labelled_pool(const Request& request, const Entry& entry) {
  return !request.pool.labelled_pool.empty() && entry.cover != nullptr;
}

Wanted outside_of(Wanted wanted) {
  wanted.score.reset();
  wanted.best = 0;
  return wanted;
}

Needs needs_of(const Request& request, const Entry& entry) {
  Needs needs = entry.needs;
  if (request.score) {
    needs.probabilities = true;
    needs.passes |= strategy(*request.score).needs.passes;
  }
  return needs;
}

RowFormat row_format(const PoolShape& shape, const Wanted& wanted) {
  const bool half = wanted.half_rows && shape.half_embeddings && !wanted.unit_rows;
  return {half ? Element::f16 : Element::f32, wanted.embeddings ? shape.dim : 0, wanted.residuals ? shape.classes : 0};
}

std::int64_t bytes_of_row_read(const PoolShape& shape, const Wanted& wanted) {
  const bool distributions = wanted.residuals || wanted.score;
  const std::int64_t width = distributions ? std::max<std::int64_t>(shape.passes, 1) * shape.classes : 0;
  constexpr std::int64_t kIdAndLabel = 16;
  return ((wanted.embeddings ? shape.dim : 0) + width) * 4 + kIdAndLabel;
}

namespace {

// Of a row: its global number twice, role as read and as a column, score.
std::int64_t column_bytes(const Wanted& wanted) {
  return 18 + (wanted.score && wanted.best == 0 ? 4 : 0) + (wanted.residuals_by_label ? 4 : 0);
}

// What threads read and check: a block, as it is stored and as it is worked on, which is wider for float64 and logits.
std::int64_t blocks_of_threads(const PoolShape& shape, const Wanted& wanted) {
  const std::int64_t tile = Ownership::kTileRows * bytes_of_row_read(shape, wanted);
  const bool wide = shape.logits || shape.embeddings_type == "float64" || shape.probabilities_type == "float64";
  return wanted.threads * std::max(kBlockBytes, tile) * (wide ? 3 : 2);
}

// Rows that come and go, and the fewest that stay.
std::int64_t fewest_streamed(const RowFormat& format) {
  return (RowStore::kPieces * Ownership::kTileRows + RowStore::kFewestRows) * RowStore::kept_bytes(format);
}

}  // namespace

MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted) {
  const std::int64_t row_bytes = stored_row_bytes(row_format(shape, wanted));
  const std::int64_t fetched = rows_of_round(wanted.batch);
  const std::int64_t round = std::min(fetched, RowStore::kFewestRows) * (row_bytes + 64);
  constexpr std::int64_t kDraws = 30;  // of a row, while random batches are drawn
  const std::int64_t columns = column_bytes(wanted);
  const std::int64_t copied = own_share(wanted.copied_rows, own_rows, shape);
  const std::int64_t sampled = own_share(wanted.sampled_rows, own_rows, shape);
  const std::int64_t selecting =
      own_rows * wanted.row_state + wanted.fixed_state + wanted.batch * (row_bytes + 64) + 5 * round + copied * columns;
  const std::int64_t certifying = own_rows * kDraws + copied * columns + 4 * round;
  MemoryNeed need;
  constexpr std::int64_t kHashedAtOnce = 1 << 24;
  need.opening = own_rows + (shape.ids ? std::min(own_rows, kHashedAtOnce) * 46 : 0) + shape.id_chunks.least();
  need.loading = own_rows * columns + blocks_of_threads(shape, wanted) + shape.chunks.least();
  // Ids of the picks are read in the end; scores of single rows where only the best were wanted; rows of other ranks.
  const std::int64_t chunks = wanted.best > 0 || wanted.regrouped ? shape.chunks.least() : shape.id_chunks.least();
  need.selecting = own_rows * columns + std::max(selecting, certifying) + wanted.threads * kOfThread + chunks;
  if (wanted.batch == 0) need.selecting += kUnmeasured;
  // Rows that are chosen are in memory twice for a moment.
  need.vectors = static_cast<std::int64_t>(static_cast<double>(own_rows * row_bytes) * wanted.copies) +
                 (copied + 2 * sampled + 5 * std::max<std::int64_t>(fetched - RowStore::kFewestRows, 0)) * row_bytes;
  if (!wanted.embeddings) need.vectors = 0;
  if (wanted.regrouped) need.moving = need.vectors;
  if (need.vectors > 0) need.streaming = own_rows * RowStore::kBytesPerRow + fewest_streamed(row_format(shape, wanted));
  return need;
}

MemoryNeed on_host(MemoryNeed need) {
  need.vectors = need.moving;
  need.loading += 2 * kStagedBlocks * kBlockBytes;
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

std::int64_t rows_kept(const RowFormat& format, std::int64_t own_rows, double room) {
  return std::min(own_rows, RowStore::rows_that_fit(format, static_cast<std::int64_t>(std::max(room, 0.0))));
}

std::int64_t streaming_bytes(const RowFormat& format, std::int64_t own_rows, double room) {
  const std::int64_t piece = std::min(RowStore::piece_bytes(static_cast<std::int64_t>(std::max(room, 0.0))),
                                      RowStore::kMostPieceRows * std::max<std::int64_t>(format.row_bytes(), 1));
  return rows_kept(format, own_rows, room) * RowStore::kept_bytes(format) + RowStore::kPieces * piece;
}

void return_freed_memory() {
  constexpr int kOwnMapping = 1 << 20, kKept = 1 << 17;
  mallopt(M_MMAP_THRESHOLD, kOwnMapping);
  mallopt(M_TRIM_THRESHOLD, kKept);
}

std::int64_t resident_bytes() {
  malloc_trim(0);
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::int64_t process_bytes(int ranks, int threads) {
  return 27 * kMiB + (ranks > 1 ? kMiB : 0) + threads * kMiB / 8;
}

}  // namespace seine
