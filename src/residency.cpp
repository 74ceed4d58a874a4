#include "seine/residency.hpp"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "coverage_bound.hpp"
#include "seine/certificate.hpp"
#include "seine/pick.hpp"
#include "seine/strategy.hpp"
#include "shadows.hpp"

namespace seine {
namespace {

constexpr std::int64_t kMiB = 1 << 20;

// Bytes that the engine of an objective keeps of each row. The numbers were measured; tools/bench_plan.py compares.
std::int64_t row_state_of(const Entry& entry, const Request& request, const PoolShape& shape) {
  // State, key, how many picks it has seen, whether it may be picked.
  const auto rule = [](RuleKind kind) { return static_cast<std::int64_t>(state_bytes(kind)) + 13; };
  const std::int64_t weights = request.score_power > 0 ? 24 : 0;
  switch (entry.objective) {
    case Objective::radius:
      return rule(RuleKind::nearest) + weights;
    case Objective::potential:
      return rule(RuleKind::race) + weights + (entry.outer ? 28 : 0);  // norms, score and filler of gradients
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
    const std::int64_t ground = std::min(ground_rows_of(entry, request, shape.rows), shape.rows);
    return CoverageBound::pays(ground, shape.dim) ? CoverageBound::most_bytes(shape.dim) : 0;
  }
  if (entry.objective != Objective::radius) return 0;
  const std::int64_t compared = std::min(picks, kComparedPicks);
  return std::min<std::int64_t>(compared * compared * 4, shape.rows * shape.dim / 2);
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
  if (request.reduce == Reduce::merge) wanted.copies = 4;
  if (request.keep) wanted.copied_rows += prefiltered_rows(*request.keep, request.batch, shape.rows);
  if (ground_rows_of(entry, request, shape.rows) < shape.rows)
    wanted.copied_rows += ground_rows_of(entry, request, shape.rows);
  const bool is_sampled = entry.objective == Objective::radius || entry.objective == Objective::potential ||
                          entry.objective == Objective::coverage;
  if (is_sampled && request.certificate == CertificateMode::automatic && shape.rows > kEvaluationRows)
    wanted.sampled_rows = kEvaluationRows;
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

MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted) {
  const std::int64_t row_bytes = stored_row_bytes(row_format(shape, wanted));
  const std::int64_t rows_of_round = std::min(RowStore::kRowsAtOnce, 2 * wanted.batch + 32);
  const std::int64_t round = std::min(rows_of_round, RowStore::kFewestRows) * (row_bytes + 64);
  // Global number twice, role as read and as a column, score; and while random batches are drawn, their draws.
  constexpr std::int64_t kColumns = 18, kDraws = 30;
  const std::int64_t columns = kColumns + (wanted.score && wanted.best == 0 ? 4 : 0);
  const std::int64_t copied = own_share(wanted.copied_rows, own_rows, shape);
  const std::int64_t sampled = own_share(wanted.sampled_rows, own_rows, shape);
  const std::int64_t selecting =
      own_rows * wanted.row_state + wanted.fixed_state + wanted.batch * (row_bytes + 64) + 5 * round + copied * columns;
  const std::int64_t certifying = own_rows * kDraws + copied * columns + 4 * round;
  MemoryNeed need;
  constexpr std::int64_t kHashedAtOnce = 1 << 24;
  need.opening = own_rows + (shape.ids ? std::min(own_rows, kHashedAtOnce) * 46 : 0);
  need.state = own_rows * (columns + std::max(wanted.row_state, kDraws));
  need.working = std::max(selecting, certifying) - own_rows * std::max(wanted.row_state, kDraws) +
                 wanted.threads * (wanted.score ? kMiB : kMiB / 4);
  if (wanted.batch == 0) need.working = std::max(need.working, 4 * kMiB);  // of commands that were not measured
  // Rows that are chosen are in memory twice for a moment.
  need.vectors =
      static_cast<std::int64_t>(static_cast<double>(own_rows * row_bytes) * wanted.copies) +
      (copied + 2 * sampled + 5 * std::max<std::int64_t>(rows_of_round - RowStore::kFewestRows, 0)) * row_bytes;
  if (!wanted.embeddings) need.vectors = 0;
  return need;
}

std::int64_t rows_kept(const RowFormat& format, std::int64_t own_rows, double room) {
  return std::min(own_rows, RowStore::rows_that_fit(format, static_cast<std::int64_t>(std::max(room, 0.0))));
}

std::int64_t streaming_bytes(const RowFormat& format, std::int64_t own_rows, double room) {
  const std::int64_t piece = std::min(RowStore::piece_bytes(static_cast<std::int64_t>(std::max(room, 0.0))),
                                      RowStore::kMostPieceRows * std::max<std::int64_t>(format.row_bytes(), 1));
  // Which rows are wanted, and where those that stay are.
  constexpr std::int64_t kPerRow = 24;
  return rows_kept(format, own_rows, room) * RowStore::kept_bytes(format) + 3 * piece + own_rows * kPerRow;
}

std::int64_t resident_bytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

std::int64_t process_bytes(int ranks, int threads) {
  return 27 * kMiB + (ranks > 1 ? kMiB : 0) + threads * kMiB / 8;
}

}  // namespace seine
