// Small dense symmetric matrices in float64, replicated on every rank. Our own, because their order of operations is
// part of the promise that a batch is the same everywhere: libraries choose theirs by machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace seine {

// Lower Cholesky factor of a positive definite [dim, dim] matrix whose lower triangle is given; the rest is ignored.
class Cholesky {
 public:
  Cholesky(std::vector<double> matrix, std::int64_t dim);
  double log_determinant() const;
  std::vector<double> columns() const;         // of L, one behind the other
  std::vector<double> inverse_factor() const;  // L^-1, lower, [dim, dim]

 private:
  std::vector<double> factor_;
  std::int64_t dim_;
};

// A^T A of a lower triangular [dim, dim] matrix.
std::vector<double> gram_of_lower(const std::vector<double>& lower, std::int64_t dim);

// Orthonormal directions in which a positive semidefinite [dim, dim] matrix, given by its lower triangle, is large:
// nearly its leading eigenvectors, by orthogonal iteration, and v' A v of each. A direction that is left without length
// is zero.
struct Directions {
  std::vector<double> vectors;  // [count, dim]
  std::vector<double> moment;
};
Directions leading_directions(const std::vector<double>& lower, std::int64_t dim, std::int64_t count);

// P = (I + sum x x^T / noise)^-1, kept up to date pick by pick (Sherman and Morrison 1950).
class Precision {
 public:
  Precision() = default;
  Precision(std::int64_t dim, std::vector<double> start);  // empty start: I

  std::vector<double> times(std::span<const float> x) const;  // P x
  // v = P x; then P <- P - v v^T / g. Returns v.
  std::vector<double> take(std::span<const float> x, double g);
  const std::vector<double>& matrix() const { return matrix_; }

 private:
  std::int64_t dim_ = 0;
  std::vector<double> matrix_;
};

}  // namespace seine
