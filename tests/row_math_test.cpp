// Arithmetic: log, exp and power against long double; draws; fixed-point sums; and the loops of the CPU backends
// against the scalar definitions of row_math.hpp and rules.hpp, bit for bit, over awkward dimensions.
#include <gtest/gtest.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <set>

#include "backend/cpu/gain_kernel.hpp"
#include "backend/cpu/row_kernel.hpp"
#include "seine/backend.hpp"

namespace seine::test {
namespace {

// Distance in units in the last place of the exact result.
double ulps(double got, long double want) {
  const auto rounded = static_cast<double>(want);
  if (got == rounded) return 0;
  if (!std::isfinite(rounded) || !std::isfinite(got)) return 1e9;
  const double unit = std::max(std::nextafter(std::abs(rounded), HUGE_VAL) - std::abs(rounded),
                               std::numeric_limits<double>::denorm_min());
  return static_cast<double>(std::abs(static_cast<long double>(got) - want)) / unit;
}

double draw(std::uint64_t index) {
  return uniform(11, Purpose("row_math_test"), index);
}

TEST(Log, WithinTwoUlps) {
  double worst = 0;
  const auto check = [&](double x) {
    const double error = ulps(log_of(x), std::log(static_cast<long double>(x)));
    EXPECT_LE(error, 2) << x;
    worst = std::max(worst, error);
  };
  for (std::uint64_t i = 0; i < 200000; ++i) {
    check(draw(i));
    check(std::ldexp(1 + draw(i), static_cast<int>(i % 2000) - 1000));
    check(1 + (draw(i) - 0.5) * std::ldexp(1.0, -static_cast<int>(i % 50)));  // near 1
  }
  for (const double x : {5e-324, 1e-310, 2.2250738585072014e-308, 0.5, 0.70710678118654746, 0.7071067811865476,
                         1.4142135623730949, 1.4142135623730951, 2.0, 1.7976931348623157e308})
    check(x);
  EXPECT_EQ(log_of(1), 0);
  EXPECT_EQ(log_of(0), -HUGE_VAL);
  EXPECT_EQ(log_of(HUGE_VAL), HUGE_VAL);
  EXPECT_TRUE(std::isnan(log_of(-1)));
  EXPECT_TRUE(std::isnan(log_of(NAN)));
  std::printf("log_of: at most %.3f ulp\n", worst);
}

TEST(Exp, WithinTwoUlps) {
  double worst = 0;
  const auto check = [&](double x) {
    const double error = ulps(exp_of(x), std::exp(static_cast<long double>(x)));
    EXPECT_LE(error, 2) << x;
    worst = std::max(worst, error);
  };
  for (std::uint64_t i = 0; i < 200000; ++i) {
    check((draw(i) - 0.5) * 1400);
    check((draw(i) - 0.5) * std::ldexp(1.0, -static_cast<int>(i % 60)));
    check(-draw(i) * 50);
  }
  for (const double x : {0.0, 1.0, -1.0, 709.78, -708.4, -744.0, -745.13}) check(x);
  EXPECT_EQ(exp_of(0), 1);
  EXPECT_EQ(exp_of(-HUGE_VAL), 0);
  EXPECT_EQ(exp_of(HUGE_VAL), HUGE_VAL);
  EXPECT_EQ(exp_of(-746), 0);
  EXPECT_EQ(exp_of(710), HUGE_VAL);
  EXPECT_TRUE(std::isnan(exp_of(NAN)));
  std::printf("exp_of: at most %.3f ulp\n", worst);
}

TEST(Power, WithinTwoUlps) {
  for (std::uint64_t i = 0; i < 50000; ++i) {
    const double base = draw(i) * 3;
    for (const double power : {1.0, 2.0, 0.5})
      EXPECT_LE(ulps(power_of(base, power), std::pow(static_cast<long double>(base), static_cast<long double>(power))),
                2)
          << base << "^" << power;
    // Through log and exp: the error of the logarithm is multiplied by its size.
    const double power = draw(i + 50000) * 2;
    const double room = 2 + 2 * std::abs(power * std::log(base));
    EXPECT_LE(ulps(power_of(base, power), std::pow(static_cast<long double>(base), static_cast<long double>(power))),
              room)
        << base << "^" << power;
  }
  EXPECT_EQ(power_of(0, 0), 1);
  EXPECT_EQ(power_of(5, 0), 1);
  EXPECT_EQ(power_of(0, 0.3), 0);
  EXPECT_EQ(power_of(0, 2), 0);
  EXPECT_EQ(power_of(1.5, 3), 3.375);
}

TEST(Draws, PhiloxKnownAnswers) {  // of Random123: philox4x32-10, the low and second word of the result
  EXPECT_EQ(random_bits(0, 0, 0), 0xe169c58d6627e8d5ULL);
  EXPECT_EQ(random_bits(~0ULL, ~0ULL, ~0ULL), 0x41c83b0e408f276dULL);
  // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0
  EXPECT_EQ(random_bits(0x299f31d0a4093822ULL, 0x0370734413198a2eULL, 0x85a308d3243f6a88ULL), 0x94fdccebd16cfe09ULL);
}

TEST(Draws, UniformIsOpenAndEven) {
  double sum = 0, square = 0, smallest = 1, largest = 0;
  constexpr int kDraws = 1000000;
  int tenth[10] = {};
  for (std::uint64_t i = 0; i < kDraws; ++i) {
    const double u = uniform(3, Purpose("even"), i);
    sum += u;
    square += u * u;
    smallest = std::min(smallest, u);
    largest = std::max(largest, u);
    ++tenth[static_cast<int>(u * 10)];
  }
  EXPECT_GT(smallest, 0);
  EXPECT_LT(largest, 1);
  EXPECT_NEAR(sum / kDraws, 0.5, 5 * std::sqrt(1.0 / 12 / kDraws));
  EXPECT_NEAR(square / kDraws, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kDraws));
  double statistic = 0;
  for (const int count : tenth) statistic += std::pow(count - kDraws / 10.0, 2) / (kDraws / 10.0);
  EXPECT_LT(statistic, 45) << "chi-square of 9 degrees of freedom";
  // The extremes of 64 random bits stay inside (0, 1).
  EXPECT_GT((static_cast<double>(0ULL >> 12) + 0.5) * 2.220446049250313e-16, 0);
  EXPECT_LT((static_cast<double>(~0ULL >> 12) + 0.5) * 2.220446049250313e-16, 1);
  EXPECT_GT(exponential(1, Purpose("even"), 1), 0);
}

TEST(Draws, PurposesSeedsAndLevelsDiffer) {
  std::set<std::uint64_t> keys;
  const char* const purposes[] = {"random", "first", "race", "ground", "evaluation", "partition"};
  for (const char* name : purposes)
    for (int level = 0; level < 12; ++level) keys.insert(Purpose(name, level).key);
  EXPECT_EQ(keys.size(), 72u);
  EXPECT_NE(uniform(1, Purpose("random"), 5), uniform(2, Purpose("random"), 5));
  EXPECT_NE(uniform(1, Purpose("random"), 5), uniform(1, Purpose("random"), 5 + (1ULL << 32)));
}

TEST(FixedPointSum, ScaleAndRoundTrip) {
  for (const double largest : {1e-30, 0.3, 1.0, 1.0000001, 7.0, 1e9, 1e30}) {
    for (const std::int64_t terms : {std::int64_t{1}, std::int64_t{2}, std::int64_t{1000}, std::int64_t{1} << 40}) {
      const FixedPoint fixed = FixedPoint::for_sum(terms, largest);
      const auto term = static_cast<long double>(fixed.of(largest));
      EXPECT_LT(term * static_cast<long double>(terms), std::ldexp(1.0L, 62)) << largest << " " << terms;
      EXPECT_GE(largest / fixed.unit(), std::ldexp(1.0, 61 - 42)) << "too coarse: " << largest << " " << terms;
      EXPECT_NEAR(fixed.value(fixed.of(largest * 0.7)), largest * 0.7, fixed.unit() / 2);
      EXPECT_EQ(fixed.value(fixed.of(-3 * fixed.unit())), -3 * fixed.unit());
      EXPECT_EQ(std::exp2(std::round(std::log2(fixed.unit()))), fixed.unit()) << "a power of two";
    }
  }
  EXPECT_EQ(FixedPoint::for_sum(100, 1, 30).unit(), std::ldexp(1.0, -29));  // 1 < 2^1
  EXPECT_EQ(FixedPoint::for_sum(0, 1).of(0), 0);
  EXPECT_EQ(FixedPoint::for_sum(10, 0).of(0), 0);
}

TEST(Order, LargerValueThenSmallerRow) {
  EXPECT_TRUE(beats({2, 9}, {1, 0}));
  EXPECT_TRUE(beats({1, 3}, {1, 4}));
  EXPECT_FALSE(beats({1, 4}, {1, 4}));
  EXPECT_FALSE(beats({NAN, 0}, {1, 4}));
  EXPECT_TRUE(beats({-HUGE_VAL, 5}, kNoCandidate));
}

// --- The backends ---

constexpr std::int64_t kDims[] = {1, 2, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 65, 100, 257, 784};

// Values of very different size, and some exact zeros.
std::vector<float> rows_of(std::int64_t count, std::uint64_t salt) {
  std::vector<float> x;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::uint64_t key = salt * 1000003 + static_cast<std::uint64_t>(i);
    const double value = (draw(key) - 0.5) * std::ldexp(1.0, static_cast<int>(draw(~key) * 8));
    x.push_back(draw(key ^ 0x5555) < 0.05 ? 0.0f : static_cast<float>(value));
  }
  return x;
}

