#include "wanted.hpp"

#include <algorithm>

#include "backend/by_nearest.hpp"
#include "engines/coverage_bound.hpp"
#include "engines/shadows.hpp"
#include "seine/certificate.hpp"
#include "seine/pick.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

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

}  // namespace seine
