#include "scores/score_kernel.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cmath>
#include <limits>
#include <random>

namespace seine::test {
namespace {

constexpr ScoreKind kKinds[] = {ScoreKind::entropy, ScoreKind::least_confidence, ScoreKind::margin, ScoreKind::bald};

std::vector<const ScoreKernels*> every_kernel() {
  std::vector<const ScoreKernels*> kernels{&score_kernels_avx2()};
  if (score_kernels_avx512()) kernels.push_back(score_kernels_avx512());
  return kernels;
}

std::uint64_t new_seed() {
  return static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
}

// Distributions of every shape that a pool may hold: flat, peaked, one-hot, with zeros and subnormals, and sums off by
// as much as the tolerance of float16.
class Distributions {
 public:
  explicit Distributions(std::uint64_t seed) : random_(seed) {}

  void fill(float* p, std::int64_t classes) {
    const double sharpness = std::exp(6 * uniform() - 3);
    double sum = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
      const double draw = std::pow(uniform(), 1 / sharpness * 3);
      p[c] = static_cast<float>(draw + 1e-20);
      sum += p[c];
    }
    const double off = uniform() < 0.3 ? 1 + (uniform() < 0.5 ? -1 : 1) * 0.99e-2 : 1;
    for (std::int64_t c = 0; c < classes; ++c) p[c] = static_cast<float>(p[c] / sum * off);
    const double form = uniform();
    if (form < 0.1) {
      std::fill_n(p, classes, static_cast<float>(off / static_cast<double>(classes)));
    } else if (form < 0.2) {
      std::fill_n(p, classes, form < 0.13 ? 0.0f : form < 0.17 ? 1e-41f : 1e-30f);
      p[pick(classes)] = static_cast<float>(off);
    } else if (form < 0.3) {
      std::fill_n(p, classes, 0.0f);
      p[pick(classes)] += static_cast<float>(0.5 * off);
      p[pick(classes)] += static_cast<float>(0.5 * off);
    }
  }
  std::int64_t pick(std::int64_t count) { return static_cast<std::int64_t>(uniform() * static_cast<double>(count)); }
  double uniform() { return std::uniform_real_distribution<double>(0, 1)(random_); }