std::vector<std::uint16_t> halves_of(std::vector<float>& x) {  // rounds x
  std::vector<std::uint16_t> halves;
  for (float& value : x) {
    halves.push_back(static_cast<std::uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT)));
    value = _cvtsh_ss(halves.back());
  }
  return halves;
}

template <class T>
testing::AssertionResult same_bits(const std::vector<T>& got, const std::vector<T>& want) {
  if (got.size() != want.size())
    return testing::AssertionFailure() << got.size() << " values, expected " << want.size();
  for (std::size_t i = 0; i < want.size(); ++i)
    if (std::memcmp(&got[i], &want[i], sizeof(T)) != 0)
      return testing::AssertionFailure() << "value " << i << ": " << testing::PrintToString(got[i]) << ", expected "
                                         << testing::PrintToString(want[i]);
  return testing::AssertionSuccess();
}

class Loops : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  void SetUp() override {
    std::string why;
    backend_ = make_backend(std::get<0>(GetParam()), {.threads = std::get<1>(GetParam()), .local_rank = 0}, why);
  }
  template <class T>
  Array<T> put(const std::vector<T>& values) {
    return Array<T>(*backend_, std::span<const T>(values));
  }
  template <class T>
  Array<T> room(std::int64_t count) {
    return Array<T>(*backend_, count);
  }
  Backend& backend() { return *backend_; }

 private:
  std::unique_ptr<Backend> backend_;
};

