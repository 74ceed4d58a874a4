// An upper bound of facility location's gains from moments of the ground rows: N D^2 once and N D for each coverage,
// where the gains themselves take N^2 D.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seine/pool.hpp"

namespace seine {

// With similarity d_ij before it is clipped, coverage b_i >= 0 and t_i = d_ij - b_i, the gain of j is at most
//   sum w_i max(0, t_i) = (sum w_i t_i + sum w_i |t_i|) / 2 <= (A + |w| sqrt(T)) / 2
// by Cauchy and Schwarz, where A = x_j.m - sum w_i b_i and T = sum t_i^2 = x_j'G x_j - 2 x_j.c + |b|^2 need only
//   m = sum w_i x_i,  G = sum x_i x_i',  c = sum b_i x_i.
// Rows are unit rows (or zero). What rounding may take away, here and in the gains, is added.
class CoverageBound {
 public:
  // Whether moments cost little of what they save.
  static bool pays(std::int64_t ground_rows, std::int64_t dim) { return ground_rows >= 16 * dim; }
  static std::int64_t most_bytes(std::int64_t dim) { return 24 * dim * dim; }  // while it is made

  // Collective. Sum of x x' over the ground rows, lower triangle.
  static std::vector<double> moments(const Pool& ground);

  // Collective.
  CoverageBound(const Pool& candidates, const Pool& ground, FixedPoint gains, std::vector<double> moments);

  // Collective. Bounds of the gains of the own candidates, in units of `gains`, when the own ground rows are covered so
  // far.
  std::vector<double> at(std::span<const float> coverage);

  // Inner products of rows so far, on all ranks.
  std::int64_t products() const { return products_; }

 private:
  double sum(const std::vector<double>& values) const;
  std::vector<double> quadratic_forms(std::vector<double> moments) const;
  std::vector<double> times_weighted_rows(const std::vector<double>& factor);

  const Pool& candidates_;
  const Pool& ground_;
  FixedPoint gains_;
  std::vector<double> weight_;      // of the own ground rows
  double largest_, total_, norm_;   // of the weights, on all ranks; upper bounds
  double ridge_;                    // more than rounding takes from a quadratic form of G
  std::vector<double> form_, dot_;  // x'Gx and x.m of the own candidates
  std::int64_t products_ = 0;
};

}  // namespace seine