 private:
  std::mt19937_64 random_;
};

TEST(ScoreKernels, LogarithmOfEveryMantissa) {
  constexpr std::uint32_t first = 0x3f000000, last = 0x40000001;  // 0.5 up to 2
  std::vector<float> x, log(1 << 16);
  for (const ScoreKernels* kernels : every_kernel()) {
    double worst = 0;
    for (std::uint32_t bits = first; bits < last;) {
      x.clear();
      for (; bits < last && x.size() < log.size(); ++bits) x.push_back(std::bit_cast<float>(bits));
      kernels->log2s(x.data(), static_cast<std::int64_t>(x.size()), log.data());
      for (std::size_t i = 0; i < x.size(); ++i)
        worst = std::max(worst, std::fabs(log[i] - std::log2(static_cast<double>(x[i]))));
    }
    EXPECT_LT(worst, kLogError) << kernels->name;
    for (int power = -126; power <= 0; ++power) {  // one rounding more
      const float small[] = {std::ldexp(1.0f, power), std::ldexp(1.4142f, power), std::ldexp(1.4143f, power)};
      kernels->log2s(small, 3, log.data());
      for (int i = 0; i < 3; ++i)
        EXPECT_NEAR(log[i], std::log2(static_cast<double>(small[i])), kLogError + 127 * 0x1p-24) << small[i];
    }
  }
}

TEST(ScoreKernels, BoundsLieAboveTheScoresAndNear) {
  const std::uint64_t seed = new_seed();
  Distributions draw(seed);
  for (int trial = 0; trial < 1500; ++trial) {
    const std::int64_t classes = trial % 3 == 0 ? 2 + draw.pick(15) : 2 + draw.pick(trial % 3 == 1 ? 100 : 999);
    const std::int64_t passes = trial % 2 == 0 ? 1 : 1 + draw.pick(trial % 5 == 0 ? 60 : 8);
    const std::int64_t rows = 1 + draw.pick(40), width = passes * classes;
    const bool stored_wide = trial % 7 == 0;  // as float64
    std::vector<float> p(static_cast<std::size_t>(rows * width)), bounds(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows * passes; ++i) draw.fill(p.data() + i * classes, classes);
    if (trial % 11 == 0)  // passes that agree
      for (std::int64_t i = 0; i < rows * passes; ++i)
        std::copy_n(p.begin() + i / passes * width, classes, p.begin() + i * classes);
    std::vector<double> wide(p.begin(), p.end());
    if (stored_wide)
      for (std::size_t i = 0; i < p.size(); ++i) wide[i] *= 1 + (draw.uniform() - 0.5) * 0x1p-24;
    for (std::size_t i = 0; i < p.size(); ++i) p[i] = static_cast<float>(wide[i]);
    for (const ScoreKind kind : kKinds)
      for (const ScoreKernels* kernels : every_kernel()) {
        kernels->bounds(kind, p.data(), rows, passes, classes, bounds.data());
        with_score(kind, [&](auto score) {
          for (std::int64_t i = 0; i < rows; ++i) {
            const double exact = score(wide.data() + i * width, passes, classes);
            const float bound = bounds[static_cast<std::size_t>(i)];
            EXPECT_GE(bound, exact) << kernels->name << ", kind " << static_cast<int>(kind) << ", " << passes << " x "
                                    << classes << ", row " << i << ", seed " << seed;
            // A pass that sums to more than 1 may have an entropy below 0, which counts as 0.
            const double clamped = kind == ScoreKind::bald ? 0.011 : 0;
            EXPECT_LE(bound, exact + clamped + 2e-5 + 1e-7 * static_cast<double>(width + 8 * passes))
                << kernels->name << ", kind " << static_cast<int>(kind) << ", " << passes << " x " << classes
                << ", row " << i << ", seed " << seed;
          }
        });
      }
  }
}

TEST(ScoreKernels, Sums) {
  const std::uint64_t seed = new_seed();
  Distributions draw(seed);
  for (int trial = 0; trial < 300; ++trial) {
    const std::int64_t rows = 1 + draw.pick(70), classes = 2 + draw.pick(trial % 2 == 0 ? 20 : 1000);
    std::vector<float> p(static_cast<std::size_t>(rows * classes)), sums(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows; ++i) draw.fill(p.data() + i * classes, classes);
    for (const ScoreKernels* kernels : every_kernel()) {
      kernels->sums(p.data(), rows, classes, sums.data());
      for (std::int64_t i = 0; i < rows; ++i) {
        double exact = 0;
        for (std::int64_t c = 0; c < classes; ++c) exact += p[static_cast<std::size_t>(i * classes + c)];
        EXPECT_NEAR(sums[static_cast<std::size_t>(i)], exact, (static_cast<double>(classes) / 8 + 6) * 0x1p-24 * exact)
            << kernels->name << ", " << classes << " classes, seed " << seed;
      }
    }
  }
}

TEST(ScoreKernels, ProductsWithTheLogarithmHaveTheBitsOfTheDefinition) {
  const std::uint64_t seed = new_seed();
  Distributions draw(seed);
  std::vector<double> p{
      0, 1, 0.5, 2.2250738585072014e-308, 4.9e-324, 1e-310, 0x1.6a09e667f3bcdp-1, 0x1.6a09e667f3bccp-1, 1.0 / 3, 1.01,
      0, 0, 0};
  for (int i = 0; i < 100003; ++i) p.push_back(i % 3 == 0 ? draw.uniform() : std::exp(-700 * draw.uniform()));
  std::vector<double> out(p.size());
  for (const ScoreKernels* kernels : every_kernel()) {
    kernels->x_log_xs(p.data(), static_cast<std::int64_t>(p.size()), out.data());
    for (std::size_t i = 0; i < p.size(); ++i)
      ASSERT_EQ(bits_of_double(out[i]), bits_of_double(x_log_x(p[i])))
          << kernels->name << " " << p[i] << " seed " << seed;
  }
}

TEST(ScoreKernels, ExactScoresHaveTheBitsOfTheDefinition) {
  const std::uint64_t seed = new_seed();
  Distributions draw(seed);
  ExactScores exact;
  for (int trial = 0; trial < 200; ++trial) {
    const std::int64_t classes = 2 + draw.pick(trial % 2 == 0 ? 12 : 300),
                       passes = 1 + draw.pick(trial % 3 == 0 ? 1 : 9);
    const std::int64_t rows = draw.pick(300), width = passes * classes;
    std::vector<float> p(static_cast<std::size_t>(rows * width)), out(static_cast<std::size_t>(rows));
    for (std::int64_t i = 0; i < rows * passes; ++i) draw.fill(p.data() + i * classes, classes);
    const std::vector<double> wide(p.begin(), p.end());
    for (const ScoreKind kind : kKinds) {
      exact(kind, wide.data(), rows, passes, classes, out.data());
      with_score(kind, [&](auto score) {
        for (std::int64_t i = 0; i < rows; ++i)
          ASSERT_EQ(std::bit_cast<std::uint32_t>(out[static_cast<std::size_t>(i)]),
                    std::bit_cast<std::uint32_t>(static_cast<float>(score(wide.data() + i * width, passes, classes))))
              << "kind " << static_cast<int>(kind) << ", " << passes << " x " << classes << ", row " << i << ", seed "
              << seed;
      });
    }
  }
}

}  // namespace
}  // namespace seine::test
