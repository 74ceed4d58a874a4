#include "reading/row_checks.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "scores/score_kernel.hpp"

namespace seine {

// In integers, because a sum of floats does not vectorise.
float largest_magnitude(const float* values, std::int64_t count) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
  return std::bit_cast<float>(largest);
}

bool all_finite(const double* values, std::int64_t count) {
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i)
    finite &= (std::bit_cast<std::uint64_t>(values[i]) & 0x7ff0000000000000U) != 0x7ff0000000000000U;
  return finite;
}

// In four lanes, to be quick.
double settle_distribution(double* p, std::int64_t classes) {
  double lane[4] = {}, smallest[4] = {};
  for (std::int64_t c = 0; c < classes; ++c) {
    smallest[c % 4] = std::min(smallest[c % 4], p[c]);
    p[c] = p[c] < 0 && p[c] >= kSmallestProbability ? 0 : p[c];
    lane[c % 4] += p[c];
  }
  const double low = std::min(std::min(smallest[0], smallest[1]), std::min(smallest[2], smallest[3]));
  return low < kSmallestProbability ? std::numeric_limits<double>::quiet_NaN()
                                    : (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

bool are_distributions(const float* p, std::int64_t rows, std::int64_t classes, double tolerance) {
  std::uint32_t signs = 0;
  for (std::int64_t i = 0; i < rows * classes; ++i) signs |= std::bit_cast<std::uint32_t>(p[i]);
  if (signs >> 31 != 0) return false;
  const double rounding = (static_cast<double>(classes) / 8 + 8) * 0x1p-24 * 1.02;
  const auto most = static_cast<float>(tolerance - rounding - 0x1p-23);
  float sums[256];
  bool in_tolerance = true;
  for (std::int64_t i = 0; i < rows; i += 256) {
    const std::int64_t count = std::min<std::int64_t>(256, rows - i);
    score_kernels().sums(p + i * classes, count, classes, sums);
    for (std::int64_t j = 0; j < count; ++j) in_tolerance &= std::fabs(sums[j] - 1) <= most;
  }
  return in_tolerance;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t j = 1; j < length; ++j)
      if ((static_cast<unsigned char>(text[i + j]) & 0xc0) != 0x80) return false;
    i += length;
  }
  return true;
}

}  // namespace seine
