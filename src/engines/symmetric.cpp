#include "engines/symmetric.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "backend/cpu/row_kernel.hpp"
#include "host_rows.hpp"
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

namespace {

// Takes from row `at` what lies along those before it, and divides it by its length.
void make_orthonormal(std::vector<double>& rows, std::int64_t at, std::int64_t dim) {
  double* row = rows.data() + at * dim;
  const double before = wide_dot(row, row, dim);
  for (int twice = 0; twice < 2; ++twice)  // once leaves what rounding took
    for (std::int64_t other = 0; other < at; ++other) {
      const double* direction = rows.data() + other * dim;
      const double along = wide_dot(row, direction, dim);
      for (std::int64_t c = 0; c < dim; ++c) row[c] = fma(-along, direction[c], row[c]);
    }
  const double left = wide_dot(row, row, dim);
  const double factor = left > 1e-16 * before ? 1 / std::sqrt(left) : 0;
  for (std::int64_t c = 0; c < dim; ++c) row[c] *= factor;
}

}  // namespace

Directions leading_directions(const std::vector<double>& lower, std::int64_t dim, std::int64_t count) {
  constexpr int kIterations = 8;
  std::vector<double> matrix = lower;
  for (std::int64_t r = 0; r < dim; ++r)
    for (std::int64_t c = 0; c < r; ++c)
      matrix[static_cast<std::size_t>(c * dim + r)] = matrix[static_cast<std::size_t>(r * dim + c)];
  // Starts with the axes along which it is largest.
  std::vector<std::int64_t> axes(static_cast<std::size_t>(dim));
  std::iota(axes.begin(), axes.end(), 0);
  const auto diagonal = [&](std::int64_t c) { return matrix[static_cast<std::size_t>(c * dim + c)]; };
  std::stable_sort(axes.begin(), axes.end(), [&](std::int64_t a, std::int64_t b) { return diagonal(a) > diagonal(b); });
  Directions found{std::vector<double>(static_cast<std::size_t>(count * dim)),
                   std::vector<double>(static_cast<std::size_t>(count))};
  for (std::int64_t k = 0; k < count; ++k)
    found.vectors[static_cast<std::size_t>(k * dim + axes[static_cast<std::size_t>(k)])] = 1;
  std::vector<double> image(found.vectors.size());
  for (int i = 0; i <= kIterations; ++i) {
    for (std::int64_t k = 0; k < count; ++k) {
      const double* direction = found.vectors.data() + k * dim;
      for (std::int64_t r = 0; r < dim; ++r)
        image[static_cast<std::size_t>(k * dim + r)] = wide_dot(matrix.data() + r * dim, direction, dim);
      found.moment[static_cast<std::size_t>(k)] = wide_dot(direction, image.data() + k * dim, dim);
    }
    if (i == kIterations) break;
    found.vectors = image;
    for (std::int64_t k = 0; k < count; ++k) make_orthonormal(found.vectors, k, dim);
  }
  return found;
}

Precision::Precision(std::int64_t dim, std::vector<double> start) : dim_(dim), matrix_(std::move(start)) {
  if (!matrix_.empty()) return;
  matrix_.resize(static_cast<std::size_t>(dim_ * dim_));
  for (std::int64_t c = 0; c < dim_; ++c) matrix_[static_cast<std::size_t>(c * dim_ + c)] = 1;
}

std::vector<double> Precision::times(std::span<const float> x) const {
  std::vector<double> v(static_cast<std::size_t>(dim_));
  wide_dots(x.data(), matrix_.data(), dim_, dim_, v.data());
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
