#include "engines/coverage_bound.hpp"

#include <algorithm>
#include <cmath>

#include "engines/log_determinant.hpp"
#include "engines/rule_state.hpp"
#include "engines/symmetric.hpp"

namespace seine {
namespace {

constexpr double kLongest2 = 1 + 0x1p-20;  // squared norm of a unit row, after rounding

// For sums over `rows` ground rows that float64 holds exactly.
FixedPoint fixed_for(std::int64_t rows, double largest) {
  int terms = 0;
  std::frexp(static_cast<double>(rows), &terms);
  return FixedPoint::for_sum(rows, largest, 51 - terms);
}

}  // namespace

// Rounding. A sum of N terms up to `most` in fixed point is off by at most N most u / 2 with u = unit_of_one: so G, by
// component, by N (u / 2 + 256 2^-53), and as a matrix by D times that; its Cholesky factor L by (D + 2) 2^-53 N. Hence
// G + ridge >= the true G, with ridge = N D (u + 2^-43). The errors of |L'x|^2, x.c and |b|^2 together stay below twice
// that, and those of A below twice that times the largest weight.
CoverageBound::CoverageBound(const Pool& candidates, const Pool& ground, FixedPoint gains, std::vector<double> moments)
    : candidates_(candidates), ground_(ground), gains_(gains) {
  weight_ = ground.columns.weight.value_or(std::vector<double>(static_cast<std::size_t>(ground.own()), 1.0));
  std::vector<double> squared = weight_;
  for (double& weight : squared) weight *= weight;
  const auto rows = static_cast<double>(ground.rows());
  const double unit_of_one = fixed_for(ground.rows(), kLongest2).unit();
  largest_ = largest_over(ground.comm(), weight_);
  total_ = sum(weight_) + rows * largest_ * unit_of_one;
  norm_ = std::sqrt(sum(squared) + rows * largest_ * largest_ * unit_of_one) * (1 + 0x1p-50);
  ridge_ = rows * static_cast<double>(ground.dim()) * (unit_of_one + 0x1p-43);
  form_ = quadratic_forms(std::move(moments));
  dot_ = times_weighted_rows(weight_);
  products_ += candidates.rows() * ground.dim();
}

std::vector<double> CoverageBound::moments(const Pool& ground) {
  const FixedPoint fixed = fixed_for(ground.rows(), kLongest2);
  std::vector<double> moments;
  for (const std::int64_t sum : second_moments(ground, fixed)) moments.push_back(fixed.value(sum));
  return moments;
}

std::vector<double> CoverageBound::at(std::span<const float> coverage) {
  const std::vector<double> b(coverage.begin(), coverage.end());
  std::vector<double> squared = b, weighted = b;
  for (std::size_t i = 0; i < b.size(); ++i) {
    squared[i] *= b[i];
    weighted[i] *= weight_[i];
  }
  const double b2 = sum(squared), covered = sum(weighted);
  const std::vector<double> covered_dot = times_weighted_rows(b);
  // Of a similarity; and one unit for each row's share of a gain, with a little to spare.
  const double per_similarity = canonical_error(ground_.dim());
  const double slack = total_ * per_similarity + 2 * largest_ * ridge_;
  const double units = 1.01 * static_cast<double>(ground_.rows()) + 1;
  std::vector<double> bounds(form_.size());
  for (std::size_t j = 0; j < bounds.size(); ++j) {
    const double t2 = std::max(0.0, form_[j] - 2 * covered_dot[j] + b2) + 2 * ridge_;
    bounds[j] = ((dot_[j] - covered + norm_ * std::sqrt(t2)) / 2 + slack) / gains_.unit() + units;
  }
  return bounds;
}

double CoverageBound::sum(const std::vector<double>& values) const {
  return sum_over(ground_.comm(), values, ground_.rows());
}

// |L'x|^2 of the own candidates, L L' = G + ridge: the rule adds squared products where its moment is -1.
std::vector<double> CoverageBound::quadratic_forms(std::vector<double> moments) const {
  const std::int64_t dim = ground_.dim(), own = candidates_.own();
  for (std::int64_t c = 0; c < dim; ++c) moments[static_cast<std::size_t>(c * dim + c)] += ridge_;
  const std::vector<double> columns = Cholesky(std::move(moments), dim).columns();

  Backend& backend = candidates_.backend();
  RuleState state(backend, RuleKind::variance, own);
  const Array<double> zeros(backend, std::vector<double>(static_cast<std::size_t>(own), 0.0));
  const Array<double> vectors(backend, std::span<const double>(columns));
  const Array<double> moment(backend, std::vector<double>(static_cast<std::size_t>(dim), -1.0));
  state.start({zeros.data(), candidates_.global_rows(), 0, Purpose("none")}, nullptr);
  const Vectors picks{dim, {vectors.data(), Element::f64, dim}, {}, nullptr, nullptr};
  state.apply_all(candidates_.store(), {picks, moment.data()});
  return state.key.to_host();
}

// x_j . sum factor_i x_i for the own candidates.
std::vector<double> CoverageBound::times_weighted_rows(const std::vector<double>& factor) {
  const double largest = largest_over(ground_.comm(), factor) * kLongest2;
  const FixedPoint fixed = fixed_for(ground_.rows(), largest);
  const Array<double> factors(ground_.backend(), std::span<const double>(factor));
  std::vector<std::int64_t> sums(static_cast<std::size_t>(ground_.dim()));
  ground_.store().visit_all([&](std::int64_t first, const Vectors& piece) {
    ground_.backend().weighted_sum(piece.x, piece.rows, factors.data() + first, fixed, sums.data());
  });
  ground_.comm().sum(sums);
  std::vector<double> vector;
  for (const std::int64_t component : sums) vector.push_back(fixed.value(component));

  const Array<double> on_device(candidates_.backend(), std::span<const double>(vector));
  const Array<double> out(candidates_.backend(), candidates_.own());
  candidates_.store().visit_all([&](std::int64_t first, const Vectors& piece) {
    candidates_.backend().products(piece.x, piece.rows, on_device.data(), out.data() + first);
  });
  products_ += candidates_.rows() + ground_.rows();
  return out.to_host();
}

}  // namespace seine
