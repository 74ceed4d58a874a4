// The kernels of score_kernel.hpp over vector types F of float32 and D of float64; included by one source per
// instruction set. Everything is in an anonymous namespace: code of one instruction set must never be linked where
// another was meant.
//
// Rows are short and vectors are not, so the work per value runs over rows that lie one behind the other, whatever the
// borders between them, and F::kWidth rows at a time are then folded together, a register of results per fold.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "scores/score_kernel.hpp"
#include "seine/row_math.hpp"

namespace seine {
namespace {

// --- What the rows of a group are folded with: F::kWidth registers to one, in order. ---

template <class F>
struct Sum {
  struct State {
    typename F::Register sum;
  };
  static State none() { return {F::zero()}; }
  static void take(State& s, typename F::Register x) { s.sum = F::add(s.sum, x); }
  template <int Level>
  static State fold(const State& a, const State& b) {
    return {F::add(F::template low<Level>(a.sum, b.sum), F::template high<Level>(a.sum, b.sum))};
  }
};

// The two largest, at least 0.
template <class F>
struct Largest {
  struct State {
    typename F::Register first, second;
  };
  static State none() { return {F::zero(), F::zero()}; }
  static void take(State& s, typename F::Register x) {
    s.second = F::max(s.second, F::min(s.first, x));
    s.first = F::max(s.first, x);
  }
  template <int Level>
  static State fold(const State& a, const State& b) {
    const auto first = F::template low<Level>(a.first, b.first), other = F::template high<Level>(a.first, b.first);
    const auto seconds =
        F::max(F::template low<Level>(a.second, b.second), F::template high<Level>(a.second, b.second));
    return {F::max(first, other), F::max(seconds, F::min(first, other))};
  }
};

// Each of the `count` values of a row, 0 behind the last.
template <class F, class Visit>
inline void for_values(const float* row, std::int64_t count, const Visit& visit) {
  std::int64_t c = 0;
  for (; c + F::kWidth <= count; c += F::kWidth) visit(F::load(row + c));
  if (c < count) visit(F::load(row + c, static_cast<int>(count - c)));
}

template <class F, class Op, int Rows = F::kWidth, class Row>
inline typename Op::State fold_rows(const Row& row, int first = 0) {
  if constexpr (Rows == 1) {
    return row(first);
  } else {
    constexpr int level = Rows == 2 ? 0 : Rows == 4 ? 1 : Rows == 8 ? 2 : 3;
    const auto low = fold_rows<F, Op, Rows / 2>(row, first);
    return Op::template fold<level>(low, fold_rows<F, Op, Rows / 2>(row, first + Rows / 2));
  }
}

// --- logarithms ---

// x = 2^e m with m in [sqrt(1/2), sqrt(2)), by integers; 0 becomes something finite.
template <class F>
inline typename F::Register log2_of(typename F::Register x) {
  const auto bits = F::bits(x);
  const auto exponent = F::template shift_right<23>(F::subtract_bits(bits, F::all_bits(0x3f3504f3)));
  const auto mantissa = F::values(F::subtract_bits(bits, F::template shift_left<23>(exponent)));
  const auto f = F::subtract(mantissa, F::all(1.0f));
  auto series = F::all(-0.20659174025058746f);
  for (float c :
       {0.32215479016304016f, -0.3674899935722351f, 0.47934800386428833f, -0.7211318612098694f, 1.4427134990692139f})
    series = F::fma(series, f, F::all(c));
  return F::fma(f, series, F::to_float(exponent));
}

template <class F>
inline typename F::Register x_log2_x(typename F::Register x) {
  return F::multiply(x, log2_of<F>(x));
}

// As log_of of row_math.hpp, for normal numbers.
template <class D>
inline typename D::Register log_of_lanes(typename D::Register x) {
  const auto bits = D::bits(x);
  auto m = D::values(D::mantissa_bits(bits));
  auto power = D::exponent(bits);
  const auto above = D::above(m, D::all(1.4142135623730951));
  m = D::choose(above, D::multiply(m, D::all(0.5)), m);
  power = D::choose(above, D::add(power, D::all(1)), power);
  const auto f = D::subtract(m, D::all(1));
  const auto s = D::divide(f, D::add(m, D::all(1)));
  const auto z = D::multiply(s, s);
  auto series = D::all(1.0 / 23);
  for (int odd = 21; odd >= 3; odd -= 2) series = D::fma(series, z, D::all(1.0 / odd));
  const auto tail = D::fma(D::multiply(D::multiply(D::all(2), s), z), series, D::multiply(D::negate(s), f));
  return D::fma(power, D::all(0.69314718036912381649), D::add(f, D::fma(power, D::all(1.9082149292705877e-10), tail)));
}

template <class D>
void x_log_xs(const double* p, std::int64_t count, double* out) {
  std::int64_t i = 0;
  for (; i + D::kWidth <= count; i += D::kWidth) {
    const auto x = D::load(p + i);
    const auto positive = D::above(x, D::zero());
    if (D::any(D::and_not(positive, D::above(x, D::all(2.2250738585072014e-308))))) {  // subnormal, or nearly
      for (int j = 0; j < D::kWidth; ++j) out[i + j] = x_log_x(p[i + j]);
      continue;
    }
    D::store(out + i, D::choose(positive, D::multiply(x, log_of_lanes<D>(x)), D::zero()));
  }
  for (; i < count; ++i) out[i] = x_log_x(p[i]);
}

template <class F>
void log2s(const float* x, std::int64_t count, float* out) {
  std::int64_t i = 0;
  for (; i + F::kWidth <= count; i += F::kWidth) F::store(out + i, log2_of<F>(F::load(x + i)));
  if (i < count)
    F::store(out + i, log2_of<F>(F::load(x + i, static_cast<int>(count - i))), static_cast<int>(count - i));
}

// --- bounds ---

// In units of 2^-24. A sum of n values takes one addition per vector, and the fold.
inline double additions(std::int64_t n) {
  return static_cast<double>(n) / 8 + 6;
}

// How far the score may lie above what is computed of the mean prediction: relative (of the entropy) and absolute.
//
// With u = 2^-24, every value x of the mean is off by eta = (passes + 3) u at most, relatively: the rounding of what
// was stored, the additions and the division. -x log2 x is then off by eta (|x log2 x| + 1.45 x); the logarithm adds
// kLogError x and two roundings; a sum of n adds additions(n) u of the sum of |x log2 x|, which is the entropy and at
// most 0.06 (the values above 1 count twice). Sums of x are at most 1.02. 1.1 is for terms of second order.
struct Slack {
  double eta, relative, absolute;

