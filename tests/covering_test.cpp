// Facility location's engine against plain greedy on the same integers, to the bit, over everything that may be
// awkward: weights, covered and excluded rows, duplicates, zero rows, samples of ground rows, tiny pools, no memory for
// lists. And its bound by moments against the gains.
#include <gtest/gtest.h>

#include <cstdio>
#include <numeric>
#include <random>

#include "engines/coverage_bound.hpp"
#include "engines/shadows.hpp"
#include "seine/cover.hpp"
#include "seine/pick.hpp"
#include "selecting.hpp"

namespace seine::test {
namespace {

enum class Data { directions, positive, clusters, grid, flat };  // flat: near a subspace
constexpr Data kAllData[] = {Data::directions, Data::positive, Data::clusters, Data::grid};

// Rows of a pool with everything that decides the objective, on every rank.
struct Problem {
  std::int64_t rows = 0, dim = 0;
  std::vector<float> x = {};  // unit or zero
  std::vector<Role> role = {};
  std::optional<std::vector<double>> weight = {}, before = {};
  std::vector<std::uint8_t> in_ground = {};
};

void make_unit(std::vector<float>& x, std::int64_t dim) {
  for (std::size_t first = 0; first < x.size(); first += static_cast<std::size_t>(dim)) {
    double norm2 = 0;
    for (std::int64_t c = 0; c < dim; ++c) norm2 += static_cast<double>(x[first + c]) * x[first + c];
    for (std::int64_t c = 0; norm2 > 0 && c < dim; ++c)
      x[first + c] = static_cast<float>(static_cast<double>(x[first + c]) / std::sqrt(norm2));
  }
}

Problem problem(std::int64_t rows, std::int64_t dim, Data data, std::mt19937_64& random) {
  std::normal_distribution<float> normal;
  const auto chance = [&](unsigned one_in) { return random() % one_in == 0; };
  Problem made{.rows = rows, .dim = dim};
  std::vector<float> centres(static_cast<std::size_t>(7 * dim)), along(3);
  for (float& value : centres) value = normal(random);
  for (std::int64_t i = 0; i < rows; ++i) {
    const bool zero = data == Data::grid && chance(9);
    const std::size_t cluster = random() % 7;
    for (float& value : along) value = normal(random);
    for (std::int64_t c = 0; c < dim; ++c) {
      float value = normal(random);
      if (data == Data::positive) value = std::max(0.0f, value);
      if (data == Data::clusters) value = centres[cluster * static_cast<std::size_t>(dim) + c] + 0.2f * value;
      if (data == Data::flat) {
        value *= 0.05f;
        for (std::size_t k = 0; k < along.size(); ++k)
          value += along[k] * centres[k * static_cast<std::size_t>(dim) + static_cast<std::size_t>(c)];
      }
      if (data == Data::grid) value = zero ? 0 : std::round(value);  // many duplicates
      made.x.push_back(value);
    }
  }
  make_unit(made.x, dim);
  made.role.assign(static_cast<std::size_t>(rows), Role::candidate);
  made.in_ground.assign(made.role.size(), 1);
  return made;
}

// Each awkward thing with a chance of one in two.
void make_awkward(Problem& made, std::mt19937_64& random) {
  if (random() % 2 == 0) {
    for (Role& role : made.role)
      if (random() % 5 == 0) role = Role::bystander;
    made.role[random() % made.role.size()] = Role::candidate;
  }
  if (random() % 2 == 0) {
    made.before.emplace(made.role.size(), 0.0);
    for (double& before : *made.before)
      if (random() % 3 != 0) before = static_cast<float>(random() % 1000) / 1500.0f;
  }
  if (random() % 2 == 0) {
    made.weight.emplace();
    for (std::size_t i = 0; i < made.role.size(); ++i)
      made.weight->push_back(random() % 6 == 0 ? 0 : std::pow(static_cast<double>(random() % 1000) / 300, 3));
  }
  if (random() % 2 == 0) {
    for (std::uint8_t& in : made.in_ground) in = random() % 3 == 0;
    made.in_ground[random() % made.in_ground.size()] = 1;
  }
}

// The share of this rank: every size()-th run of three rows.
Pool pool_of(const Problem& problem, const Comm& comm, Backend& backend) {
  Columns columns;
  std::vector<std::byte> x;
  if (problem.weight) columns.weight.emplace();
  if (problem.before) columns.before.emplace();
  for (std::int64_t i = 0; i < problem.rows; ++i) {
    if (i / 3 % comm.size() != comm.rank()) continue;
    columns.rows.push_back(10 * i + 5);
    columns.role.push_back(problem.role[i]);
    if (problem.weight) columns.weight->push_back((*problem.weight)[i]);
    if (problem.before) columns.before->push_back((*problem.before)[i]);
    const auto row = std::as_bytes(
        std::span(problem.x).subspan(static_cast<std::size_t>(i * problem.dim), static_cast<std::size_t>(problem.dim)));
    x.insert(x.end(), row.begin(), row.end());
  }
  RowStore store(backend, {Element::f32, problem.dim, 0}, static_cast<std::int64_t>(columns.rows.size()),
                 Array<std::byte>(backend, std::span<const std::byte>(x)), {});
  return Pool(comm, backend, std::move(columns), std::move(store));
}

std::optional<Pool> ground_of(const Problem& problem, const Pool& pool) {
  std::vector<std::uint8_t> keep;
  for (const std::int64_t row : pool.columns.rows) keep.push_back(problem.in_ground[row / 10]);
  const std::vector<std::uint8_t>& in = problem.in_ground;
  if (std::find(in.begin(), in.end(), 0) == in.end()) return std::nullopt;
  return pool.where(keep);
}

// Gains in units of `fixed` from first principles.
class Naive {
 public:
  Naive(const Problem& problem, FixedPoint fixed) : problem_(problem), fixed_(fixed) {
    best.assign(static_cast<std::size_t>(problem.rows), 0);
    if (problem.before) best.assign(problem.before->begin(), problem.before->end());
    const float* x = problem.x.data();
    for (std::int64_t j = 0; j < problem.rows; ++j)
      for (std::int64_t i = 0; i < problem.rows; ++i)
        similarity_.push_back(clipped_cosine(canonical_dot(x + i * problem.dim, x + j * problem.dim, problem.dim)));
  }
  float similarity(std::int64_t i, std::int64_t j) const { return similarity_[j * problem_.rows + i]; }
  std::int64_t gain(std::int64_t j) const {
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < problem_.rows; ++i) {
      const float s = problem_.in_ground[i] ? similarity(i, j) : 0;
      const double weight = problem_.weight ? (*problem_.weight)[i] : 1;
      if (s > best[i]) sum += fixed_.of(weight * s) - fixed_.of(weight * static_cast<double>(best[i]));
    }
    return sum;
  }
  void take(std::int64_t j) {
    for (std::int64_t i = 0; i < problem_.rows; ++i) best[i] = std::max(best[i], similarity(i, j));
  }

