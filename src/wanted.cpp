#include "wanted.hpp"

#include <algorithm>

#include "seine/certificate.hpp"

namespace seine {

Wanted wanted_by(const Request& request, const Entry& entry, const PoolShape& shape) {
  constexpr std::int64_t kWeightBytes = 24;  // as it is given, on its way and in the engine
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
  if (entry.state) wanted.state = entry.state(shape, request);
  if (request.score_power > 0) wanted.state.of_row += kWeightBytes;
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