TEST_P(Loops, SquaredNorms) {
  for (const std::int64_t dim : kDims) {
    const std::int64_t rows = 301;
    for (const bool half : {false, true}) {
      std::vector<float> x = rows_of(rows * dim, static_cast<std::uint64_t>(dim));
      const std::vector<std::uint16_t> halves = half ? halves_of(x) : std::vector<std::uint16_t>{};
      const Array<float> wide = put(x);
      const Array<std::uint16_t> narrow = half ? put(halves) : Array<std::uint16_t>();
      const Field field = half ? Field{narrow.data(), Element::f16, dim} : Field{wide.data(), Element::f32, dim};
      Array<double> out = room<double>(rows);
      backend().squared_norms(field, rows, out.data());
      const std::vector<double> y(x.begin(), x.end());
      std::vector<double> want;
      for (std::int64_t i = 0; i < rows; ++i)
        want.push_back(canonical_dot(x.data() + i * dim, y.data() + i * dim, dim));
      EXPECT_TRUE(same_bits(out.to_host(), want)) << "dim " << dim << (half ? " f16" : " f32");
    }
  }
}

// States and keys after several picks, for a pick count that leaves remainders in any blocking.
TEST_P(Loops, ApplyByDistance) {
  for (const std::int64_t dim : kDims) {
    const std::int64_t rows = 530, picks = 37;
    for (const bool half : {false, true}) {
      std::vector<float> x = rows_of(rows * dim, 7 + static_cast<std::uint64_t>(dim));
      const std::vector<std::uint16_t> halves = half ? halves_of(x) : std::vector<std::uint16_t>{};
      const Array<float> wide = put(x);
      const Array<std::uint16_t> narrow = half ? put(halves) : Array<std::uint16_t>();
      const Field field = half ? Field{narrow.data(), Element::f16, dim} : Field{wide.data(), Element::f32, dim};
      const std::int64_t first_pick = 100;  // rows [100, 137) are the picks
      std::vector<double> before, weight, moments;
      std::vector<std::int64_t> global;
      for (std::int64_t i = 0; i < rows; ++i) {
        before.push_back(i % 3 == 0 ? HUGE_VAL : 50.0 * static_cast<double>(dim) * draw(static_cast<std::uint64_t>(i)));
        weight.push_back(i % 11 == 0 ? 0 : 0.25 + draw(static_cast<std::uint64_t>(i) + 999));
        global.push_back(3 * i + 1);
      }
      for (std::int64_t p = 0; p < picks; ++p) moments.push_back(1e-4 * static_cast<double>(p));
      const Array<double> before_ = put(before), weight_ = put(weight), moments_ = put(moments);
      const Array<std::int64_t> global_ = put(global);
      Vectors vectors{.rows = rows, .x = field, .a = {}};
      const Picks pending{.vectors = vectors.from(first_pick, picks), .moments = moments_.data()};
      const auto check = [&]<class Rule>(RuleKind kind, Rule) {
        Array<typename Rule::State> state = room<typename Rule::State>(rows);
        Array<double> key = room<double>(rows);
        Array<std::uint32_t> applied = room<std::uint32_t>(rows);
        const Start how{
            .before = before_.data(), .global_rows = global_.data(), .seed = 4, .purpose = Purpose("race", 2)};
        const RowStates all{state.data(), key.data(), applied.data(), weight_.data()};
        backend().start(kind, how, rows, all);
        EXPECT_EQ(backend().apply(kind, vectors, pending, -HUGE_VAL, all), rows * picks);
        EXPECT_EQ(backend().apply(kind, vectors, pending, -HUGE_VAL, all), 0) << "all rows have seen all picks";
        const auto states = state.to_host();
        std::vector<double> want_key, got_near, want_near;
        std::vector<std::uint32_t> got_nearest, want_nearest;
        for (std::int64_t i = 0; i < rows; ++i) {
          auto s = Rule::start(before[i], weight[i], 4, Purpose("race", 2), global[i]);
          for (std::int64_t p = 0; p < picks; ++p)
            Rule::apply(s, weight[i], canonical_distance2(x.data() + i * dim, x.data() + (first_pick + p) * dim, dim),
                        moments[p], static_cast<std::uint32_t>(p));
          want_key.push_back(Rule::key(s, weight[i]));
          want_near.push_back(s.distance2);
          want_nearest.push_back(s.nearest);
          got_near.push_back(states[i].distance2);
          got_nearest.push_back(states[i].nearest);
        }
        const std::vector<double> got_key = key.to_host();
        EXPECT_TRUE(same_bits(got_key, want_key)) << "key, dim " << dim << (half ? " f16" : " f32");
        EXPECT_TRUE(same_bits(got_near, want_near)) << "distance, dim " << dim << (half ? " f16" : " f32");
        EXPECT_TRUE(same_bits(got_nearest, want_nearest)) << "nearest, dim " << dim << (half ? " f16" : " f32");

        // Lazily: pick by pick with a floor, rows at the floor are exact and the others bounded; in the end all agree.
        backend().start(kind, how, rows, all);
        std::vector<double> sorted = want_key;
        std::sort(sorted.begin(), sorted.end());
        const double floor = sorted[sorted.size() * 9 / 10];
        backend().apply(kind, vectors, {pending.vectors.from(0, 1), pending.moments}, -HUGE_VAL, all);
        std::int64_t met = rows;
        for (const std::int64_t known : {2, 5, 18, 37})
          met += backend().apply(kind, vectors, {pending.vectors.from(0, known), pending.moments}, floor, all);
        const std::vector<double> bounds = key.to_host();
        for (std::size_t i = 0; i < bounds.size(); ++i) {
          EXPECT_GE(bounds[i], want_key[i]) << "row " << i;
          if (bounds[i] >= floor) {
            EXPECT_EQ(bounds[i], want_key[i]) << "row " << i;
          }
        }
        met += backend().apply(kind, vectors, pending, -HUGE_VAL, all);
        EXPECT_GE(met, rows * picks);
        EXPECT_LE(met, rows * picks * 21 / 20) << "but for a chunk that rows join in the middle, no pair meets twice";
        EXPECT_TRUE(same_bits(key.to_host(), want_key)) << "lazy key, dim " << dim << (half ? " f16" : " f32");
      };
      check(RuleKind::nearest, Nearest{});
      check(RuleKind::race, Race{});
    }
  }
}

