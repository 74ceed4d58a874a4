// What matrix products prove of distances and similarities holds for every tensor core that is assumed possible, on
// vectors that are made to hurt; and it is worth something on a pool of clusters.
#include "backend/cuda/filter_bound.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <string>
#include <vector>

#include "tensor_core.hpp"
#include "vectors_that_hurt.hpp"

namespace seine::test {
namespace {

double norm2(const Values& x) {
  const std::vector<double> wide(x.begin(), x.end());
  return canonical_dot(wide.data(), wide.data(), static_cast<std::int64_t>(x.size()));
}

// Calls `visit` with every pair of vectors of both types, and what each tensor core makes of it.
template <class Visit>
void for_each_product(const Visit& visit) {
  for (const std::int64_t dim : {1, 5, 64, 100, 1000})
    for (const Element type : {Element::f16, Element::f32}) {
      const bool half = type == Element::f16;
      for (const auto& [name, x, y] : pairs_that_hurt(dim, half ? 1e-7f : 1e-40f, half ? 65504.0f : 1e18f))
        for (const TensorCore& core : tensor_cores()) {
          SCOPED_TRACE(std::string(name) + ", dim " + std::to_string(dim) + (half ? ", float16" : ", TF32") +
                       ", blocks of " + std::to_string(core.block) + ", parts " + std::to_string(core.parts));
          const Values rows = half ? as_float16(x) : x, picks = half ? as_float16(y) : y;
          visit(type, rows, picks, core.product(rows, picks, type));
        }
    }
}

// And some are off by much of what is allowed: the vectors do hurt.
TEST(FilterBound, NoProductIsOffByMore) {
  std::map<Element, double> most;  // shares of it
  for_each_product([&](Element type, const Values& x, const Values& y, float product) {
    const ExactProduct exact = exact_product(x, y);
    const auto dim = static_cast<std::int64_t>(x.size());
    const double allowed = product_error(type, dim) * exact.magnitudes;
    const double off = std::abs(static_cast<double>(product) - exact.value);
    ASSERT_LE(off, allowed + product_tiny(dim));
    if (exact.magnitudes > 1e-20) most[type] = std::max(most[type], off / allowed);
  });
  EXPECT_GT(most[Element::f16], 0.45);
  EXPECT_GT(most[Element::f32], 0.95);
}

TEST(FilterBound, NoCanonicalDistanceIsBelow) {
  int positive = 0, all = 0;
  for_each_product([&](Element type, const Values& x, const Values& y, float product) {
    const auto dim = static_cast<std::int64_t>(x.size());
    const float canonical = canonical_distance2(x.data(), y.data(), dim);
    const double bound = DistanceBound(type, dim)(norm2(x), norm2(y), product);
    ASSERT_LE(bound, static_cast<double>(canonical));
    const ExactProduct exact = exact_product(x, y);
    const double least = exact.value - product_error(type, dim) * exact.magnitudes;  // it errs by all that is allowed
    const float errs = std::nextafter(static_cast<float>(least), HUGE_VALF);
    ASSERT_LE(DistanceBound(type, dim)(norm2(x), norm2(y), errs), static_cast<double>(canonical));
    positive += bound > 0;
    ++all;
  });
  EXPECT_GT(positive, all / 4) << "of " << all;
}

// Cosines far below and near 1, of rows as unit_rows makes them.
TEST(FilterBound, NoCanonicalSimilarityIsAbove) {
  for_each_product([&](Element type, Values x, Values y, float) {
    if (type == Element::f16) return;
    for (Values* values : {&x, &y}) {
      const double norm = std::sqrt(norm2(*values));
      for (float& value : *values)
        if (norm > 0) value = static_cast<float>(static_cast<double>(value) / norm);
    }
    const auto dim = static_cast<std::int64_t>(x.size());
    const float slack = similarity_slack(dim);
    for (const TensorCore& core : tensor_cores())
      ASSERT_GE(core.product(x, y, type) + slack, canonical_dot(x.data(), y.data(), dim));
    ASSERT_LT(slack, 0.003f);
  });
}

TEST(FilterBound, ByHand) {
  // 3 components of float16: e = 35 additions of 2^-22; |x|^2 = 25, |y|^2 = 169, product 0.
  const double lost = 35 * 0x1p-22, e = lost / (1 - lost);
  EXPECT_DOUBLE_EQ(product_error(Element::f16, 3), e);
  EXPECT_NEAR(product_error(Element::f32, 3), e + 0x1p-9, 1e-6);
  const double want = (1 - canonical_error(3)) * (1 - e) * 194;
  EXPECT_NEAR(DistanceBound(Element::f16, 3)(25, 169, 0), want, 1e-9);
  EXPECT_LT(want, 194);
}

// Where nothing is known, no bound is above any distance.
TEST(FilterBound, OverflowProvesNothing) {
  const DistanceBound bound(Element::f32, 100);
  const float infinite = HUGE_VALF, nan = NAN;
  for (const double norm2 : {1.0, 1e38, 1e300, static_cast<double>(infinite), static_cast<double>(nan)})
    for (const float product : {nan, infinite, 1e38f}) {
      EXPECT_FALSE(bound(norm2, 1e37, product) > 0) << norm2 << ", " << product;
      EXPECT_FALSE(bound(1e37, norm2, product) > 0) << norm2 << ", " << product;
    }
  EXPECT_FALSE(bound(1e300, 1, -infinite) > 0);
  EXPECT_FALSE(DistanceBound(Element::f16, std::int64_t{1} << 40)(1, 1, -1) > 0) << "rows that are too long";
  EXPECT_EQ(product_error(Element::f16, std::int64_t{1} << 40), HUGE_VAL);
}

// Rows in clusters, whose nearest pick so far is in their own: most other picks are passed over.
TEST(FilterBound, SparesMostPairsOfAPoolInClusters) {
  constexpr std::int64_t kDim = 128;
  constexpr int kClusters = 40, kRows = 4;
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  std::vector<Values> centre(kClusters, Values(kDim)), rows;
  for (Values& values : centre)
    for (float& value : values) value = 3 + normal(random);
  for (int i = 0; i < kClusters * (kRows + 1); ++i) {
    rows.push_back(centre[static_cast<std::size_t>(i % kClusters)]);
    for (float& value : rows.back()) value += 0.5f * normal(random);
  }
  const TensorCore core{4, 0, 1};
  for (const Element type : {Element::f16, Element::f32}) {
    const DistanceBound bound(type, kDim);
    int pairs = 0, spared = 0;
    for (std::size_t i = kClusters; i < rows.size(); ++i)
      for (std::size_t p = 0; p < kClusters; ++p) {
        const Values x = as_float16(rows[i]), own = as_float16(rows[i % kClusters]), y = as_float16(rows[p]);
        const float nearest = canonical_distance2(x.data(), own.data(), kDim);
        ++pairs;
        spared += bound(norm2(x), norm2(y), core.product(x, y, type)) >= static_cast<double>(nearest);
      }
    EXPECT_GT(spared, pairs * 95 / 100) << "of " << pairs;
  }
}

}  // namespace
}  // namespace seine::test
