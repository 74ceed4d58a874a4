#include "symmetric.hpp"

#include <cmath>

#include "backend/row_kernel.hpp"
#include "seine/error.hpp"
#include "seine/row_math.hpp"

namespace seine {

Cholesky::Cholesky(std::vector<double> matrix, std::int64_t dim) : factor_(std::move(matrix)), dim_(dim) {
  for (std::int64_t i = 0; i < dim_; ++i) {
    double* row = factor_.data() + i * dim_;
    for (std::int64_t j = 0; j <= i; ++j) {
      const double* other = factor_.data() + j * dim_;
      const double rest = row[j] - wide_dot(row, other, j);
      if (j < i) {
        row[j] = rest / other[j];
      } else {
        require(rest > 0, "a matrix I + X^T X / noise is positive definite");
        row[i] = std::sqrt(rest);
      }
    }
    for (std::int64_t j = i + 1; j < dim_; ++j) row[j] = 0;
  }
}

double Cholesky::log_determinant() const {
  double sum = 0;
  for (std::int64_t i = 0; i < dim_; ++i) sum += log_of(factor_[static_cast<std::size_t>(i * dim_ + i)]);
  return 2 * sum;
}

std::vector<double> Cholesky::columns() const {
  std::vector<double> columns(factor_.size());
  for (std::int64_t r = 0; r < dim_; ++r)
    for (std::int64_t c = 0; c <= r; ++c)
      columns[static_cast<std::size_t>(c * dim_ + r)] = factor_[static_cast<std::size_t>(r * dim_ + c)];
  return columns;
}

std::vector<double> Cholesky::inverse_factor() const {
  std::vector<double> inverse(factor_.size());
  for (std::int64_t i = 0; i < dim_; ++i) {
    const double* row = factor_.data() + i * dim_;
    double* out = inverse.data() + i * dim_;
    out[i] = 1;
    for (std::int64_t k = 0; k < i; ++k) {
      const double* earlier = inverse.data() + k * dim_;
      for (std::int64_t c = 0; c <= k; ++c) out[c] = fma(-row[k], earlier[c], out[c]);
    }
    for (std::int64_t c = 0; c <= i; ++c) out[c] /= row[i];
  }
  return inverse;
}

std::vector<double> gram_of_lower(const std::vector<double>& lower, std::int64_t dim) {
  std::vector<double> gram(lower.size());
  for (std::int64_t i = 0; i < dim; ++i) {
    const double* row = lower.data() + i * dim;
    for (std::int64_t r = 0; r <= i; ++r) {
      double* out = gram.data() + r * dim;
      for (std::int64_t c = 0; c <= i; ++c) out[c] = fma(row[r], row[c], out[c]);
    }
  }
  return gram;
}

Precision::Precision(std::int64_t dim, std::vector<double> start) : dim_(dim), matrix_(std::move(start)) {
  if (!matrix_.empty()) return;
  matrix_.resize(static_cast<std::size_t>(dim_ * dim_));
  for (std::int64_t c = 0; c < dim_; ++c) matrix_[static_cast<std::size_t>(c * dim_ + c)] = 1;
}

std::vector<double> Precision::times(std::span<const float> x) const {
  std::vector<double> v(static_cast<std::size_t>(dim_));
  const float* row = x.data();
  row_kernels().wide_dots(&row, 1, matrix_.data(), dim_, dim_, v.data());
  return v;
}

std::vector<double> Precision::take(std::span<const float> x, double g) {
  std::vector<double> v = times(x);
  for (std::int64_t r = 0; r < dim_; ++r) {
    const double factor = -v[static_cast<std::size_t>(r)] / g;
    double* row = matrix_.data() + r * dim_;
    for (std::int64_t c = 0; c < dim_; ++c) row[c] = fma(factor, v[static_cast<std::size_t>(c)], row[c]);
  }
  return v;
}

}  // namespace seine