// Clusters, duplicates and far points: the triangle inequality spares work and changes nothing.
TEST_P(Loops, ApplyComparedPicks) {
  for (const std::int64_t dim : kDims) {
    const std::int64_t rows = 530, picks = 90, compared = 71;
    std::vector<float> x = rows_of(rows * dim, 21 + static_cast<std::uint64_t>(dim));
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t c = 0; c < dim; ++c) {
        float& value = x[static_cast<std::size_t>(i * dim + c)];
        value = i % 7 == 0 && i > 7 ? x[static_cast<std::size_t>((i - 7) * dim + c)]  // duplicates
                                    : 0.05F * value + static_cast<float>(10 * (i % 13));
      }
    const Array<float> x_ = put(x);
    const Vectors vectors{.rows = rows, .x = {x_.data(), Element::f32, dim}, .a = {}};
    const Vectors chosen = vectors.from(200, picks);
    Array<float> between = room<float>(compared * compared);
    backend().compare(chosen.x, 0, 33, between.data(), compared);
    backend().compare(chosen.x, 33, compared, between.data(), compared);
    const std::vector<float> distances = between.to_host();
    for (std::int64_t a = 0; a < compared; ++a)
      for (std::int64_t b = a + 1; b < compared; ++b)
        ASSERT_EQ(distances[static_cast<std::size_t>(a * compared + b)],
                  canonical_distance2(x.data() + (200 + a) * dim, x.data() + (200 + b) * dim, dim));

    std::vector<std::int64_t> at;  // states lie in another order than rows
    std::vector<double> before, want;
    std::vector<std::uint32_t> want_nearest;
    for (std::int64_t i = 0; i < rows; ++i) {
      at.push_back(rows - 1 - i);
      before.push_back(i % 5 == 0 ? 3.0 * draw(static_cast<std::uint64_t>(i)) : HUGE_VAL);  // of the state at i
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      Nearest::State s{before[static_cast<std::size_t>(rows - 1 - i)], kNobody};
      for (std::int64_t p = 0; p < picks; ++p)
        Nearest::apply(s, 1, canonical_distance2(x.data() + i * dim, x.data() + (200 + p) * dim, dim), 0,
                       static_cast<std::uint32_t>(p));
      want.push_back(s.distance2);
      want_nearest.push_back(s.nearest);
    }
    const Array<double> before_ = put(before);
    const Array<std::int64_t> at_ = put(at);
    Array<Nearest::State> state = room<Nearest::State>(rows);
    Array<double> key = room<double>(rows);
    Array<std::uint32_t> applied = room<std::uint32_t>(rows);
    const RowStates all{state.data(), key.data(), applied.data(), nullptr, at_.data()};
    backend().start(RuleKind::nearest, {.before = before_.data()}, rows, all);
    std::int64_t met = 0;
    for (const auto& [known, floor] : {std::pair{3, -HUGE_VAL}, {40, 0.5}, {80, 0.01}, {90, -HUGE_VAL}})
      met += backend().apply(RuleKind::nearest, vectors, {chosen.from(0, known), nullptr, between.data(), compared},
                             floor, all);
    const std::vector<double> keys = key.to_host();
    const std::vector<Nearest::State> states = state.to_host();
    for (std::int64_t i = 0; i < rows; ++i) {
      EXPECT_EQ(keys[static_cast<std::size_t>(rows - 1 - i)], want[static_cast<std::size_t>(i)]) << i << " of " << dim;
      EXPECT_EQ(states[static_cast<std::size_t>(rows - 1 - i)].nearest, want_nearest[static_cast<std::size_t>(i)]);
    }
    EXPECT_LE(met, rows * picks * 21 / 20);
    if (backend().name() == "cpu") {
      EXPECT_LT(met, rows * picks * 3 / 4) << "many pairs need not meet";
    }
  }
}