  std::vector<float> best;

 private:
  const Problem& problem_;
  FixedPoint fixed_;
  std::vector<float> similarity_;
};

Selection plain_greedy(const Problem& problem, FixedPoint fixed, std::int64_t batch) {
  Naive naive(problem, fixed);
  std::vector<Role> role = problem.role;
  Selection picked;
  while (static_cast<std::int64_t>(picked.rows.size()) < batch) {
    Candidate best = kNoCandidate;
    for (std::int64_t j = 0; j < problem.rows; ++j) {
      if (role[j] != Role::candidate) continue;
      const Candidate here{static_cast<double>(naive.gain(j)), j};
      if (beats(here, best)) best = here;
    }
    role[best.row] = Role::bystander;
    naive.take(best.row);
    picked.add(10 * best.row + 5, std::nanf(""), fixed.value(static_cast<std::int64_t>(best.value)));
  }
  return picked;
}

void expect_plain_greedy(const Problem& problem, std::int64_t batch, const std::string& device, int threads) {
  const std::unique_ptr<Backend> backend = backend_of(device, threads);
  Pool pool = pool_of(problem, world(), *backend);
  const std::optional<Pool> sample = ground_of(problem, pool);
  const Pool& ground = sample ? *sample : pool;
  batch = std::min(batch, pool.candidates());
  const Selection want = plain_greedy(problem, coverage_fixed_point(ground), batch);
  const Request request = request_for("facility_location", batch);
  Task task{request, strategy("facility_location")};
  task.batch = batch;
  for (const std::int64_t memory : {std::int64_t{0}, 20 * problem.rows, std::int64_t{1} << 30}) {
    task.memory = memory;
    const Picked picked = pick_covering(pool, ground, task);
    EXPECT_EQ(picked.selection.rows, want.rows) << "memory " << memory;
    EXPECT_EQ(picked.selection.gains, want.gains) << "memory " << memory;
  }
}

TEST(Covering, IsPlainGreedy) {
  for (std::uint64_t seed = 1; seed <= 200; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    const std::int64_t dim = std::vector<std::int64_t>{1, 2, 5, 8, 33}[random() % 5];
    const std::int64_t rows = std::vector<std::int64_t>{3, 20, 90, 150, 270}[random() % 5];
    Problem made = problem(rows, dim, kAllData[seed % 4], random);
    make_awkward(made, random);
    expect_plain_greedy(made, 1 + static_cast<std::int64_t>(random() % 40), seed % 5 == 0 ? "checked" : "cpu",
                        1 + static_cast<int>(seed % 3));
    if (testing::Test::HasFailure()) break;
  }
}

TEST(Covering, TinyPools) {
  for (std::int64_t rows = 1; rows <= 5; ++rows)
    for (const Data data : kAllData) {
      std::mt19937_64 random(static_cast<std::uint64_t>(rows));
      expect_plain_greedy(problem(rows, 2, data, random), rows, "cpu", 1);
    }
}

TEST(Covering, EqualRowsGoInOrder) {
  std::mt19937_64 random(3);
  Problem made = problem(200, 4, Data::grid, random);
  for (std::size_t i = 0; i < made.x.size(); ++i) made.x[i] = made.x[i % 40];  // ten rows, over and over
  expect_plain_greedy(made, 60, "cpu", 2);
}

// Enough rows near a subspace that shadows screen them.
TEST(Covering, ScreensByShadows) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937_64 random(seed);
    Problem made = problem(700, 33, Data::flat, random);
    make_awkward(made, random);
    made.in_ground.assign(made.in_ground.size(), 1);
    if (seed % 2 == 0)
      for (std::size_t i = 0; i < made.in_ground.size(); i += 5) made.in_ground[i] = 0;
    expect_plain_greedy(made, 50, seed % 4 == 0 ? "checked" : "cpu", 1 + static_cast<int>(seed % 3));
  }
}

