// log det(I + K / noise), K = X X^T, in feature space (spec: diversity 3.8).
#pragma once

#include <span>
#include <vector>

#include "seine/cover.hpp"
#include "seine/pool.hpp"

namespace seine {

// Collective. Covered rows of the pool and outside of it, into columns.before (the variance they leave) and the prior.
// `unit`: rows of norm 1 count with a squared norm of exactly 1.
void cover_by_variance(Pool& pool, bool unit, Prior& prior);

// Collective. log det(I + X X^T / noise) gained by these rows of the pool, in order, after the prior; by all rows
// together.
double log_determinant(const Pool& pool, std::span<const std::int64_t> rows, bool unit, const Prior& prior);
double log_determinant_of_all(const Pool& pool, bool unit, const Prior& prior);

// Collective. Sum of x x^T over all rows of the pool, lower triangle, the same for every number of ranks: products are
// summed in float64 by tiles of global rows, and each of these sums is rounded to an integer.
std::vector<std::int64_t> second_moments(const Pool& pool, FixedPoint fixed);

}  // namespace seine
