// Sums of gains over products that the row kernel gave, for facility location.
#pragma once

#include <cstdint>

#include "seine/backend.hpp"

namespace seine {

// Some ground rows of facility location: a multiple of kPanelRows, with rows at the end to which nothing adds (above:
// 2).
struct GainRows {
  const float *above, *below;  // coverage; see gain_between in rules.hpp
  const double* at_above;      // fixed.rounded(weight * above)
  const double* weight;
  const std::int32_t* number;
};

// Sum of gain_between over the rows and how many of them add; dots: one per row. The rows that add are written to
// `near` where it is not null. Bytes per row: 12, of eight of which one adds 16 more, and 12 where it is written.
// Flops per row: 2, of eight of which one adds 6 more, in float64.
struct GainSum {
  double gain;
  std::int64_t adding;
};
GainSum sum_gains(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed, Near* near);
// Where dots are upper bounds of similarities: one of that sum, in whole units, and how many rows may add. Bytes per
// row: 16; flops per row: 3, and 4 in float64.
GainSum sum_gain_bounds(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed);
// Which dots are above; returns how many. `count` is a multiple of 8, and `found` has room for eight more. Bytes per
// row: 8, and 4 written, to the same lines while nothing is found; flops per row: 1.
std::int64_t find_above(const float* dots, const float* above, std::int64_t count, std::int32_t* found);
// sum_gains over a list, where `best` is how far each ground row is covered; weight: of each, null: 1. Bytes per entry:
// 8, and 4 of coverage from anywhere (12 with weights); flops per entry: 1, and 10 in float64.
GainSum sum_listed_gains(const Near* list, std::int64_t count, const float* best, const double* weight,
                         FixedPoint fixed);

}  // namespace seine