// A pool that is large enough for everything at once: the front does not hold all candidates, and lists become short.
TEST(Covering, AllWaysToAGainMeet) {
  std::mt19937_64 random(4);
  for (const Data data : {Data::directions, Data::positive})
    expect_plain_greedy(problem(1500, 6, data, random), 12, "cpu", 2);
}

TEST(CoverageBound, IsAboveEveryGain) {
  const std::uint64_t seed = world().broadcast(std::random_device{}());
  if (world().is_root()) std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 60; ++round) {
    const auto dim = 1 + static_cast<std::int64_t>(random() % 40);
    const auto rows = 1 + static_cast<std::int64_t>(random() % 200);
    Problem made = problem(rows, dim, kAllData[round % 4], random);
    make_awkward(made, random);
    const std::unique_ptr<Backend> backend = backend_of(round % 2 ? "checked" : "cpu", 2);
    const Pool pool = pool_of(made, world(), *backend);
    const std::optional<Pool> sample = ground_of(made, pool);
    const Pool& ground = sample ? *sample : pool;
    const FixedPoint fixed = coverage_fixed_point(ground);
    CoverageBound bound(pool, ground, fixed, CoverageBound::moments(ground));
    Naive naive(made, fixed);
    for (int picks = 0; picks < 4; ++picks) {
      std::vector<float> covered;
      for (const std::int64_t row : ground.columns.rows) covered.push_back(naive.best[row / 10]);
      const std::vector<double> bounds = bound.at(covered);
      for (std::size_t i = 0; i < bounds.size(); ++i)
        ASSERT_GE(bounds[i], static_cast<double>(naive.gain(pool.columns.rows[i] / 10)))
            << "seed " << seed << ", round " << round << ", row " << i << ", picks " << picks;
      naive.take(static_cast<std::int64_t>(random() % static_cast<unsigned>(rows)));
    }
  }
}

