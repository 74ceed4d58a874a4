// The total order that makes rank and thread counts irrelevant, and sums that do not depend on grouping.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "seine/row_math.hpp"

namespace seine {

// A global row and the value that it competes with.
struct Candidate {
  double value;
  std::int64_t row;
};

inline constexpr Candidate kNoCandidate{-std::numeric_limits<double>::infinity(),
                                        std::numeric_limits<std::int64_t>::max()};

// Larger value wins; equal values go to the smaller row. Total, so any grouping of comparisons agrees.
SEINE_HD inline bool beats(const Candidate& a, const Candidate& b) {
  return a.value > b.value || (a.value == b.value && a.row < b.row);
}

// Sums as integers: each term is rounded once to a multiple of 2^-bits, and integers add in any order.
class FixedPoint {
 public:
  // The finest unit that keeps a sum of `terms` values of at most `largest` below 2^62, and that is no finer than
  // 2^-digits of `largest`.
  static FixedPoint for_sum(std::int64_t terms, double largest, int digits = 52) {
    if (!(largest > 0) || terms < 1) return FixedPoint(0);
    int magnitude = 0, count = 0;
    std::frexp(largest, &magnitude);  // largest < 2^magnitude
    std::frexp(static_cast<double>(terms), &count);
    const int room = 61 - count;
    return FixedPoint((digits < room ? digits : room) - magnitude);
  }
  explicit FixedPoint(int bits) : scale_(std::ldexp(1.0, bits)) {}

  SEINE_HD std::int64_t of(double value) const { return static_cast<std::int64_t>(rounded(value)); }
  SEINE_HD double rounded(double value) const { return floor(fma(value, scale_, 0.5)); }  // the same, as a float64
  SEINE_HD double value(std::int64_t sum) const { return static_cast<double>(sum) / scale_; }
  SEINE_HD double unit() const { return 1 / scale_; }

 private:
  double scale_;  // a power of two: scaling is exact
};

}  // namespace seine