TEST_P(Loops, ApplyOuterProducts) {
  for (const auto& [dim, classes] : {std::pair{1, 2}, {33, 10}, {64, 3}, {7, 40}, {100, 33}}) {
    const std::int64_t rows = 270, picks = 19;
    const std::vector<float> x = rows_of(rows * dim, 3), a = rows_of(rows * classes, 4);
    const Array<float> x_ = put(x), a_ = put(a);
    Array<double> x2_ = room<double>(rows), a2_ = room<double>(rows);
    backend().squared_norms({x_.data(), Element::f32, dim}, rows, x2_.data());
    backend().squared_norms({a_.data(), Element::f32, classes}, rows, a2_.data());
    const std::vector<double> x2 = x2_.to_host(), a2 = a2_.to_host();
    const Vectors vectors{.rows = rows,
                          .x = {x_.data(), Element::f32, dim},
                          .a = {a_.data(), Element::f32, classes},
                          .x2 = x2_.data(),
                          .a2 = a2_.data()};
    const std::vector<double> before(static_cast<std::size_t>(rows), HUGE_VAL);
    const Array<double> before_ = put(before);
    Array<Nearest::State> state = room<Nearest::State>(rows);
    Array<double> key = room<double>(rows);
    const RowStates all{state.data(), key.data(), nullptr, nullptr};
    backend().start(RuleKind::nearest, {.before = before_.data()}, rows, all);
    backend().apply(RuleKind::nearest, vectors, {.vectors = vectors.from(50, picks)}, -HUGE_VAL, all);
    std::vector<double> want;
    for (std::int64_t i = 0; i < rows; ++i) {
      Nearest::State s{HUGE_VAL, kNobody};
      for (std::int64_t p = 50; p < 50 + picks; ++p)
        Nearest::apply(s, 1,
                       outer_distance2(a2[i], x2[i], a2[p], x2[p],
                                       canonical_distance2(a.data() + i * classes, a.data() + p * classes, classes),
                                       canonical_distance2(x.data() + i * dim, x.data() + p * dim, dim)),
                       0, static_cast<std::uint32_t>(p - 50));
      want.push_back(Nearest::key(s, 1));
    }
    EXPECT_TRUE(same_bits(key.to_host(), want)) << dim << " x " << classes;
    for (std::int64_t p = 50; p < 50 + picks; ++p) EXPECT_EQ(want[p], 0) << "distance to itself";
  }
}

TEST_P(Loops, ApplyVariance) {
  for (const std::int64_t dim : kDims) {
    const std::int64_t rows = 267, picks = 5;
    const std::vector<float> x = rows_of(rows * dim, 5 + static_cast<std::uint64_t>(dim));
    std::vector<double> v, before, moments;
    for (std::int64_t i = 0; i < picks * dim; ++i) v.push_back(draw(static_cast<std::uint64_t>(i)) - 0.4);
    for (std::int64_t i = 0; i < rows; ++i) before.push_back(1e4 * draw(static_cast<std::uint64_t>(i)));
    for (std::int64_t p = 0; p < picks; ++p)
      moments.push_back(1 + static_cast<double>(p) * 10 * static_cast<double>(dim));
    const Array<float> x_ = put(x);
    const Array<double> v_ = put(v), before_ = put(before), moments_ = put(moments);
    Array<Variance::State> state = room<Variance::State>(rows);
    Array<double> key = room<double>(rows);
    const RowStates all{state.data(), key.data(), nullptr, nullptr};
    backend().start(RuleKind::variance, {.before = before_.data()}, rows, all);
    const Picks pending{.vectors = {.rows = picks, .x = {v_.data(), Element::f64, dim}, .a = {}},
                        .moments = moments_.data()};
    backend().apply(RuleKind::variance, {.rows = rows, .x = {x_.data(), Element::f32, dim}, .a = {}}, pending,
                    -HUGE_VAL, all);
    std::vector<double> want;
    for (std::int64_t i = 0; i < rows; ++i) {
      Variance::State s{before[i]};
      for (std::int64_t p = 0; p < picks; ++p)
        Variance::apply(s, 1, canonical_dot(x.data() + i * dim, v.data() + p * dim, dim), moments[p], 0);
      want.push_back(s.variance);
    }
    EXPECT_TRUE(same_bits(key.to_host(), want)) << "dim " << dim;
  }
}

