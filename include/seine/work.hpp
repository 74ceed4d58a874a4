// What a strategy does to a pool, in numbers that depend on no machine. `seine plan` makes seconds of them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "seine/pool_files.hpp"
#include "seine/request.hpp"

namespace seine {

// A number that is not known exactly: what is expected, and between what it was on all data so far.
struct Range {
  double low = 0, likely = 0, high = 0;

  static Range exactly(double value) { return {value, value, value}; }
  Range operator+(const Range& other) const { return {low + other.low, likely + other.likely, high + other.high}; }
  Range operator*(double factor) const { return {low * factor, likely * factor, high * factor}; }
  Range most(double bound) const { return {std::min(low, bound), std::min(likely, bound), std::min(high, bound)}; }
  Range least(double bound) const { return {std::max(low, bound), std::max(likely, bound), std::max(high, bound)}; }
};

// What happens where a row meets a pick.
enum class Meeting {
  none,
  screened_distance,  // in blocks of the pairs that the triangle inequality leaves
  distance,           // blocks of rows and picks
  product,            // in float64
  similarity,
};

// One selection over one set of rows, of all ranks together.
struct Work {
  Meeting meeting = Meeting::none;
  Range pairs;   // of row and pick that meet
  Range rounds;  // each looks at the bound of every row a few times
};

// `rows` of the pool's rows take part.
using WorkFunction = Work (*)(const PoolShape& pool, std::int64_t rows, const Request& request);

// Those of the strategies, by kind. Shares of the pairs and numbers of rounds are from Fashion-MNIST (pixels, hidden
// layer), Gaussian clusters and a million rows in separated clusters.
Work work_of_one_pass(const PoolShape& pool, std::int64_t rows, const Request& request);  // scores, draws
Work work_of_farthest(const PoolShape& pool, std::int64_t rows, const Request& request);
Work work_of_race(const PoolShape& pool, std::int64_t rows, const Request& request);
Work work_of_variance(const PoolShape& pool, std::int64_t rows, const Request& request);
Work work_of_coverage(const PoolShape& pool, std::int64_t rows, const Request& request);

}  // namespace seine
