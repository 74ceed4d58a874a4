// The batch of a pure score strategy, and its certificate, to the bit: against scores of every row by the definition.
#include <algorithm>
#include <chrono>
#include <random>

#include "errors.hpp"
#include "seine/random.hpp"
#include "selecting.hpp"

namespace seine::test {
namespace {

struct Case {
  std::int64_t rows, passes, classes;
  Dtype type;
  enum Form { varied, ties, nearly_flat, ascending } form;
};

// Distributions with what a file may hold: sums off by nearly the tolerance, values a little below 0, zeros, one-hot.
TestPool pool_of(const Case& c, std::mt19937_64& random) {
  const auto uniform = [&] { return std::uniform_real_distribution<double>(0, 1)(random); };
  TestPool pool;
  pool.rows = c.rows, pool.classes = c.classes, pool.passes = c.passes;
  const std::int64_t passes = std::max<std::int64_t>(c.passes, 1);
  const double tolerance = c.type == Dtype::f16 ? 0.9e-2 : 0.99e-3;
  for (std::int64_t i = 0; i < c.rows; ++i) {
    const double along = static_cast<double>(i) / static_cast<double>(c.rows);
    const double power = c.form == Case::ascending ? 8 * (1 - along) : std::exp(5 * uniform() - 2);
    for (std::int64_t t = 0; t < passes; ++t) {
      std::vector<double> p(static_cast<std::size_t>(c.classes));
      double sum = 0;
      for (double& x : p) {
        x = c.form == Case::ties          ? static_cast<double>(random() % 3)
            : c.form == Case::nearly_flat ? 1 + 1e-3 * uniform()
                                          : std::pow(uniform(), power) + 1e-9;
        sum += x;
      }
      if (sum == 0) sum = p[0] = 1;
      const double kind = c.form == Case::varied ? uniform() : 1;
      const double off = kind < 0.2 ? 1 + tolerance * (2 * uniform() - 1) : 1;
      for (double& x : p) x *= off / sum;
      if (kind < 0.05) {
        std::fill(p.begin(), p.end(), 0.0);
        p[random() % p.size()] = off;
      }
      if (kind > 0.9 && kind < 0.99) p[random() % p.size()] = -9e-7 * uniform(), p[0] += 1e-7;
      if (kind > 0.9 && kind < 0.99) {
        double rest = 0;
        for (const double x : p) rest += x;
        p[1] += 1 - rest;
        if (p[1] < 0) p[0] += p[1] + 1e-9, p[1] = -1e-9;
      }
      pool.p.insert(pool.p.end(), p.begin(), p.end());
    }
  }
  round_to(pool, Dtype::f32, c.type);
  return pool;
}

std::vector<float> scores_by_definition(const TestPool& pool, ScoreKind kind) {
  const std::int64_t passes = std::max<std::int64_t>(pool.passes, 1);
  std::vector<double> p = pool.p;
  for (double& x : p) x = x < 0 ? 0 : x;
  std::vector<float> scores;
  with_score(kind, [&](auto score) {
    for (std::int64_t i = 0; i < pool.rows; ++i)
      scores.push_back(static_cast<float>(score(p.data() + i * passes * pool.classes, passes, pool.classes)));
  });
  return scores;
}

// The `count` best of these rows, larger value first and smaller row on a tie.
template <class Value>
std::vector<std::int64_t> best_rows(std::vector<std::int64_t> rows, std::int64_t count, const Value& value) {
  std::sort(rows.begin(), rows.end(),
            [&](std::int64_t a, std::int64_t b) { return value(a) > value(b) || (value(a) == value(b) && a < b); });
  rows.resize(static_cast<std::size_t>(std::min<std::int64_t>(count, static_cast<std::int64_t>(rows.size()))));
  return rows;
}

TEST(Scores, TheBestOfEveryKindToTheBit) {
  std::uint64_t seed = static_cast<std::uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  world().broadcast(std::as_writable_bytes(std::span(&seed, 1)), 0);
  std::mt19937_64 random(seed);
  const std::vector<Case> cases{
      {9000, 0, 2, Dtype::f32, Case::varied},       {9000, 0, 10, Dtype::f32, Case::varied},
      {5000, 0, 10, Dtype::f16, Case::varied},      {5000, 0, 7, Dtype::f64, Case::varied},
      {3000, 0, 101, Dtype::f32, Case::varied},     {2000, 0, 1000, Dtype::f32, Case::varied},
      {3000, 5, 6, Dtype::f32, Case::varied},       {2000, 20, 10, Dtype::f16, Case::varied},
      {2000, 2, 33, Dtype::f64, Case::varied},      {5000, 0, 3, Dtype::f32, Case::ties},
      {4000, 3, 2, Dtype::f32, Case::ties},         {5000, 0, 10, Dtype::f32, Case::nearly_flat},
      {3000, 4, 10, Dtype::f32, Case::nearly_flat}, {6000, 0, 5, Dtype::f32, Case::ascending},
  };
  for (const Case& c : cases) {
    Scenario scenario;
    scenario.pool = pool_of(c, random);
    scenario.storage.p = c.type;
    scenario.storage.shard_rows = uneven_shards(c.rows, 1 + static_cast<int>(random() % 4));
    if (random() % 4 == 0) scenario.storage.chunk_rows = 100, scenario.storage.gzip = 1;
    std::vector<std::int64_t> candidates;
    for (std::int64_t row = 0; row < c.rows; ++row) {
      const bool is_out = random() % 10 == 0;
      if (is_out) scenario.lists.excluded.push_back(row);
      if (!is_out) candidates.push_back(row);
    }
    const SharedFolder folder(world());
    const PoolRequest pool = share_scenario(world(), scenario, folder);
    for (const auto& [strategy, kind] : {std::pair{"entropy", ScoreKind::entropy},
                                         {"least_confidence", ScoreKind::least_confidence},
                                         {"margin", ScoreKind::margin},
                                         {"bald", ScoreKind::bald}}) {
      if (kind == ScoreKind::bald && c.passes < 2) continue;
      const std::vector<float> scores = scores_by_definition(scenario.pool, kind);
      const auto score_of = [&](std::int64_t row) { return scores[static_cast<std::size_t>(row)]; };
      for (const std::int64_t batch : {std::int64_t{1}, std::int64_t{37}, c.rows / 2, c.rows}) {
        Request request = request_for(strategy, batch, seed);
        const int threads = 1 + static_cast<int>(random() % 3);
        const Batch got = select_on(world(), request, pool, "cpu", threads);
        const std::string which = name_of(request) + ", " + std::to_string(c.rows) + " x " + std::to_string(c.passes) +
                                  " x " + std::to_string(c.classes) + ", threads " + std::to_string(threads) +
                                  ", form " + std::to_string(c.form) + ", seed " + std::to_string(seed);
        const std::vector<std::int64_t> want = best_rows(candidates, batch, score_of);
        EXPECT_TRUE(got.selection.rows == want) << which;
        double value = 0, random_value = 0;
        for (std::size_t i = 0; i < std::min(want.size(), got.selection.rows.size()); ++i) {
          value += score_of(want[i]);
          EXPECT_EQ(bits_of_double(got.selection.scores[i]), bits_of_double(score_of(want[i]))) << which;
          EXPECT_EQ(got.selection.gains[i], score_of(want[i])) << which;
        }
        for (std::uint64_t k = 1; k <= 5; ++k) {
          const auto draw = [&](std::int64_t row) {
            return -uniform(seed + k, Purpose("random"), static_cast<std::uint64_t>(row));
          };
          double sum = 0;
          for (const std::int64_t row : best_rows(candidates, batch, draw)) sum += score_of(row);
          random_value += sum;
        }
        EXPECT_EQ(got.certificate.value, value) << which;
        EXPECT_EQ(got.certificate.bound, value) << which;
        EXPECT_EQ(got.certificate.random, random_value / 5) << which;
      }
    }
  }
}

// Of several faults the first one is named, whichever thread meets its row first.
TEST(Scores, TheFirstFaultIsNamed) {
  Scenario scenario;
  TestPool& pool = scenario.pool;
  pool.rows = 9000, pool.classes = 500;  // several blocks
  pool.p.assign(static_cast<std::size_t>(pool.rows * pool.classes), 1.0 / 512);
  for (std::int64_t row = 0; row < pool.rows; ++row) pool.p[static_cast<std::size_t>(row * pool.classes)] = 13.0 / 512;
  for (const std::int64_t row : {2500, 4100, 4101, 8999})
    pool.p[static_cast<std::size_t>(row * pool.classes + 7)] = 0.25;
  pool.p[static_cast<std::size_t>(3000 * pool.classes + 499)] = std::nan("");
  const SharedFolder folder(world());
  const PoolRequest request = share_scenario(world(), scenario, folder);
  for (int repeat = 0; repeat < 10; ++repeat)
    expect_error(Exit::bad_data, "dataset \"probabilities\", row 2500: expected a sum of 1 within 0.001, found 1.248",
                 [&] { select_on(world(), request_for("entropy", 5), request, "cpu", 3); });
}

// Which rows are scored in full says nothing about the content.
TEST(Scores, TheFingerprintIsThatOfThePool) {
  Scenario scenario;
  scenario.pool = random_pool(3000, 5, 4, 3, 7);
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  const std::string one = select_on(world(), request_for("entropy", 1), pool).pool_fingerprint;
  EXPECT_EQ(select_on(world(), request_for("bald", 2000), pool, "cpu", 3).pool_fingerprint, one);
  EXPECT_EQ(select_on(world(), merged(request_for("entropy", 10), 4, 2), pool, "checked").pool_fingerprint, one);
}

}  // namespace
}  // namespace seine::test