TEST_P(Loops, GainsAndRaise) {
  for (const std::int64_t dim : {1, 9, 33, 64, 257}) {
    const std::int64_t rows = 333, picks = 21;
    std::vector<float> x = rows_of(rows * dim, 6 + static_cast<std::uint64_t>(dim));
    Array<float> x_ = put(x);
    backend().unit_rows(x_.data(), rows, dim);
    const std::vector<float> given = x;
    x = x_.to_host();
    for (std::int64_t i = 0; i < rows; ++i) {
      double square = 0;
      for (std::int64_t d = 0; d < dim; ++d) square += static_cast<double>(given[i * dim + d]) * given[i * dim + d];
      for (std::int64_t d = 0; d < dim; ++d) {
        const double want = square > 0 ? given[i * dim + d] / std::sqrt(square) : 0;
        EXPECT_NEAR(x[i * dim + d], want, std::abs(want) * 1.2e-7);
      }
    }
    std::vector<double> weight;
    for (std::int64_t i = 0; i < rows; ++i) weight.push_back(draw(static_cast<std::uint64_t>(i)) * 3);
    const FixedPoint fixed = FixedPoint::for_sum(rows, 3, 30);
    const Field ground{x_.data(), Element::f32, dim};
    const auto similarity = [&](std::int64_t i, std::int64_t j) {
      return clipped_cosine(canonical_dot(x.data() + i * dim, x.data() + j * dim, dim));
    };
    std::vector<float> best(static_cast<std::size_t>(rows), 0.0f);
    Array<float> best_ = put(best);
    backend().raise(ground, rows, ground.from(10), picks, best_.data());
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 10; j < 10 + picks; ++j) best[i] = std::max(best[i], similarity(i, j));
    EXPECT_TRUE(same_bits(best_.to_host(), best)) << "raise, dim " << dim;
    const Array<double> weight_ = put(weight);
    for (const bool weighted : {false, true}) {
      std::vector<std::int64_t> gains(static_cast<std::size_t>(rows), 0), want = gains;
      backend().gains(ground, {rows, nullptr, best_.data(), nullptr}, weighted ? weight_.data() : nullptr, fixed,
                      ground, rows, gains.data());
      for (std::int64_t j = 0; j < rows; ++j)
        for (std::int64_t i = 0; i < rows; ++i) {
          const double w = weighted ? weight[i] : 1;
          const float s = similarity(i, j);
          if (s > best[i]) want[j] += fixed.of(w * s) - fixed.of(w * best[i]);
        }
      EXPECT_TRUE(same_bits(gains, want)) << "gains, dim " << dim << (weighted ? " weighted" : "");

      // The same with lists of the rows that add, of which some are too long.
      const std::int64_t room = rows / 4;
      const Array<Near> memory(backend(), rows * room);
      std::vector<Near*> lists;
      for (std::int64_t j = 0; j < rows; ++j) lists.push_back(memory.data() + j * room);
      // In two pieces, as of a pool that is streamed.
      std::vector<std::int64_t> near(static_cast<std::size_t>(rows), 0);
      std::fill(gains.begin(), gains.end(), 0);
      const std::int64_t half = rows / 3;
      for (const auto& [first, count] : {std::pair<std::int64_t, std::int64_t>{0, half}, {half, rows - half}})
        backend().first_gains(ground.from(first), {count, nullptr, best_.data() + first, nullptr, first},
                              weighted ? weight_.data() + first : nullptr, fixed, ground, {}, lists, room, gains.data(),
                              near.data());
      EXPECT_TRUE(same_bits(gains, want)) << "first gains, dim " << dim << (weighted ? " weighted" : "");
      std::vector<Near*> kept;
      std::vector<std::int64_t> lengths, of_kept;
      for (std::int64_t j = 0; j < rows; ++j) {
        std::vector<std::int32_t> adding;
        for (std::int64_t i = 0; i < rows; ++i)
          if (similarity(i, j) > best[i]) adding.push_back(static_cast<std::int32_t>(i));
        ASSERT_EQ(near[j], adding.size()) << "rows that add, dim " << dim;
        if (near[j] > room) continue;
        std::vector<Near> list(adding.size());
        if (!list.empty()) backend().copy_out(list.data(), lists[j], list.size() * sizeof(Near));
        std::sort(list.begin(), list.end(), [](const Near& a, const Near& b) { return a.row < b.row; });
        for (std::size_t k = 0; k < list.size(); ++k) {
          EXPECT_EQ(list[k].row, adding[k]);
          EXPECT_EQ(list[k].similarity, similarity(list[k].row, j));
        }
        kept.push_back(lists[j]);
        lengths.push_back(near[j]);
        of_kept.push_back(j);
      }
      // Coverage rises by one more row, from its list where it has one; twice, as lists may have become shorter.
      std::vector<float> raised = best;
      Array<float> raised_ = put(raised);
      for (int time = 0; time < 2 && !kept.empty(); ++time) {
        const std::size_t pick = kept.size() / 2;
        backend().raise_listed(kept[pick], lengths[pick], raised_.data());
        for (std::int64_t i = 0; i < rows; ++i) raised[i] = std::max(raised[i], similarity(i, of_kept[pick]));
        EXPECT_TRUE(same_bits(raised_.to_host(), raised)) << "raise_listed, dim " << dim;
        std::vector<std::int64_t> later(kept.size(), -1), want_later(kept.size(), 0);
        backend().listed_gains(kept, raised_.data(), weighted ? weight_.data() : nullptr, fixed, lengths.data(),
                               later.data());
        for (std::size_t k = 0; k < kept.size(); ++k)
          for (std::int64_t i = 0; i < rows; ++i) {
            const double w = weighted ? weight[i] : 1;
            const float s = similarity(i, of_kept[k]);
            if (s > raised[i]) want_later[k] += fixed.of(w * s) - fixed.of(w * raised[i]);
          }
        EXPECT_TRUE(same_bits(later, want_later)) << "listed gains, dim " << dim << (weighted ? " weighted" : "");
        kept.erase(kept.begin() + static_cast<std::ptrdiff_t>(pick));
        lengths.erase(lengths.begin() + static_cast<std::ptrdiff_t>(pick));
        of_kept.erase(of_kept.begin() + static_cast<std::ptrdiff_t>(pick));
      }

      // A band of every third row, between the coverage of nothing and that of the picks: what they took away.
      std::vector<std::int64_t> some;
      std::vector<float> above, below;
      std::fill(want.begin(), want.end(), 0);
      std::fill(gains.begin(), gains.end(), 0);
      for (std::int64_t i = 0; i < rows; i += 3) {
        some.push_back(i);
        above.push_back(0);
        below.push_back(best[i]);
        for (std::int64_t j = 0; j < rows; ++j)
          want[j] += fixed.of((weighted ? weight[i] : 1) * std::min(similarity(i, j), best[i]));
      }
      const Array<std::int64_t> some_ = put(some);
      const Array<float> above_ = put(above), below_ = put(below);
      backend().gains(ground, {some_.size(), some_.data(), above_.data(), below_.data()},
                      weighted ? weight_.data() : nullptr, fixed, ground, rows, gains.data());
      EXPECT_TRUE(same_bits(gains, want)) << "band, dim " << dim << (weighted ? " weighted" : "");
    }
  }
}

