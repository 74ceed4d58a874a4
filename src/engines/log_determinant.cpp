#include "engines/log_determinant.hpp"

#include <algorithm>
#include <cmath>

#include "engines/rule_state.hpp"
#include "engines/symmetric.hpp"
#include "seine/cover.hpp"
#include "seine/ownership.hpp"

namespace seine {
namespace {

void add_second_moments(const Pool& pool, std::vector<double>& sums) {
  const double largest2 = largest_over(pool.comm(), pool.squared_norms().to_host());
  const FixedPoint fixed = FixedPoint::for_sum(pool.rows(), largest2);
  const std::vector<std::int64_t> moments = second_moments(pool, fixed);
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += fixed.value(moments[i]);
}

// I + sum x x^T / noise over the rows of these pools.
std::vector<double> information(std::int64_t dim, double noise, std::span<const Pool* const> pools) {
  std::vector<double> matrix(static_cast<std::size_t>(dim * dim));
  for (const Pool* pool : pools)
    if (pool) add_second_moments(*pool, matrix);
  for (double& value : matrix) value /= noise;
  for (std::int64_t c = 0; c < dim; ++c) matrix[static_cast<std::size_t>(c * dim + c)] += 1;
  return matrix;
}

struct Taken {
  std::vector<double> vector;  // P x
  double moment;               // noise + variance
  double gain;                 // log(1 + variance / noise)
};

// One row into the precision, with the variance that it has by then; a unit row counts with a squared norm of 1.
Taken take_row(Precision& precision, const std::vector<float>& x, double noise, bool unit) {
  const std::vector<double> wide(x.begin(), x.end());
  const auto dim = static_cast<std::int64_t>(x.size());
  const std::vector<double> v = precision.times(x);
  const double norm2 = canonical_dot(wide.data(), wide.data(), dim);
  const double counted = unit ? (norm2 > 0 ? 1.0 : 0.0) : norm2;
  const double variance = std::max(0.0, canonical_dot(wide.data(), v.data(), dim) + (counted - norm2));
  return {precision.take(x, noise + variance), noise + variance, log_one_plus(variance / noise)};
}

// Applies vectors with their moments to the variances of the pool's rows.
void lower_variances(const Pool& pool, std::vector<double>& variances, const std::vector<double>& vectors,
                     const std::vector<double>& moments) {
  Backend& backend = pool.backend();
  RuleState state(backend, RuleKind::variance, pool.own());
  const Array<double> before(backend, std::span<const double>(variances));
  const Array<double> x(backend, std::span<const double>(vectors));
  const Array<double> moment(backend, std::span<const double>(moments));
  state.start({before.data(), pool.global_rows(), 0, Purpose("none")}, nullptr);
  const Vectors picks{
      static_cast<std::int64_t>(moments.size()), {x.data(), Element::f64, pool.dim()}, {}, nullptr, nullptr};
  state.apply_all(pool.store(), {picks, moment.data()});
  state.key.read(variances);
}

// Few covered rows: each is a pick that comes before the first.
void condition_one_by_one(const Pool& pool, bool unit, std::vector<double>& variances, Prior& prior) {
  Precision precision(pool.dim(), {});
  in_covered_chunks(pool, prior, [&](const Packed& chunk) {
    std::vector<double> vectors, moments;
    for (std::int64_t i = 0; i < chunk.rows(); ++i) {
      const Taken taken = take_row(precision, chunk.row(i), prior.noise, unit);
      vectors.insert(vectors.end(), taken.vector.begin(), taken.vector.end());
      moments.push_back(taken.moment);
      prior.covered_value += taken.gain;
    }
    lower_variances(pool, variances, vectors, moments);
  });
  prior.precision = precision.matrix();
}

// More covered rows than dimensions: by their second moments. With L L^T = I + X^T X / noise, the variance of x given
// them is |L^-1 x|^2: the rows of L^-1 add their squared products.
void condition_by_moments(const Pool& pool, std::vector<double>& variances, Prior& prior) {
  std::vector<std::uint8_t> covered;
  for (const Role role : pool.columns.role) covered.push_back(is_covered(role));
  const Pool inside = pool.where(covered);
  const Pool* pools[] = {&inside, prior.outside};
  const Cholesky factor(information(pool.dim(), prior.noise, pools), pool.dim());
  const std::vector<double> inverse = factor.inverse_factor();
  prior.covered_value = factor.log_determinant();
  prior.precision = gram_of_lower(inverse, pool.dim());
  std::vector<double> given(variances.size(), 0.0);
  lower_variances(pool, given, inverse, std::vector<double>(static_cast<std::size_t>(pool.dim()), -1.0));
  const std::vector<double> norms = pool.squared_norms().to_host();
  for (std::size_t i = 0; i < variances.size(); ++i) variances[i] = std::max(0.0, given[i] + (variances[i] - norms[i]));
}

// The squared norms that log_det counts with: exactly 1 for unit rows, 0 for a zero row.
std::vector<double> counted_norms(const Pool& pool, bool unit) {
  std::vector<double> norms = pool.squared_norms().to_host();
  if (unit)
    for (double& value : norms) value = value > 0 ? 1 : 0;
  return norms;
}

}  // namespace

std::vector<std::int64_t> second_moments(const Pool& pool, FixedPoint fixed) {
  const auto& rows = pool.columns.rows;
  const auto tile = [&](std::int64_t own) { return rows[static_cast<std::size_t>(own)] / Ownership::kTileRows; };
  std::vector<std::int64_t> moments(static_cast<std::size_t>(pool.dim() * pool.dim()));
  pool.store().visit_all([&](std::int64_t first, const Vectors& piece) {
    std::vector<std::int64_t> groups{0};
    for (std::int64_t i = 1; i < piece.rows; ++i)
      if (tile(first + i) != tile(first + i - 1)) groups.push_back(i);
    groups.push_back(piece.rows);
    pool.backend().gram(piece.x, groups, fixed, moments.data());
  });
  pool.comm().sum(moments);
  return moments;
}

void cover_by_variance(Pool& pool, bool unit, Prior& prior) {
  const std::int64_t dim = pool.dim();
  std::vector<double> norms = counted_norms(pool, unit);
  const std::int64_t covered = covered_rows(pool, prior);
  if (covered > 0 && covered <= dim) {
    condition_one_by_one(pool, unit, norms, prior);
  } else if (covered > 0) {
    condition_by_moments(pool, norms, prior);
  }
  pool.columns.before = std::move(norms);
}

double log_determinant(const Pool& pool, std::span<const std::int64_t> rows, bool unit, const Prior& prior) {
  Precision precision(pool.dim(), prior.precision);
  double sum = 0;
  in_chunks(pool, rows, [&](const Packed& chunk) {
    for (std::int64_t i = 0; i < chunk.rows(); ++i) sum += take_row(precision, chunk.row(i), prior.noise, unit).gain;
  });
  return sum;
}

double log_determinant_of_all(const Pool& pool, bool unit, const Prior& prior) {
  const Pool* pools[] = {&pool, prior.outside};
  const double whole = Cholesky(information(pool.dim(), prior.noise, pools), pool.dim()).log_determinant();
  // Unit rows count with a squared norm of exactly 1; what rounding left them short of it can add at most its trace.
  double short_of_one = 0;
  for (const Pool* part : pools) {
    if (!part || !unit) continue;
    std::vector<double> missing = part->squared_norms().to_host();
    for (double& value : missing) value = value > 0 && value < 1 ? 1 - value : 0;
    short_of_one += sum_over(part->comm(), missing, part->rows());
  }
  return whole + short_of_one / prior.noise - prior.covered_value;
}

}  // namespace seine
