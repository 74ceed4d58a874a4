// The laws of the random strategies: chi-square of first and second draws against exact probabilities, over many seeds.
// The seeds are fixed and printed; a right sampler fails one of these comparisons with probability 1e-6.
#include <cstdio>
#include <functional>
#include <map>

#include "selecting.hpp"

namespace seine::test {
namespace {

using Pair = std::pair<std::int64_t, std::int64_t>;

constexpr std::uint64_t kFirstSeed = 1000;
#ifdef __SANITIZE_ADDRESS__  // under which a run takes a hundred times as long
constexpr int kRuns = 200;
#else
constexpr int kRuns = 6000;
#endif

// The value that chi-square with this many degrees of freedom exceeds with probability 1e-6 (Wilson and Hilferty).
double chi_square_limit(double freedom) {
  const double a = 2 / (9 * freedom);
  return freedom * std::pow(1 - a + 4.7534 * std::sqrt(a), 3);
}

// Cells that expect fewer than 5 are counted together.
void expect_law(const std::string& what, const std::map<Pair, double>& probability, const std::map<Pair, int>& count) {
  double statistic = 0, total = 0, rare_expected = 0, rare_count = 0;
  int cells = 0, counted = 0;
  for (const auto& [pair, p] : probability) {
    const double expect = p * kRuns, got = count.contains(pair) ? count.at(pair) : 0;
    counted += static_cast<int>(got);
    total += p;
    if (expect < 5) {
      rare_expected += expect;
      rare_count += got;
      continue;
    }
    statistic += (got - expect) * (got - expect) / expect;
    ++cells;
  }
  if (rare_expected > 0) {
    statistic += (rare_count - rare_expected) * (rare_count - rare_expected) / std::max(rare_expected, 0.5);
    ++cells;
  }
  EXPECT_NEAR(total, 1, 1e-9) << what << ": the exact probabilities";
  EXPECT_EQ(counted, kRuns) << what << ": outcomes of probability zero";
  const double limit = chi_square_limit(std::max(1, cells - 1));
  std::printf("%s: seeds %llu..%llu, %d cells, chi-square %.2f, limit %.2f\n", what.c_str(),
              static_cast<unsigned long long>(kFirstSeed), static_cast<unsigned long long>(kFirstSeed) + kRuns - 1,
              cells, statistic, limit);
  EXPECT_LE(statistic, limit) << what;
}

// Counts of the first two picks.
std::map<Pair, int> draw(const Scenario& scenario, Request request) {
  const Comm alone = Comm::self();
  const Folder folder;
  const PoolRequest pool = write_scenario(scenario, folder.path());
  request.certificate = CertificateMode::off;
  request.pool = pool;
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  std::map<Pair, int> count;
  for (int i = 0; i < kRuns; ++i) {
    request.seed = kFirstSeed + static_cast<std::uint64_t>(i);
    const Batch batch = select(request, alone, *backend, {});
    ++count[{batch.selection.rows.at(0), batch.selection.rows.size() > 1 ? batch.selection.rows[1] : -1}];
  }
  return count;
}

// Probabilities of the first two picks when row i is drawn in proportion to weight(i) * nearest(i, picks).
using Potential = std::function<double(std::int64_t row, const std::vector<std::int64_t>& picks)>;
std::map<Pair, double> exact_pairs(const std::vector<std::int64_t>& rows, const std::map<std::int64_t, double>& first,
                                   const Potential& potential) {
  std::map<Pair, double> pairs;
  for (const auto& [one, p] : first) {
    double total = 0;
    for (const std::int64_t row : rows)
      if (row != one) total += potential(row, {one});
    for (const std::int64_t row : rows) {
      if (row == one) continue;
      const double second = potential(row, {one});
      if (p * second > 0) pairs[{one, row}] = p * second / total;
    }
  }
  return pairs;
}

std::map<std::int64_t, double> shares(const std::vector<std::int64_t>& rows, const Potential& potential) {
  std::map<std::int64_t, double> first;
  double total = 0;
  for (const std::int64_t row : rows) total += potential(row, {});
  for (const std::int64_t row : rows)
    if (potential(row, {}) > 0) first[row] = potential(row, {}) / total;
  return first;
}

// Spec: on 0, 1, 3, 7 starting at 0 the pairs (7,3) .747, (3,7) .144, (7,1) .083, (1,7) .015, (3,1) .009, (1,3) .002.
TEST(KMeansPlusPlus, FourPointsFromZero) {
  Scenario scenario{.pool = line_pool({0, 1, 3, 7})};
  scenario.lists.labelled = {0};
  const double x[] = {0, 1, 3, 7};
  const Potential potential = [&](std::int64_t row, const std::vector<std::int64_t>& picks) {
    double best = x[row] * x[row];
    for (const std::int64_t pick : picks) best = std::min(best, (x[row] - x[pick]) * (x[row] - x[pick]));
    return best;
  };
  const auto exact = exact_pairs({1, 2, 3}, shares({1, 2, 3}, potential), potential);
  EXPECT_NEAR(exact.at({3, 2}), .747, 6e-4);
  EXPECT_NEAR(exact.at({2, 3}), .144, 6e-4);
  EXPECT_NEAR(exact.at({3, 1}), .083, 6e-4);
  EXPECT_NEAR(exact.at({1, 3}), .015, 6e-4);
  EXPECT_NEAR(exact.at({2, 1}), .009, 6e-4);
  EXPECT_NEAR(exact.at({1, 2}), .002, 6e-4);
  expect_law("k_means_pp from a covered row", exact, draw(scenario, request_for("k_means_pp", 2)));
}

TEST(KMeansPlusPlus, UniformFirst) {
  const std::vector<double> x = {0, 1, 3, 7, 7.5};
  Scenario scenario{.pool = line_pool(x)};
  const Potential potential = [&](std::int64_t row, const std::vector<std::int64_t>& picks) {
    return picks.empty() ? 1 : (x[row] - x[picks[0]]) * (x[row] - x[picks[0]]);
  };
  const std::vector<std::int64_t> rows = {0, 1, 2, 3, 4};
  expect_law("k_means_pp without covered rows", exact_pairs(rows, shares(rows, potential), potential),
             draw(scenario, request_for("k_means_pp", 2)));
}

// Weights: in proportion to score * squared distance, but the first uniform.
TEST(KMeansPlusPlus, WithScores) {
  const std::vector<double> x = {0, 1, 3, 7};
  Scenario scenario{.pool = line_pool(x)};
  scenario.storage.p = Dtype::f64;
  scenario.pool.classes = 2;
  scenario.pool.p = {.5, .5, .75, .25, .875, .125, .9375, .0625};  // least confidence 1/2, 1/4, 1/8, 1/16
  const double weight[] = {.5, .25, .125, .0625};
  const Potential potential = [&](std::int64_t row, const std::vector<std::int64_t>& picks) {
    return picks.empty() ? 1 : weight[row] * (x[row] - x[picks[0]]) * (x[row] - x[picks[0]]);
  };
  Request request = request_for("k_means_pp", 2);
  request.score = "least_confidence";
  request.score_power = 1;
  const std::vector<std::int64_t> rows = {0, 1, 2, 3};
  expect_law("k_means_pp with weights", exact_pairs(rows, shares(rows, potential), potential), draw(scenario, request));
}

// Spec: after row 2, in proportion to 7.042 and 6.518. Four rows here, for a third draw to be open.
TEST(Badge, DrawsAfterTheLargestNorm) {
  Scenario scenario;
  scenario.storage.p = Dtype::f64;
  scenario.pool = {.rows = 4,
                   .dim = 2,
                   .classes = 3,
                   .x = {1, 2, 0, 1, 3, -1, -2, 1},
                   .p = {.6, .3, .1, .2, .5, .3, .34, .33, .33, .5, .25, .25}};
  const View view = view_of(scenario);
  const auto potential_of = [&](std::int64_t i, std::int64_t j) {  // all entries of both gradients
    double sum = 0;
    const int best[] = {0, 1, 0, 0};
    for (int c = 0; c < 3; ++c)
      for (int d = 0; d < 2; ++d) {
        const auto g = [&](std::int64_t row) {
          return ((c == best[row] ? 1 : 0) - view.p[row * 3 + c]) * view.x[row * 2 + d];
        };
        sum += (g(i) - g(j)) * (g(i) - g(j));
      }
    return sum;
  };
  EXPECT_NEAR(potential_of(0, 2), 7.042, 1e-9);
  EXPECT_NEAR(potential_of(1, 2), 6.518, 1e-9);
  const Potential potential = [&](std::int64_t row, const std::vector<std::int64_t>& picks) {
    return potential_of(row, picks[0]);
  };
  expect_law("badge", exact_pairs({0, 1, 2, 3}, {{2, 1.0}}, potential), draw(scenario, request_for("badge", 2)));
}

TEST(Badge, ConditionedFirstDraw) {
  Scenario scenario;
  scenario.pool = {.rows = 5, .dim = 1, .classes = 2, .x = {1, 3, 2, -1, 6}, .p = std::vector<double>(10, .5)};
  scenario.lists.labelled = {0};
  const double x[] = {1, 3, 2, -1, 6};  // gradients (x/2, -x/2)
  const Potential potential = [&](std::int64_t row, const std::vector<std::int64_t>& picks) {
    double best = (x[row] - 1) * (x[row] - 1) / 2;
    for (const std::int64_t pick : picks) best = std::min(best, (x[row] - x[pick]) * (x[row] - x[pick]) / 2);
    return best;
  };
  Request request = request_for("badge", 2);
  request.set["conditioned"] = "true";
  const std::vector<std::int64_t> rows = {1, 2, 3, 4};
  expect_law("badge, conditioned", exact_pairs(rows, shares(rows, potential), potential), draw(scenario, request));
}

TEST(Random, EveryOrderAlike) {
  Scenario scenario{.pool = line_pool({0, 0, 0, 0})};
  const Potential potential = [](std::int64_t, const std::vector<std::int64_t>&) { return 1.0; };
  const std::vector<std::int64_t> rows = {0, 1, 2, 3};
  expect_law("random", exact_pairs(rows, shares(rows, potential), potential), draw(scenario, request_for("random", 2)));
}

// P is lowered to 1 where the partitions would be too small: the law is the exact one.
TEST(Merge, LoweredToOnePartition) {
  const std::vector<double> x = {0, 1, 3, 7, 7.5};
  Scenario scenario{.pool = line_pool(x)};
  const Potential potential = [&](std::int64_t row, const std::vector<std::int64_t>& picks) {
    return picks.empty() ? 1 : (x[row] - x[picks[0]]) * (x[row] - x[picks[0]]);
  };
  const std::vector<std::int64_t> rows = {0, 1, 2, 3, 4};
  expect_law("k_means_pp, merge of one", exact_pairs(rows, shares(rows, potential), potential),
             draw(scenario, merged(request_for("k_means_pp", 2), 64, 8)));
}

// Three runs of 64 equal rows in up to three partitions, B = 1, from a covered row. A leaf draws one of its runs in
// proportion to its squared distance and carries the rows nearest to the pick; the union draws in proportion to carried
// weight times squared distance. The law depends on which runs share a partition, which the seed decides.
TEST(Merge, WeightsOfTheUnion) {
  Scenario scenario{.pool = line_pool({})};
  const double place[] = {0, 1, -2};  // the covered row, in a fourth run, is at -1/2
  for (int run = 0; run < 3; ++run) scenario.pool.x.insert(scenario.pool.x.end(), 64, place[run] + 3);
  scenario.pool.x.push_back(2.5);
  scenario.pool.rows = 193;
  scenario.lists.labelled = {192};
  const Comm alone = Comm::self();
  const Folder folder;
  Request request = merged(request_for("k_means_pp", 1), 3, 8);
  request.certificate = CertificateMode::off;
  request.pool = write_scenario(scenario, folder.path());
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  const auto near2 = [&](int group) { return (place[group] + .5) * (place[group] + .5); };
  std::map<int, double> expect;
  std::map<int, int> count;
  for (int i = 0; i < kRuns; ++i) {
    request.seed = kFirstSeed + static_cast<std::uint64_t>(i);
    ++count[static_cast<int>(select(request, alone, *backend, {}).selection.rows[0] / 64)];
    // The exact law given which runs share a partition.
    std::map<std::uint64_t, std::vector<int>> leaves;
    for (int run = 0; run < 3; ++run)
      leaves[random_bits(request.seed, Purpose("partition").key, static_cast<std::uint64_t>(run)) % 3].push_back(run);
    std::vector<std::pair<double, std::map<int, double>>> unions = {
        {1.0, {}}};  // probability, weight of each group's pick
    for (const auto& [leaf, groups] : leaves) {
      double total = 0;
      for (const int group : groups) total += near2(group);
      std::vector<std::pair<double, std::map<int, double>>> next;
      for (const auto& [p, weights] : unions)
        for (const int pick : groups) {
          double carried = 0;  // rows nearer to the pick than to the covered row
          for (const int group : groups)
            if (std::abs(place[group] - place[pick]) < std::abs(place[group] + .5)) carried += 64;
          auto more = weights;
          more[pick] = carried;
          next.push_back({p * near2(pick) / total, more});
        }
      unions = std::move(next);
    }
    for (const auto& [p, weights] : unions) {
      double total = 0;
      for (const auto& [group, weight] : weights) total += weight * near2(group);
      for (const auto& [group, weight] : weights) expect[group] += p * weight * near2(group) / total;
    }
  }
  double statistic = 0;
  for (const auto& [group, e] : expect) statistic += (count[group] - e) * (count[group] - e) / e;
  std::printf("k_means_pp, merge of three: seeds %llu.., chi-square %.2f, limit %.2f; counts %d %d %d\n",
              static_cast<unsigned long long>(kFirstSeed), statistic, chi_square_limit(2), count[0], count[1],
              count[2]);
  EXPECT_LE(statistic, chi_square_limit(2));
}

}  // namespace
}  // namespace seine::test
