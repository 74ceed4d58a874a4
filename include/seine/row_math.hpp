// Arithmetic on one row with one fixed order of operations, for host and device: the same bits everywhere.
//
// The canonical row kernel has 32 lanes. Lane j sums the components j, j + 32, ... with one fused multiply-add each,
// and the lanes are folded as a tree: j += j + 16, then 8, 4, 2, 1. A vector unit and a warp follow the same order; the
// functions here are the definition (and the oracle of the vector code). Contraction is off in every compiler, so
// a fused operation happens where `fma` is written and nowhere else.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#define SEINE_HD __host__ __device__
#else
#define SEINE_HD
#endif

namespace seine {

inline constexpr int kLanes = 32;

template <class T>
SEINE_HD inline T fold_lanes(T (&lane)[kLanes]) {
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int j = 0; j < half; ++j) lane[j] += lane[j + half];
  return lane[0];
}

SEINE_HD inline float fused(float x, float y, float z) {
  return fmaf(x, y, z);
}
SEINE_HD inline double fused(double x, double y, double z) {
  return fma(x, y, z);
}

// Inner product of two rows, in the type of `y` (a float32 row times a float64 vector is summed in float64).
template <class X, class Y>
SEINE_HD inline Y canonical_dot(const X* x, const Y* y, std::int64_t dim) {
  Y lane[kLanes] = {};
  for (std::int64_t c = 0; c < dim; ++c) lane[c % kLanes] = fused(static_cast<Y>(x[c]), y[c], lane[c % kLanes]);
  return fold_lanes(lane);
}

// Squared Euclidean distance of two rows.
SEINE_HD inline float canonical_distance2(const float* x, const float* y, std::int64_t dim) {
  float lane[kLanes] = {};
  for (std::int64_t c = 0; c < dim; ++c) {
    const float difference = x[c] - y[c];
    lane[c % kLanes] = fmaf(difference, difference, lane[c % kLanes]);
  }
  return fold_lanes(lane);
}

// The canonical squared distance is at most this share of itself off the true one, the canonical inner product this
// share of the product of the lengths: a difference rounds once (and counts twice when squared), a lane adds
// dim / kLanes terms, the fold five, with room to spare. Not for terms that underflow.
SEINE_HD inline double canonical_error(std::int64_t dim) {
  return (static_cast<double>(dim) / kLanes + 10) * 5.9604644775390625e-8;  // 2^-24
}

// Squared distance of the outer products a (x) x and a' (x) x' without forming them. With the squared norms of the four
// factors and the squared distances ea = |a - a'|^2, ex = |x - x'|^2:
//   |a (x) x - a' (x) x'|^2 = |mean a|^2 ex + |mean x|^2 ea + (|a|^2 - |a'|^2)(|x|^2 - |x'|^2) / 2,
//   |mean a|^2 = (|a|^2 + |a'|^2) / 2 - ea / 4.
// Differences are taken before products, so near-duplicates keep their digits; equal rows give exactly 0.
SEINE_HD inline double outer_distance2(double a2, double x2, double other_a2, double other_x2, double ea, double ex) {
  const double mean_a2 = fma(-0.25, ea, 0.5 * (a2 + other_a2));
  const double mean_x2 = fma(-0.25, ex, 0.5 * (x2 + other_x2));
  const double d2 = fma(mean_a2, ex, fma(mean_x2, ea, 0.5 * (a2 - other_a2) * (x2 - other_x2)));
  return d2 > 0 ? d2 : 0;
}

SEINE_HD inline double double_of_bits(std::uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

SEINE_HD inline std::uint64_t bits_of_double(double value) {
  std::uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Natural logarithm of x > 0, our own because C libraries differ by machine; within 1.5 units in the last place.
// x = 2^k m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(s), s = (m - 1) / (m + 1), by its series in s^2 < 0.0295.
SEINE_HD inline double log_of(double x) {
  if (!(x > 0)) return x == 0 ? -HUGE_VAL : NAN;
  if (x > 1.7976931348623157e308) return x;
  int k = 0;
  if (x < 2.2250738585072014e-308) {  // subnormal
    x *= 18014398509481984.0;         // 2^54
    k = -54;
  }
  std::uint64_t bits = bits_of_double(x);
  k += static_cast<int>(bits >> 52) - 1023;
  bits = (bits & 0x000fffffffffffffULL) | 0x3ff0000000000000ULL;
  double m = double_of_bits(bits);
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++k;
  }
  const double f = m - 1;  // exact
  const double s = f / (m + 1);
  const double z = s * s;
  double series = 1.0 / 23;
  for (int odd = 21; odd >= 3; odd -= 2) series = fma(series, z, 1.0 / odd);
  // log m = 2 s + 2 s z series, and 2 s = f - s f: written around f, which is exact.
  const double tail = fma(2 * s * z, series, -s * f);
  const double power = k;
  const double ln2_high = 0.69314718036912381649;  // 33 bits: power * ln2_high is exact
  const double ln2_low = 1.9082149292705877e-10;
  return fma(power, ln2_high, f + fma(power, ln2_low, tail));
}

// log(1 + x) for x >= 0, without losing small x.
SEINE_HD inline double log_one_plus(double x) {
  const double sum = 1 + x;
  return sum == 1 ? x : log_of(sum) * (x / (sum - 1));
}

// e^x, our own for the same reason; within 1.5 units in the last place.
SEINE_HD inline double exp_of(double x) {
  if (!(x == x)) return x;
  if (x > 709.782712893384) return HUGE_VAL;
  if (x < -745.1332191019412) return 0;
  const double k = floor(fma(x, 1.4426950408889634, 0.5));
  const double r = fma(k, -1.9082149292705877e-10, fma(k, -0.69314718036912381649, x));
  double series = 1.0 / 6227020800.0;  // 1 / 13!
  double factorial[12] = {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
                          720.0,       120.0,      24.0,      6.0,      2.0,     1.0};
  for (double f : factorial) series = fma(series, r, 1.0 / f);
  const double value = fma(series, r, 1.0);
  const int power = static_cast<int>(k);
  const int first = power / 2;  // in two steps, so that subnormal results round once
  return value * double_of_bits(static_cast<std::uint64_t>(first + 1023) << 52) *
         double_of_bits(static_cast<std::uint64_t>(power - first + 1023) << 52);
}

// base^power for base >= 0: whole powers by multiplication, others through log and exp. 0^0 is 1.
SEINE_HD inline double power_of(double base, double power) {
  if (power == 0) return 1;
  if (base == 0) return power > 0 ? 0 : HUGE_VAL;
  if (power == 0.5) return sqrt(base);
  if (power == floor(power) && power >= 1 && power <= 64) {
    double value = 1;
    for (int i = 0; i < static_cast<int>(power); ++i) value *= base;
    return value;
  }
  return exp_of(power * log_of(base));
}

}  // namespace seine