// Of every instruction set that this processor has, not only of the widest.
TEST(RowKernels, PanelsGiveTheCanonicalProduct) {
  for (const RowKernels* kernels : {&row_kernels_avx2(), row_kernels_avx512()}) {
    if (!kernels) continue;
    for (const std::int64_t dim : {1, 3, 15, 16, 17, 31, 32, 33, 48, 100, 128, 131}) {
      const std::int64_t count = 39, picks = 7, rows = in_panels(count);
      std::vector<float> x, y, panels(static_cast<std::size_t>(rows * dim), 0.0f),
          out(static_cast<std::size_t>(rows * picks));
      std::vector<const float*> pointers;
      for (std::int64_t i = 0; i < count * dim; ++i)
        x.push_back(static_cast<float>(draw(static_cast<std::uint64_t>(i)) - 0.5));
      for (std::int64_t i = 0; i < picks * dim; ++i)
        y.push_back(static_cast<float>(draw(static_cast<std::uint64_t>(i + 5)) - 0.4));
      for (std::int64_t i = 0; i < count; ++i) pointers.push_back(x.data() + i * dim);
      to_panels(pointers.data(), count, dim, panels.data());
      kernels->panel_dots(panels.data(), rows, y.data(), picks, dim, out.data());
      for (std::int64_t p = 0; p < picks; ++p)
        for (std::int64_t i = 0; i < count; ++i)
          ASSERT_EQ(out[p * rows + i], canonical_dot(x.data() + i * dim, y.data() + p * dim, dim))
              << kernels->name << ", dim " << dim << ", row " << i << ", pick " << p;
      kernels->shadow_dots(panels.data(), rows, y.data(), picks, dim, out.data());
      for (std::int64_t p = 0; p < picks; ++p)
        for (std::int64_t i = 0; i < count; ++i) {
          float want = 0;
          for (std::int64_t c = 0; c < dim; ++c) want = fmaf(x[i * dim + c], y[p * dim + c], want);
          ASSERT_EQ(out[p * rows + i], want) << kernels->name << ", dim " << dim << ", row " << i << ", pick " << p;
        }
    }
  }
}

