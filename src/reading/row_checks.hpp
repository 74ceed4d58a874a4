// Whether values out of a file are what the contract promises of a row.
#pragma once

#include <cstdint>
#include <string_view>

namespace seine {

inline constexpr double kLargestNorm2 = 8.5e37;        // a quarter of float32: squared distances stay finite
inline constexpr double kSmallestProbability = -1e-6;  // rounding of the writer; becomes 0

float largest_magnitude(const float* values, std::int64_t count);  // not finite: so is one of the values
bool all_finite(const double* values, std::int64_t count);

// Raises values in [-1e-6, 0) to 0; the sum, or NaN where a value lies below.
double settle_distribution(double* p, std::int64_t classes);

// Whether float32 can tell that every row of a [rows, classes] matrix is a distribution: no value below 0, and a sum of
// 1 within the tolerance. False may also mean that it cannot.
bool are_distributions(const float* p, std::int64_t rows, std::int64_t classes, double tolerance);

bool is_utf8(std::string_view text);

}  // namespace seine
