// The metrics of `seine evaluate` against their own naive computation.
#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "seine/evaluation.hpp"
#include "selecting.hpp"

namespace seine::test {
namespace {

using Rows = std::vector<std::int64_t>;

// Metrics of one batch, in the plainest way (contract, section 1, "Metrics of evaluate").
std::map<std::string, double> metrics_of(const Scenario& scenario, const View& view, const Rows& batch, bool unit,
                                         const Rows& sample) {
  const std::int64_t dim = view.dim;
  std::vector<std::vector<double>> x;
  std::vector<double> norm;
  for (std::int64_t i = 0; i < view.total(); ++i) {
    std::vector<double> row(view.x.begin() + i * dim, view.x.begin() + (i + 1) * dim);
    double square = 0;
    for (const double value : row) square += value * value;
    norm.push_back(std::sqrt(square));
    if (unit && square > 0)
      for (double& value : row) value = static_cast<float>(value / std::sqrt(square));
    x.push_back(row);
  }
  const auto distance = [&](std::int64_t i, std::int64_t j) {
    double sum = 0;
    for (std::int64_t d = 0; d < dim; ++d) sum += (x[i][d] - x[j][d]) * (x[i][d] - x[j][d]);
    return std::sqrt(sum);
  };
  const auto cosine = [&](std::int64_t i, std::int64_t j) {
    double dot = 0;
    for (std::int64_t d = 0; d < dim; ++d) dot += static_cast<double>(view.x[i * dim + d]) * view.x[j * dim + d];
    return norm[i] > 0 && norm[j] > 0 ? std::max(0.0, dot / norm[i] / norm[j]) : 0.0;
  };
  Rows covered, centres;
  for (std::int64_t i = 0; i < view.total(); ++i)
    if (view.part[i] == Part::covered) covered.push_back(i);
  centres = covered;
  centres.insert(centres.end(), batch.begin(), batch.end());

  std::map<std::string, double> m;
  double rows = 0;
  m["radius"] = m["mean_distance"] = m["potential"] = m["facility_location"] = 0;
  for (const std::int64_t i : sample) {
    if (view.part[i] == Part::covered) continue;
    double nearest = HUGE_VAL, similar = 0;
    for (const std::int64_t c : centres) {
      nearest = std::min(nearest, distance(i, c));
      similar = std::max(similar, cosine(i, c));
    }
    m["radius"] = std::max(m["radius"], nearest);
    m["mean_distance"] += nearest;
    m["potential"] += nearest * nearest;
    m["facility_location"] += similar;
    ++rows;
  }
  for (const char* mean : {"mean_distance", "potential", "facility_location"}) m[mean] /= rows;
  m["nearest_pair"] = batch.size() < 2 ? NAN : HUGE_VAL;
  m["duplicates"] = 0;
  for (std::size_t a = 0; a < batch.size(); ++a) {
    bool duplicate = false;
    for (const std::int64_t c : covered) duplicate |= x[batch[a]] == x[c];
    for (std::size_t b = 0; b < a; ++b) {
      m["nearest_pair"] = std::min(m["nearest_pair"], distance(batch[a], batch[b]));
      duplicate |= x[batch[a]] == x[batch[b]];
    }
    m["duplicates"] += duplicate;
  }
  // Balance of the picked classes over the number of distinct classes (of the pool).
  if (!scenario.pool.reference_classes.empty() || view.classes > 0) {
    const auto class_of = [&](std::int64_t row) {
      if (!scenario.pool.reference_classes.empty()) return scenario.pool.reference_classes[row];
      std::int64_t best = 0;
      double largest = -1;
      for (std::int64_t c = 0; c < view.classes; ++c) {
        double mean = 0;
        for (std::int64_t t = 0; t < view.passes; ++t) mean += view.p[(row * view.passes + t) * view.classes + c];
        if (mean > largest) {
          largest = mean;
          best = c;
        }
      }
      return best;
    };
    std::map<std::int64_t, double> picked;
    std::set<std::int64_t> distinct;
    for (const std::int64_t row : batch) picked[class_of(row)] += 1.0 / static_cast<double>(batch.size());
    for (std::int64_t row = 0; row < view.rows; ++row) distinct.insert(class_of(row));
    double entropy = 0;
    for (const auto& [label, share] : picked) entropy -= share * std::log(share);
    m["class_balance"] = entropy / std::log(static_cast<double>(distinct.size()));
  }
  if (view.classes > 0) {
    m["mean_entropy"] = m["mean_margin"] = 0;
    for (const std::int64_t row : batch) {
      m["mean_entropy"] += expected_score(view, "entropy", row) / static_cast<double>(batch.size());
      m["mean_margin"] += expected_score(view, "margin", row) / static_cast<double>(batch.size());
    }
  }
  return m;
}

Rows all_rows(const View& view) {
  Rows rows;
  for (std::int64_t row = 0; row < view.rows; ++row) rows.push_back(row);
  return rows;
}

// Evaluates these batches and compares every metric, and the random ones.
void expect_metrics(const Scenario& scenario, const std::vector<Rows>& batches, Normalize normalize,
                    std::optional<std::int64_t> sample = {}, const std::string& device = "cpu", int threads = 1) {
  const SharedFolder folder(world());
  EvaluationRequest request;
  request.pool = share_scenario(world(), scenario, folder);
  request.pool.device = device;
  request.pool.threads = threads;
  request.random = 4;
  request.seed = 9;
  request.sample = sample;
  request.normalize = normalize;
  for (std::size_t b = 0; b < batches.size(); ++b) {
    request.picked.push_back(folder.path() + "/picked-" + std::to_string(b) + ".txt");
    std::string text;
    for (const std::int64_t row : batches[b]) text += scenario.pool.id(row) + "\n";
    world().agree([&] {
      if (world().is_root()) write_text(request.picked.back(), text);
    });
  }
  const std::unique_ptr<Backend> backend = backend_of(device, threads);
  const Evaluation evaluation = evaluate(request, world(), *backend, {});

  const View view = view_of(scenario);
  Rows rows = all_rows(view);
  if (sample && *sample < view.rows) {
    std::stable_sort(rows.begin(), rows.end(), [](std::int64_t i, std::int64_t j) {
      return uniform(9, Purpose("evaluation"), static_cast<std::uint64_t>(i)) <
             uniform(9, Purpose("evaluation"), static_cast<std::uint64_t>(j));
    });
    rows.resize(static_cast<std::size_t>(*sample));
  }
  const bool unit = normalize == Normalize::l2;
  EXPECT_EQ(evaluation.files, request.picked);
  std::vector<std::map<std::string, double>> random;
  for (std::uint64_t s = 10; s <= 13; ++s)
    random.push_back(
        metrics_of(scenario, view, expected_random(view, s, static_cast<std::int64_t>(batches[0].size())), unit, rows));
  std::set<std::string> seen;
  ASSERT_EQ(evaluation.values.size(), evaluation.metrics.size());
  for (std::size_t k = 0; k < evaluation.metrics.size(); ++k) {
    const std::string& metric = evaluation.metrics[k];
    seen.insert(metric);
    for (std::size_t b = 0; b < batches.size(); ++b) {
      const auto want = metrics_of(scenario, view, batches[b], unit, rows);
      const double value = want.contains(metric) ? want.at(metric) : NAN;
      EXPECT_TRUE(near(evaluation.values[k][b], value, 2e-6, 1e-7)) << metric << " of batch " << b;
    }
    double mean = 0, square = 0;
    for (const auto& m : random) mean += (m.contains(metric) ? m.at(metric) : NAN) / 4;
    for (const auto& m : random) square += std::pow((m.contains(metric) ? m.at(metric) : NAN) - mean, 2) / 4;
    EXPECT_TRUE(near(evaluation.random_mean[k], mean, 2e-6, 1e-7)) << metric << " of random batches";
    EXPECT_TRUE(near(evaluation.random_sd[k], std::sqrt(square), 1e-4, 2e-6)) << metric << ", deviation";
  }
  for (const char* metric : {"radius", "mean_distance", "potential", "facility_location", "nearest_pair", "duplicates"})
    EXPECT_TRUE(seen.contains(metric)) << metric;
  if (view.classes > 0) {
    for (const char* metric : {"class_balance", "mean_entropy", "mean_margin"})
      EXPECT_TRUE(seen.contains(metric)) << metric;
  }
  EXPECT_TRUE(evaluation.to_csv().starts_with("metric," + request.picked[0])) << evaluation.to_csv();
}

TEST(Evaluate, ByHand) {
  Scenario scenario;
  scenario.pool = line_pool({0, 1, 2, 3, 4, 5, 6, 7, 8});
  const SharedFolder folder(world());
  EvaluationRequest request;
  request.pool = share_scenario(world(), scenario, folder);
  request.picked = {folder.path() + "/picked.txt"};
  world().agree([&] {
    if (world().is_root()) write_text(request.picked[0], "1\n7\n");
  });
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  const Evaluation evaluation = evaluate(request, world(), *backend, {});
  const std::map<std::string, double> want = {
      {"radius", 3},           {"mean_distance", 11.0 / 9},     // 1 0 1 2 3 2 1 0 1
      {"potential", 21.0 / 9}, {"facility_location", 8.0 / 9},  // row 0 is zero
      {"nearest_pair", 6},     {"duplicates", 0}};
  for (const auto& [metric, value] : want) {
    const auto at = std::find(evaluation.metrics.begin(), evaluation.metrics.end(), metric);
    ASSERT_NE(at, evaluation.metrics.end()) << metric;
    EXPECT_NEAR(evaluation.values[at - evaluation.metrics.begin()][0], value, 1e-6) << metric;
  }
}

TEST(Evaluate, UndefinedHasNoSign) {
  const SharedFolder folder(world());
  EvaluationRequest request;
  request.pool = share_scenario(world(), {.pool = line_pool({0, 1, 2})}, folder);
  request.picked = {folder.path() + "/picked.txt"};
  request.random = 0;
  world().agree([&] {
    if (world().is_root()) write_text(request.picked[0], "1\n");
  });
  const Evaluation evaluation = evaluate(request, world(), *backend_of("cpu", 1), {});
  EXPECT_NE(evaluation.to_csv().find("\nradius,1,nan,nan\nmean_distance,"), std::string::npos) << evaluation.to_csv();
  EXPECT_EQ((evaluation.to_csv() + evaluation.to_table()).find("-nan"), std::string::npos);
}

TEST(Evaluate, LabelledPoolOfAnotherWidth) {
  const SharedFolder folder(world());
  EvaluationRequest request;
  request.pool = share_scenario(
      world(), {.pool = random_pool(20, 3, 0, 0, 1), .labelled_pool = random_pool(5, 2, 0, 0, 2)}, folder);
  request.picked = {folder.path() + "/picked.txt"};
  world().agree([&] {
    if (world().is_root()) write_text(request.picked[0], "1\n");
  });
  try {
    evaluate(request, world(), *backend_of("cpu", 1), {});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Exit::bad_data);
    EXPECT_NE(std::string(error.what()).find("expected 3 columns of embeddings as in the pool, found 2"),
              std::string::npos)
        << error.what();
  }
}

TEST(Evaluate, AgainstNaive) {
  Scenario scenario{.pool = random_pool(320, 5, 4, 0, 300), .storage = {.shard_rows = uneven_shards(320, 3)}};
  for (const Normalize normalize : {Normalize::by_strategy, Normalize::l2})
    expect_metrics(scenario, {{1, 50, 99, 200, 310}, {3, 4, 5}}, normalize);
  for (std::int64_t row = 0; row < 320; ++row) scenario.pool.reference_classes.push_back(row * row % 7);
  scenario.lists = {.labelled = {0, 60}, .pending = {61}, .excluded = {70, 71}};
  expect_metrics(scenario, {{1, 50, 99, 200, 310}}, Normalize::none);
  expect_metrics(scenario, {{1, 50, 99, 200, 310}}, Normalize::none, 100);
  expect_metrics(scenario, {{1, 50, 99, 200, 310}}, Normalize::none, 100000, "checked", 2);
}

TEST(Evaluate, PassesIdsAndLabelledPool) {
  Scenario scenario{.pool = random_pool(150, 3, 4, 3, 301)};
  add_word_ids(scenario.pool);
  scenario.labelled_pool = random_pool(5, 3, 4, 3, 302);
  expect_metrics(scenario, {{1, 50, 99}, {149}}, Normalize::none);
}

TEST(Evaluate, DuplicatesAndTies) {
  Scenario scenario{.pool = grid_pool(120, 2, 3, 0, 303)};
  scenario.lists.labelled = {10, 11};
  expect_metrics(scenario, {{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15, 16, 17}}, Normalize::none);
  Scenario bare{.pool = grid_pool(60, 2, 0, 0, 304)};  // no probabilities: their metrics are undefined or absent
  expect_metrics(bare, {{0, 1, 2, 30}}, Normalize::none);
}

TEST(Evaluate, WhatSelectWrote) {
  Scenario scenario{.pool = random_pool(200, 4, 3, 0, 305)};
  add_number_ids(scenario.pool);
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  std::map<std::string, std::vector<double>> by_ending;
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  for (const char* ending : {".h5", ".csv", ".json"}) {
    Request request = request_for("k_center", 10);
    request.pool = pool;
    request.out = folder.path() + "/batch" + ending;
    const Batch batch = select_and_write(request, world(), *backend, {});
    EvaluationRequest evaluation;
    evaluation.pool = pool;
    evaluation.picked = {request.out};
    const Evaluation result = evaluate(evaluation, world(), *backend, {});
    std::vector<double> column;
    for (std::size_t k = 0; k < result.metrics.size(); ++k) {
      if (result.metrics[k] == "radius") {
        EXPECT_NEAR(result.values[k][0], batch.certificate.value, 1e-5);
      }
      column.push_back(result.values[k][0]);
    }
    by_ending[ending] = column;
  }
  EXPECT_EQ(testing::PrintToString(by_ending[".h5"]), testing::PrintToString(by_ending[".csv"]));
  EXPECT_EQ(testing::PrintToString(by_ending[".h5"]), testing::PrintToString(by_ending[".json"]));
}

}  // namespace
}  // namespace seine::test