TEST(Shadows, AreNeverBelowTheCosine) {
  std::mt19937_64 random(6);
  for (const std::int64_t dim : {32, 70, 130}) {
    Problem made = problem(150, dim, Data::flat, random);
    std::fill_n(made.x.begin(), dim, 0.0f);
    std::copy_n(made.x.begin() + dim, dim, made.x.begin() + 2 * dim);
    const std::unique_ptr<Backend> backend = backend_of("cpu", 2);
    const Comm self = world().split(world().rank());
    const Pool pool = pool_of(made, self, *backend);
    const std::optional<Shadows> shadows = Shadows::of(pool, pool, CoverageBound::moments(pool));
    ASSERT_TRUE(shadows.has_value());
    ASSERT_LE(shadows->dim(), Shadows::most(dim));
    const std::vector<float> short_rows = shadows->fetch(pool, pool.columns.rows).to_host();
    for (std::int64_t i = 0; i < made.rows; ++i)
      for (std::int64_t j = 0; j < made.rows; ++j) {
        float product = 0;
        for (std::int64_t c = 0; c < shadows->dim(); ++c)
          product += short_rows[static_cast<std::size_t>(i * shadows->dim() + c)] *
                     short_rows[static_cast<std::size_t>(j * shadows->dim() + c)];
        const float cosine = canonical_dot(made.x.data() + i * dim, made.x.data() + j * dim, dim);
        ASSERT_GE(product, cosine) << "rows " << i << " and " << j << ", dim " << dim;
        ASSERT_LE(product, cosine + 0.2f);
      }
  }
}

TEST(Shadows, AreNotMadeWhereTheySayLittle) {
  std::mt19937_64 random(7);
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  const auto made_of = [&](std::int64_t dim, Data data) {
    const Problem made = problem(150, dim, data, random);
    const Pool pool = pool_of(made, world(), *backend);
    return Shadows::of(pool, pool, CoverageBound::moments(pool)).has_value();
  };
  EXPECT_FALSE(made_of(64, Data::directions));
  EXPECT_FALSE(made_of(31, Data::flat));
  EXPECT_TRUE(made_of(64, Data::flat));
}