  Slack(std::int64_t passes, std::int64_t terms) {
    constexpr double u = 0x1p-24;
    eta = (passes > 1 ? static_cast<double>(passes) + 3 : 1) * u;
    relative = 1.1 * (eta + (additions(terms) + 4) * u);
    absolute = 1.1 * (1.02 * kLogError + 0.06 * relative + 1.5 * eta) + 1e-9;
  }
};

constexpr double kLn2 = 0.6931471805599453;
constexpr double kUp = 1 + 0x1p-22;  // for the last roundings to float32

// Calls visit(first row, rows, pointer to the mean of these rows' passes, [rows, classes]), in groups of F::kWidth rows
// (the last group may have fewer).
template <class F, class Visit>
void for_means(const float* p, std::int64_t rows, std::int64_t passes, std::int64_t classes, const Visit& visit) {
  std::vector<float> scratch;
  if (passes > 1) scratch.resize(static_cast<std::size_t>(F::kWidth * (classes + 1)));
  const auto share = F::all(1.0f / static_cast<float>(passes));
  for (std::int64_t i = 0; i < rows; i += F::kWidth) {
    const std::int64_t count = std::min<std::int64_t>(F::kWidth, rows - i);
    if (passes == 1) {
      visit(i, count, p + i * classes);
      continue;
    }
    for (std::int64_t r = 0; r < count; ++r)
      for (std::int64_t c = 0; c < classes; c += F::kWidth) {
        const float* from = p + (i + r) * passes * classes + c;
        auto sum = F::zero();
        if (c + F::kWidth <= classes)
          for (std::int64_t t = 0; t < passes; ++t) sum = F::add(sum, F::load(from + t * classes));
        else
          for (std::int64_t t = 0; t < passes; ++t)
            sum = F::add(sum, F::load(from + t * classes, static_cast<int>(classes - c)));
        F::store(scratch.data() + r * classes + c, F::multiply(sum, share));  // what lies behind comes later
      }
    visit(i, count, scratch.data());
  }
}

// One result per row of a group: Op over the values of each row.
template <class F, class Op>
inline typename Op::State fold_group(const float* values, std::int64_t count, std::int64_t classes) {
  const auto row = [&](int r) {
    auto state = Op::none();
    if (r < count) for_values<F>(values + r * classes, classes, [&](auto x) { Op::take(state, x); });
    return state;
  };
  return fold_rows<F, Op>(row);
}

template <class F>
void sums(const float* p, std::int64_t rows, std::int64_t classes, float* out) {
  for (std::int64_t i = 0; i < rows; i += F::kWidth) {
    const std::int64_t count = std::min<std::int64_t>(F::kWidth, rows - i);
    F::store(out + i, fold_group<F, Sum<F>>(p + i * classes, count, classes).sum, static_cast<int>(count));
  }
}

// Sums of x log2 x, one per row of a group; at most 0 but for rounding. `scratch` has room for a group of short rows.
constexpr std::int64_t kShort = 64;
template <class F>
inline typename F::Register x_log2_x_sums(const float* values, std::int64_t count, std::int64_t classes,
                                          float* scratch) {
  if (classes < kShort) {
    const std::int64_t all = count * classes;
    for (std::int64_t c = 0; c < all; c += F::kWidth) {
      const int lanes = static_cast<int>(std::min<std::int64_t>(F::kWidth, all - c));
      F::store(scratch + c, x_log2_x<F>(lanes == F::kWidth ? F::load(values + c) : F::load(values + c, lanes)));
    }
    return fold_group<F, Sum<F>>(scratch, count, classes).sum;
  }
  const auto row = [&](int r) {
    auto state = Sum<F>::none();
    if (r < count) for_values<F>(values + r * classes, classes, [&](auto x) { Sum<F>::take(state, x_log2_x<F>(x)); });
    return state;
  };
  return fold_rows<F, Sum<F>>(row).sum;
}

template <class F>
void entropy_bounds(const float* p, std::int64_t rows, std::int64_t passes, std::int64_t classes, float* out) {
  const Slack slack(passes, classes);
  const auto scale = F::all(static_cast<float>(-kLn2 * (1 + slack.relative) * kUp));
  const auto rest = F::all(static_cast<float>(kLn2 * slack.absolute * kUp));
  float scratch[F::kWidth * (kShort + 1)];
  for_means<F>(p, rows, passes, classes, [&](std::int64_t i, std::int64_t count, const float* means) {
    const auto sum = x_log2_x_sums<F>(means, count, classes, scratch);
    F::store(out + i, F::max(F::fma(sum, scale, rest), F::zero()), static_cast<int>(count));
  });
}

// The entropies of the passes enter with the other sign. Each is clamped at 0 in the score, which only lowers it.
template <class F>
void bald_bounds(const float* p, std::int64_t rows, std::int64_t passes, std::int64_t classes, float* out) {
  const std::int64_t width = passes * classes;
  const Slack slack(passes, classes), expected(1, width);
  const auto scale = F::all(static_cast<float>(-kLn2 * (1 + slack.relative) * kUp));
  const auto less = F::all(static_cast<float>(kLn2 / static_cast<double>(passes) * (1 - expected.relative) / kUp));
  const auto rest = F::all(static_cast<float>(kLn2 * (slack.absolute + expected.absolute) * kUp + 4e-6));
  float scratch[F::kWidth * (kShort + 1)];
  for_means<F>(p, rows, passes, classes, [&](std::int64_t i, std::int64_t count, const float* means) {
    const auto row = [&](int r) {
      auto state = Sum<F>::none();
      if (r < count) for_values<F>(p + (i + r) * width, width, [&](auto x) { Sum<F>::take(state, x_log2_x<F>(x)); });
      return state;
    };
    const auto sum = x_log2_x_sums<F>(means, count, classes, scratch);
    const auto bound = F::fma(sum, scale, F::fma(fold_rows<F, Sum<F>>(row).sum, less, rest));
    F::store(out + i, F::max(bound, F::zero()), static_cast<int>(count));
  });
}

// 1 - first, or 1 - (first - second): the values are off by eta, and there are a few roundings of numbers up to 1.02.
template <class F, bool kSecond>
void largest_bounds(const float* p, std::int64_t rows, std::int64_t passes, std::int64_t classes, float* out) {
  const auto one = F::all(static_cast<float>(1 + 2.2 * Slack(passes, classes).eta + 8 * 0x1p-24));
  for_means<F>(p, rows, passes, classes, [&](std::int64_t i, std::int64_t count, const float* means) {
    const auto largest = fold_group<F, Largest<F>>(means, count, classes);
    auto bound = F::subtract(one, largest.first);
    if (kSecond) bound = F::add(bound, largest.second);
    F::store(out + i, F::max(bound, F::zero()), static_cast<int>(count));
  });
}

template <class F>
void bounds(ScoreKind kind, const float* p, std::int64_t rows, std::int64_t passes, std::int64_t classes, float* out) {
  switch (kind) {
    case ScoreKind::entropy:
      return entropy_bounds<F>(p, rows, passes, classes, out);
    case ScoreKind::least_confidence:
      return largest_bounds<F, false>(p, rows, passes, classes, out);
    case ScoreKind::margin:
      return largest_bounds<F, true>(p, rows, passes, classes, out);
    case ScoreKind::bald:
      break;
  }
  return bald_bounds<F>(p, rows, passes, classes, out);
}

}  // namespace
}  // namespace seine