TEST(RowKernels, FindWhatIsAbove) {
  const std::vector<float> dots{1, 0, 3, 5, 5, 2, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1},
      above{0, 1, 3, 4, 6, 1, 8, 2, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  std::vector<std::int32_t> found(dots.size() + 8);
  ASSERT_EQ(find_above(dots.data(), above.data(), 24, found.data()), 12);
  found.resize(12);
  EXPECT_EQ(found, (std::vector<std::int32_t>{0, 3, 5, 6, 16, 17, 18, 19, 20, 21, 22, 23}));
}

TEST_P(Loops, WeightedSumsAndProducts) {
  const std::int64_t rows = 300;
  for (const std::int64_t dim : {1, 31, 32, 33, 100}) {
    std::vector<float> x;
    std::vector<double> factor, vector;
    for (std::int64_t i = 0; i < rows * dim; ++i)
      x.push_back(static_cast<float>(draw(static_cast<std::uint64_t>(i)) - 0.5));
    for (std::int64_t i = 0; i < rows; ++i) factor.push_back(draw(static_cast<std::uint64_t>(i + 7)) * 3 - 1);
    for (std::int64_t c = 0; c < dim; ++c) vector.push_back(draw(static_cast<std::uint64_t>(c + 9)) - 0.3);
    const Array<float> x_ = put(x);
    const Array<double> factor_ = put(factor), vector_ = put(vector);
    const Field field{x_.data(), Element::f32, dim};
    const FixedPoint fixed = FixedPoint::for_sum(rows, 2, 40);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(dim), 0), want = sums;
    backend().weighted_sum(field, rows, factor_.data(), fixed, sums.data());
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t c = 0; c < dim; ++c) want[c] += fixed.of(factor[i] * static_cast<double>(x[i * dim + c]));
    EXPECT_TRUE(same_bits(sums, want)) << "weighted sum, dim " << dim;
    const Array<double> out(backend(), rows);
    backend().products(field, rows, vector_.data(), out.data());
    std::vector<double> products;
    for (std::int64_t i = 0; i < rows; ++i) products.push_back(canonical_dot(x.data() + i * dim, vector.data(), dim));
    EXPECT_TRUE(same_bits(out.to_host(), products)) << "products, dim " << dim;
  }
}

TEST_P(Loops, Top) {
  const std::int64_t rows = 2000;
  std::vector<double> key;
  std::vector<std::uint8_t> selectable;
  std::vector<std::int64_t> global;
  for (std::int64_t i = 0; i < rows; ++i) {
    key.push_back(i % 17 == 0 ? -HUGE_VAL : std::floor(draw(static_cast<std::uint64_t>(i)) * 40));  // many ties
    selectable.push_back(i % 5 != 0);
    global.push_back(100000 - 7 * i);
  }
  const Array<double> key_ = put(key);
  const Array<std::uint8_t> selectable_ = put(selectable);
  const Array<std::int64_t> global_ = put(global);
  std::vector<Candidate> all;
  for (std::int64_t i = 0; i < rows; ++i)
    if (selectable[i]) all.push_back({key[i], global[i]});
  std::sort(all.begin(), all.end(), beats);
  for (const std::int64_t count : {0, 1, 2, 63, 700, 1600, 5000}) {
    const std::vector<Candidate> got = backend().top(key_.data(), selectable_.data(), global_.data(), rows, count);
    ASSERT_EQ(got.size(), std::min(all.size(), static_cast<std::size_t>(count)));
    for (std::size_t i = 0; i < got.size(); ++i) EXPECT_EQ(got[i].row, all[i].row) << count << " at " << i;
    if (count == 0) continue;
    const double nth = backend().nth(key_.data(), selectable_.data(), rows, count);
    EXPECT_EQ(nth, count <= static_cast<std::int64_t>(all.size()) ? all[static_cast<std::size_t>(count - 1)].value
                                                                  : -HUGE_VAL);
    const auto below = std::find_if(all.begin(), all.end(), [&](const Candidate& one) { return one.value < nth; });
    EXPECT_EQ(backend().at_least(key_.data(), selectable_.data(), rows, nth), below - all.begin());
  }
  EXPECT_EQ(backend().at_least(key_.data(), selectable_.data(), rows, HUGE_VAL), 0);
}

TEST_P(Loops, Gram) {
  const std::int64_t rows = 300, dim = 19;
  const std::vector<float> x = rows_of(rows * dim, 9);
  const Array<float> x_ = put(x);
  const std::vector<std::int64_t> groups = {0, 1, 100, 100, 256, 300};
  const FixedPoint fixed = FixedPoint::for_sum(5, 300.0 * 128 * 128);
  std::vector<std::int64_t> sums(static_cast<std::size_t>(dim * dim), 0), want = sums;
  backend().gram({x_.data(), Element::f32, dim}, groups, fixed, sums.data());
  for (std::size_t g = 0; g + 1 < groups.size(); ++g)
    for (std::int64_t c = 0; c < dim; ++c)
      for (std::int64_t d = 0; d <= c; ++d) {
        double sum = 0;
        for (std::int64_t i = groups[g]; i < groups[g + 1]; ++i)
          sum = std::fma(static_cast<double>(x[i * dim + c]), static_cast<double>(x[i * dim + d]), sum);
        want[c * dim + d] += fixed.of(sum);
      }
  for (std::int64_t c = 0; c < dim; ++c)
    for (std::int64_t d = 0; d <= c; ++d) EXPECT_EQ(sums[c * dim + d], want[c * dim + d]) << c << "," << d;
}

INSTANTIATE_TEST_SUITE_P(Backends, Loops, testing::Combine(testing::Values("cpu", "checked"), testing::Values(1, 3)),
                         [](const auto& param_info) {
                           return std::string(std::get<0>(param_info.param)) +
                                  std::to_string(std::get<1>(param_info.param));
                         });

}  // namespace
}  // namespace seine::test