// With shadows and without, at several levels of coverage.
TEST(Shadows, ChangeNoGainAndBoundIt) {
  std::mt19937_64 random(8);
  Problem made = problem(1000, 40, Data::flat, random);
  for (const bool weighted : {false, true}) {
    if (weighted) made.weight.emplace(static_cast<std::size_t>(made.rows), 1e-3);
    for (std::size_t i = 0; weighted && i < made.weight->size(); i += 2) (*made.weight)[i] = 7.5;
    const std::unique_ptr<Backend> backend = backend_of(weighted ? "checked" : "cpu", 2);
    const Comm self = world().split(world().rank());
    const Pool pool = pool_of(made, self, *backend);
    const FixedPoint fixed = coverage_fixed_point(pool);
    const std::optional<Shadows> shadows = Shadows::of(pool, pool, CoverageBound::moments(pool));
    ASSERT_TRUE(shadows.has_value());
    const std::vector<std::int64_t> candidates(pool.columns.rows.begin() + 100, pool.columns.rows.begin() + 170);
    const std::int64_t count = 70, room = 200;
    const Packed packed = pool.fetch(candidates);
    const Array<float> own = shadows->fetch(pool, candidates);
    const ShadowFields fields{shadows->ground(), {own.data(), Element::f32, shadows->dim()}};
    const Array<double> weight = pool.device(pool.columns.weight);
    for (const float level : {0.0f, 0.5f, 0.9f, 0.97f, 1.0f}) {
      const Array<float> best(*backend, std::vector<float>(static_cast<std::size_t>(made.rows), level));
      const Band band{made.rows, nullptr, best.data(), nullptr, 0};
      struct Answer {
        std::vector<std::int64_t> gains, near;
        std::vector<std::vector<std::pair<std::int32_t, float>>> lists;
        bool operator==(const Answer&) const = default;
      };
      std::int64_t met = 0;
      const auto first_gains = [&](const ShadowFields& with) {
        Answer answer{std::vector<std::int64_t>(70), std::vector<std::int64_t>(70), {}};
        const Array<Near> memory(*backend, count * room);
        std::vector<Near*> lists;
        for (std::int64_t j = 0; j < count; ++j) lists.push_back(memory.data() + j * room);
        met = backend->first_gains(pool.store().vectors().x, band, weight.data(), fixed, packed.vectors().x, with,
                                   lists, room, answer.gains.data(), answer.near.data());
        const std::vector<Near> all = memory.to_host();
        for (std::size_t j = 0; j < answer.near.size(); ++j) {
          auto& list = answer.lists.emplace_back();
          if (answer.near[j] > room) continue;  // of no use
          for (std::int64_t k = 0; k < answer.near[j]; ++k) {
            const Near& near = all[j * room + static_cast<std::size_t>(k)];
            list.emplace_back(near.row, near.similarity);
          }
          std::sort(list.begin(), list.end());
        }
        return answer;
      };
      const Answer plain = first_gains({});
      EXPECT_EQ(met, made.rows * count) << "level " << level;
      EXPECT_EQ(plain, first_gains(fields)) << "level " << level;
      std::vector<std::int64_t> bounds(70), near(70);
      backend->gain_bounds(fields, band, weight.data(), fixed, count, bounds.data(), near.data());
      for (std::size_t j = 0; j < bounds.size(); ++j) {
        EXPECT_GE(bounds[j], plain.gains[j]) << "level " << level;
        EXPECT_GE(near[j], plain.near[j]) << "level " << level;
      }
      EXPECT_EQ(met, std::accumulate(near.begin(), near.end(), std::int64_t{0})) << "level " << level;
    }
  }
}

// Where all similarities are equal, Cauchy and Schwarz lose nothing.
TEST(CoverageBound, IsTightWhereRowsAreEqual) {
  std::mt19937_64 random(5);
  Problem made = problem(300, 3, Data::directions, random);
  for (std::size_t i = 0; i < made.x.size(); ++i) made.x[i] = made.x[i % 3];
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  const Pool pool = pool_of(made, world(), *backend);
  const FixedPoint fixed = coverage_fixed_point(pool);
  const std::vector<float> nothing(static_cast<std::size_t>(pool.own()), 0.0f);
  CoverageBound bound(pool, pool, fixed, CoverageBound::moments(pool));
  for (const double units : bound.at(nothing)) EXPECT_NEAR(units * fixed.unit(), 300, 0.01);
}

}  // namespace
}  // namespace seine::test
