// Every strategy: cases that can be checked by hand, then the naive oracle on pools of every awkward shape, then
// certificates against the best possible batch by brute force.
#include <algorithm>
#include <numeric>

#include "selecting.hpp"

namespace seine::test {
namespace {

using Rows = std::vector<std::int64_t>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

Batch run(const Scenario& scenario, const Request& request, std::vector<std::string>* warnings = nullptr) {
  const SharedFolder folder(world());
  return select_on(world(), request, share_scenario(world(), scenario, folder), "cpu", 1, warnings);
}

void expect_values(const std::vector<double>& got, const std::vector<double>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < want.size(); ++i) EXPECT_TRUE(near(got[i], want[i], 0, tolerance)) << "at " << i;
}

std::vector<std::string> names() {
  std::vector<std::string> names;
  for (const Entry& entry : strategies()) names.emplace_back(entry.name);
  return names;
}

// --- By hand ---

TEST(Table, HasTheTenStrategies) {
  std::vector<std::string> have = names();
  for (const char* name : {"random", "entropy", "least_confidence", "margin", "bald", "k_center", "k_means_pp", "badge",
                           "facility_location", "log_det"})
    EXPECT_NE(std::find(have.begin(), have.end(), name), have.end()) << name;
}

TEST(Scores, PointwiseVectors) {
  Scenario scenario;
  scenario.storage.p = Dtype::f64;
  scenario.pool = {.rows = 4, .classes = 3, .p = {.5, .3, .2, .34, .33, .33, .9, .1, 0, .45, .45, .1}};
  const Batch entropy = run(scenario, request_for("entropy", 4));
  EXPECT_EQ(entropy.selection.rows, (Rows{1, 0, 3, 2}));
  expect_values(entropy.selection.gains, {1.098513, 1.029653, .948915, .325083}, 1e-6);
  EXPECT_EQ(entropy.certificate.kind, "scores");
  EXPECT_DOUBLE_EQ(entropy.certificate.ratio, 1);
  EXPECT_NEAR(entropy.certificate.value, 1.098513 + 1.029653 + .948915 + .325083, 1e-5);
  const Batch confidence = run(scenario, request_for("least_confidence", 4));
  EXPECT_EQ(confidence.selection.rows, (Rows{1, 3, 0, 2}));
  expect_values(confidence.selection.gains, {.66, .55, .5, .1}, 1e-6);
  const Batch margin = run(scenario, request_for("margin", 4));
  EXPECT_EQ(margin.selection.rows, (Rows{3, 1, 0, 2}));
  expect_values(margin.selection.gains, {1, .99, .8, .2}, 1e-6);
  for (std::size_t t = 0; t < 4; ++t)
    EXPECT_EQ(static_cast<double>(margin.selection.scores[t]), margin.selection.gains[t]);
}

TEST(Scores, Committee) {
  Scenario scenario;
  scenario.storage.p = Dtype::f64;
  scenario.pool = {.rows = 3, .classes = 3, .passes = 4, .p = {.7, .2, .1, .2, .7, .1, .6, .3, .1, .1, .1, .8,   // A
                                                               .4, .3, .3, .4, .3, .3, .4, .3, .3, .4, .3, .3,   // Bm
                                                               1,  0,  0,  0,  1,  0,  0,  0,  1,  1,  0,  0}};  // Cm
  const Batch bald = run(scenario, request_for("bald", 3));
  EXPECT_EQ(bald.selection.rows, (Rows{2, 0, 1}));
  expect_values(bald.selection.gains, {1.039721, .301661, 0}, 1e-6);
  const Batch entropy = run(scenario, request_for("entropy", 3));  // of the mean over the passes
  EXPECT_EQ(entropy.selection.rows, (Rows{1, 0, 2}));
  expect_values(entropy.selection.gains, {1.088900, 1.086814, 1.039721}, 1e-6);
}

// Passes that agree have no information, whatever their entropies round to: unclamped, this row has -1.1e-16.
TEST(Scores, BaldIsNeverNegative) {
  Scenario scenario;
  scenario.storage.p = Dtype::f64;
  scenario.pool = {.rows = 1, .classes = 3, .passes = 3, .p = {.8, .1, .1, .8, .1, .1, .8, .1, .1}};
  const Batch bald = run(scenario, request_for("bald", 1));
  EXPECT_EQ(bald.selection.gains[0], 0.0);
  EXPECT_EQ(bald.selection.scores[0], 0.0f);
}

TEST(Scores, TiesGoToTheSmallerRow) {
  Scenario scenario;
  scenario.pool = {.rows = 9, .classes = 2, .p = std::vector<double>(18, 0.5)};
  for (const char* name : {"entropy", "least_confidence", "margin"})
    EXPECT_EQ(run(scenario, request_for(name, 4)).selection.rows, (Rows{0, 1, 2, 3})) << name;
}

TEST(Random, SmallestDraws) {
  Scenario scenario;
  scenario.pool = line_pool(std::vector<double>(50, 1.0));
  scenario.lists.excluded = {0, 1, 2, 3, 4};
  const Batch batch = run(scenario, request_for("random", 7, 99));
  EXPECT_EQ(batch.selection.rows, expected_random(view_of(scenario), 99, 7));
  for (std::size_t t = 1; t < 7; ++t)
    EXPECT_LT(uniform(99, Purpose("random"), static_cast<std::uint64_t>(batch.selection.rows[t - 1])),
              uniform(99, Purpose("random"), static_cast<std::uint64_t>(batch.selection.rows[t])));
  EXPECT_TRUE(std::isnan(batch.selection.gains[0]) && std::isnan(batch.selection.scores[0]));
  EXPECT_EQ(batch.certificate.kind, "none");
}

TEST(KCenter, TiesOnALine) {
  Scenario scenario;
  scenario.pool = line_pool({0, 1, 2, 3, 4, 5, 6, 7, 8});
  const Batch batch = run(scenario, request_for("k_center", 9));
  EXPECT_EQ(batch.selection.rows, (Rows{0, 8, 4, 2, 6, 1, 3, 5, 7}));
  expect_values(batch.selection.gains, {kInfinity, 8, 4, 2, 2, 1, 1, 1, 1}, 0);
  EXPECT_EQ(batch.certificate.value, 0);
  const Batch three = run(scenario, request_for("k_center", 3));
  EXPECT_EQ(three.certificate.kind, "radius");
  EXPECT_NEAR(three.certificate.value, 2, 1e-5);
  EXPECT_NEAR(three.certificate.bound, 1, 1e-5);
  EXPECT_LE(three.certificate.bound, 1);
  EXPECT_NEAR(three.certificate.ratio, 2, 1e-4);
}

TEST(KCenter, StartsFromCovered) {
  Scenario scenario;
  scenario.pool = line_pool({0, 1, 2, 3, 4, 5, 6, 7, 8});
  scenario.lists.labelled = {8};
  scenario.lists.pending = {3};
  const Batch batch = run(scenario, request_for("k_center", 3));
  EXPECT_EQ(batch.selection.rows, (Rows{0, 5, 1}));
  expect_values(batch.selection.gains, {3, 2, 1}, 0);
  EXPECT_EQ(batch.candidates, 7);
}

TEST(KCenter, DuplicatesFillBySmallestRow) {
  Scenario scenario;
  scenario.pool = line_pool({5, 5, 5, 7, 7, 5});
  const Batch batch = run(scenario, request_for("k_center", 6));
  EXPECT_EQ(batch.selection.rows, (Rows{0, 3, 1, 2, 4, 5}));
  expect_values(batch.selection.gains, {kInfinity, 2, 0, 0, 0, 0}, 0);
  EXPECT_EQ(batch.certificate.ratio, 1);  // 0 / 0
}

TEST(KMeansPlusPlus, RaceOnFourPoints) {
  Scenario scenario;
  scenario.pool = line_pool({0, 1, 3, 7});
  scenario.lists.labelled = {0};
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Batch batch = run(scenario, request_for("k_means_pp", 2, seed));
    const double x[] = {0, 1, 3, 7};
    const double first = x[batch.selection.rows[0]], second = x[batch.selection.rows[1]];
    EXPECT_EQ(batch.selection.gains[0], first * first);
    EXPECT_EQ(batch.selection.gains[1], std::min(second * second, (second - first) * (second - first)));
  }
}

TEST(KMeansPlusPlus, ZeroPotentialFillsBySmallestRow) {
  Scenario scenario;
  scenario.pool = line_pool({2, 2, 2, 2});
  const Batch batch = run(scenario, request_for("k_means_pp", 4, 5));
  ASSERT_EQ(batch.selection.rows.size(), 4u);
  EXPECT_TRUE(std::isnan(batch.selection.gains[0]));
  Rows rest(batch.selection.rows.begin() + 1, batch.selection.rows.end());
  EXPECT_TRUE(std::is_sorted(rest.begin(), rest.end()));
  expect_values({batch.selection.gains.begin() + 1, batch.selection.gains.end()}, {0, 0, 0}, 0);
}

TEST(Badge, ThreeRows) {
  Scenario scenario;
  scenario.storage.p = Dtype::f64;
  scenario.pool = {
      .rows = 3, .dim = 2, .classes = 3, .x = {1, 2, 0, 1, 3, -1}, .p = {.6, .3, .1, .2, .5, .3, .34, .33, .33}};
  bool zero_second = false, one_second = false;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Batch batch = run(scenario, request_for("badge", 3, seed));
    ASSERT_EQ(batch.selection.rows[0], 2);
    const bool zero = batch.selection.rows[1] == 0;
    (zero ? zero_second : one_second) = true;
    expect_values(batch.selection.gains, {6.534, zero ? 7.042 : 6.518, 2.48}, 1e-5);
    const double norms[] = {1.3, .38, 6.534};
    for (std::size_t t = 0; t < 3; ++t) EXPECT_NEAR(batch.selection.scores[t], norms[batch.selection.rows[t]], 1e-5);
  }
  EXPECT_TRUE(zero_second && one_second);
}

TEST(Badge, FirstIsTheLargestNormEvenWithLabelledRows) {
  Scenario scenario;
  scenario.pool = {.rows = 3, .dim = 1, .classes = 2, .x = {1, 3, 2}, .p = {.5, .5, .5, .5, .5, .5}};
  scenario.lists.labelled = {1};
  EXPECT_EQ(run(scenario, request_for("badge", 1)).selection.rows, (Rows{2}));
  Request conditioned = request_for("badge", 1);
  conditioned.set["conditioned"] = "true";
  const Batch batch = run(scenario, conditioned);  // g = (x/2, -x/2): distances to the labelled row 1: 2 and 1/2
  EXPECT_NEAR(batch.selection.gains[0], batch.selection.rows[0] == 0 ? 2 : .5, 1e-6);
}

TEST(Badge, OneHotProbabilitiesFillByNormThenRow) {
  Scenario scenario;
  scenario.pool = {.rows = 5, .dim = 1, .classes = 2, .x = {1, 2, 3, 4, 5}, .p = {1, 0, 0, 1, 1, 0, 1, 0, 0, 1}};
  EXPECT_EQ(run(scenario, request_for("badge", 5)).selection.rows, (Rows{0, 1, 2, 3, 4}));  // every norm is 0
  scenario.pool.p = {.5, .5, .5, .5, .5, .5, 1, 0, .5, .5};
  scenario.pool.x = {1, 2, 2, 4, 2};  // norms 1/2, 2, 2, 0, 2: rows 1, 2, 4 are one point
  const Batch batch = run(scenario, request_for("badge", 5, 3));
  EXPECT_EQ(batch.selection.rows[0], 1);
  const Rows tail(batch.selection.rows.begin() + 3, batch.selection.rows.end());
  EXPECT_EQ(tail, (Rows{2, 4}));  // after 1 and, in any order, 0 and 3
}

TEST(FacilityLocation, CountsWhatIsCovered) {
  Scenario scenario;
  scenario.pool = {.rows = 7, .dim = 3, .x = {0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 5, 0, 0, 0, 1, 0, 1, 0, 0}};
  // directions: e2, e0, e1, zero, e0, e1, e0
  const Batch batch = run(scenario, request_for("facility_location", 7));
  EXPECT_EQ(batch.selection.rows, (Rows{1, 2, 0, 3, 4, 5, 6}));
  expect_values(batch.selection.gains, {3, 2, 1, 0, 0, 0, 0}, 1e-6);
  EXPECT_NEAR(batch.certificate.value, 6, 1e-5);
  EXPECT_NEAR(batch.certificate.bound, 6, 1e-5);
  scenario.lists.labelled = {4};
  const Batch after = run(scenario, request_for("facility_location", 2));
  EXPECT_EQ(after.selection.rows, (Rows{2, 0}));
  expect_values(after.selection.gains, {2, 1}, 1e-6);
}

TEST(FacilityLocation, NegativeCosinesCountAsZero) {
  Scenario scenario;
  scenario.pool = line_pool({-1, 2, 3, -4, -5});
  const Batch batch = run(scenario, request_for("facility_location", 3));
  EXPECT_EQ(batch.selection.rows, (Rows{0, 1, 2}));
  expect_values(batch.selection.gains, {3, 2, 0}, 1e-6);
}

TEST(LogDet, ByHand) {
  Scenario scenario;
  scenario.pool = {.rows = 4, .dim = 2, .x = {3, 0, 5, 0, 0, 2, 0, 0}};
  Request request = request_for("log_det", 4);
  request.set["noise"] = "1";
  const Batch batch = run(scenario, request);
  EXPECT_EQ(batch.selection.rows, (Rows{0, 2, 1, 3}));
  expect_values(batch.selection.gains, {std::log(2), std::log(2), std::log(1.5), 0}, 1e-9);
  request.normalize = Normalize::none;
  const Batch raw = run(scenario, request);
  EXPECT_EQ(raw.selection.rows, (Rows{1, 2, 0, 3}));
  expect_values(raw.selection.gains, {std::log(26), std::log(5), std::log1p(9.0 / 26), 0}, 1e-9);
  EXPECT_NEAR(raw.certificate.value, std::log(35.0 * 5), 1e-6);
}

TEST(LogDet, GainsAddUpToTheDeterminant) {
  Scenario scenario;
  scenario.pool = random_pool(90, 5, 0, 0, 31);
  scenario.lists.labelled = {3, 40, 41};
  for (const Normalize normalize : {Normalize::none, Normalize::l2}) {
    Request request = request_for("log_det", 25);  // more picks than dimensions
    request.set["noise"] = "0.25";
    request.normalize = normalize;
    const Batch batch = run(scenario, request);
    Rows all = {3, 40, 41};
    all.insert(all.end(), batch.selection.rows.begin(), batch.selection.rows.end());
    const bool unit = normalize == Normalize::l2;
    const double want =
        log_det_of(view_of(scenario), all, .25, unit) - log_det_of(view_of(scenario), {3, 40, 41}, .25, unit);
    EXPECT_NEAR(std::accumulate(batch.selection.gains.begin(), batch.selection.gains.end(), 0.0), want, 1e-5 * want);
    EXPECT_TRUE(std::is_sorted(batch.selection.gains.rbegin(), batch.selection.gains.rend()));
  }
}

// --- Against the oracle ---

struct Case {
  std::string name;
  Scenario scenario;
};

// Rows doubled, so that every row has a twin elsewhere in the pool.
TestPool doubled(const TestPool& pool) {
  TestPool twice = pool;
  twice.rows *= 2;
  twice.x.insert(twice.x.end(), pool.x.begin(), pool.x.end());
  twice.p.insert(twice.p.end(), pool.p.begin(), pool.p.end());
  return twice;
}

std::vector<Case> awkward_pools() {
  std::vector<Case> cases;
  const auto add = [&cases](const char* name, TestPool pool, Storage storage = {}, Lists lists = {}) {
    cases.push_back({name, {.pool = std::move(pool), .storage = std::move(storage), .lists = std::move(lists)}});
  };
  add("random", random_pool(230, 6, 4, 3, 1));
  add("33 dimensions, 7 shards, one empty", random_pool(150, 33, 3, 2, 2), {.shard_rows = uneven_shards(150, 7)});
  add("doubled rows", doubled(random_pool(60, 5, 4, 2, 3)), {.shard_rows = even_shards(120, 3)});
  add("two rows", random_pool(2, 3, 3, 2, 4));
  add("one row", random_pool(1, 3, 3, 2, 5));
  TestPool pool = random_pool(80, 4, 3, 2, 6);
  std::fill(pool.x.begin(), pool.x.begin() + 40 * 4, 0.0);
  add("half zero vectors", pool);
  std::fill(pool.x.begin(), pool.x.end(), 0.0);
  add("all zero vectors", pool);
  pool = random_pool(50, 4, 3, 2, 7);
  for (std::size_t i = 0; i < pool.p.size(); ++i) pool.p[i] = i % 3 == i / 6 % 3 ? 1 : 0;
  add("one-hot probabilities", pool);
  for (double& p : pool.p) p = 1.0 / 4;
  for (std::size_t i = 0; i < pool.p.size(); i += 3) pool.p[i] = 0.5;
  add("all scores equal", pool);
  pool = random_pool(120, 5, 4, 2, 8);
  add_number_ids(pool);
  add("number ids, chunked and compressed", pool, {.shard_rows = even_shards(120, 3), .chunk_rows = 17, .gzip = 4},
      {.labelled = {3, 77}, .excluded = {5}});
  add("int32 ids", pool, {.narrow_ids = true}, {.labelled = {3, 77}});
  add_word_ids(pool);
  pool.numbers.clear();
  add("word ids", pool, {.shard_rows = uneven_shards(120, 3)}, {.pending = {3, 77}, .excluded = {119}});
  add("word ids of fixed length", pool, {.shard_rows = even_shards(120, 2), .chunk_rows = 50, .fixed_text = true},
      {.labelled = {0, 1}});
  pool = random_pool(130, 6, 3, 2, 9);
  round_to(pool, Dtype::f16, Dtype::f32);
  add("float16 embeddings", pool, {.shard_rows = even_shards(130, 3), .x = Dtype::f16, .chunk_rows = 31, .gzip = 1});
  round_to(pool, Dtype::f16, Dtype::f16);
  add("float16 everything", pool, {.x = Dtype::f16, .p = Dtype::f16});
  pool = random_pool(130, 6, 3, 2, 10);
  for (double& value : pool.x) value += 1e-11;  // rounded to float32 on reading
  add("float64", pool, {.shard_rows = even_shards(130, 2), .x = Dtype::f64, .p = Dtype::f64});
  pool = random_pool(130, 4, 4, 2, 11);
  pool.logits = true;
  for (double& value : pool.p) value = 40 * value - 5;
  add("logits", pool, {.p = Dtype::f64});
  pool = random_pool(100, 4, 3, 2, 12);
  for (std::int64_t row = 0; row < 100; ++row) pool.labels.push_back(row % 9 == 4 ? row % 3 : -1 - row % 2);
  add("labels", pool, {.shard_rows = even_shards(100, 2)}, {.pending = {0, 1, 4}});
  cases.push_back({"labels ignored", {.pool = pool, .lists = {.labelled = {2}}, .ignore_labels = true}});
  std::fill(pool.labels.begin(), pool.labels.end(), 1);
  pool.labels[57] = -1;
  add("everything labelled but one", pool);
  add("renamed datasets", random_pool(40, 3, 3, 2, 13), {.embeddings = "train", .probabilities = "softmax"});
  return cases;
}

TEST(Oracle, AwkwardPools) {
  for (const Case& c : awkward_pools()) {
    SCOPED_TRACE(c.name);
    const SharedFolder folder(world());
    const PoolRequest pool = share_scenario(world(), c.scenario, folder);
    for (const std::string& strategy : names()) {
      const View view = view_of(c.scenario);
      const std::int64_t candidates = std::count(view.part.begin(), view.part.end(), Part::candidate);
      for (const std::int64_t batch :
           {std::int64_t{1}, std::max<std::int64_t>(1, candidates / 6), candidates, candidates + 5}) {
        if (batch > 60 && strategy == "facility_location") continue;  // the oracle is cubic
        expect_oracle(c.scenario, pool, request_for(strategy, batch, 7 + static_cast<std::uint64_t>(batch)));
      }
    }
  }
}

// Exact ties everywhere: small integers, directions that float32 holds exactly.
TEST(Oracle, IntendedTies) {
  for (const std::uint64_t seed : {1, 2, 3}) {
    Scenario grid{.pool = grid_pool(110, 2, 4, 2, seed), .storage = {.shard_rows = uneven_shards(110, 4)}};
    Scenario signs{.pool = grid_pool(90, 4, 2, 2, seed + 10)};
    for (double& value : signs.pool.x) value = value > 0 ? 1 : -1;
    for (std::int64_t row = 0; row < 90; row += 7)  // some unit vectors, some zeros
      for (std::int64_t d = 0; d < 4; ++d) signs.pool.x[row * 4 + d] = d == row % 5 ? 2 : 0;
    for (const bool covered : {false, true}) {
      if (covered) {
        grid.lists = {.labelled = {4, 50}, .excluded = {0, 1, 2}};
        signs.lists = {.labelled = {4, 50}, .excluded = {0, 1, 2}};
      }
      const SharedFolder grid_folder(world()), signs_folder(world());
      const PoolRequest grid_files = share_scenario(world(), grid, grid_folder);
      const PoolRequest sign_files = share_scenario(world(), signs, signs_folder);
      for (const char* name : {"k_center", "k_means_pp", "badge", "margin", "least_confidence"})
        expect_oracle(grid, grid_files, request_for(name, 60, seed));
      for (const char* name : {"k_center", "facility_location", "k_means_pp"})
        expect_oracle(signs, sign_files, request_for(name, 40, seed));
    }
  }
}

// Labelled, pending, excluded and candidates in every combination, with labels in the pool and a labelled pool outside
// in every second one; exact and merge.
TEST(Oracle, ListsInEveryCombination) {
  for (int combination = 0; combination < 16; ++combination) {
    Scenario scenario{.pool = random_pool(660, 4, 3, 2, 100), .storage = {.shard_rows = uneven_shards(660, 3)}};
    for (std::int64_t row = 0; row < 660; ++row) {
      if (combination & 1 && row % 31 == 3) scenario.lists.labelled.push_back(row);
      if (combination & 2 && row % 29 == 3) scenario.lists.pending.push_back(row);  // row 3 is in several lists
      if (combination & 4 && row % 7 == 3) scenario.lists.excluded.push_back(row);
      if (combination & 8 && row % 4 != 1) scenario.lists.candidates.push_back(row);
    }
    if (combination % 2 == 0) {
      scenario.labelled_pool = random_pool(9, 4, 3, 2, 101);
      scenario.labelled_pool->labels = {0, 1, 2, 0, 1, 2, 0, 1, 2};
    }
    if (combination % 3 == 0)
      for (std::int64_t row = 0; row < 660; ++row) scenario.pool.labels.push_back(row % 50 == 20 ? row % 3 : -1);
    SCOPED_TRACE("lists " + std::to_string(combination));
    const SharedFolder folder(world());
    const PoolRequest pool = share_scenario(world(), scenario, folder);
    for (const std::string& strategy : names()) {
      const Request request = request_for(strategy, 12, 40 + static_cast<std::uint64_t>(combination));
      expect_oracle(scenario, pool, request);
      if (has_merge(strategy)) expect_oracle(scenario, pool, merged(request, 4, 2));
    }
    Request conditioned = request_for("badge", 12, 40 + static_cast<std::uint64_t>(combination));
    conditioned.set["conditioned"] = "true";
    expect_oracle(scenario, pool, conditioned);
    expect_oracle(scenario, pool, merged(conditioned, 4, 3));
  }
}

TEST(Oracle, Parameters) {
  Scenario scenario{.pool = random_pool(200, 5, 4, 2, 50), .storage = {.shard_rows = even_shards(200, 3)}};
  const SharedFolder folder(world());
  for (const bool covered : {false, true}) {
    if (covered) scenario.lists.labelled = {11, 12, 13};
    const PoolRequest pool = share_scenario(world(), scenario, folder);
    const auto check = [&](const char* strategy, const char* key, const char* value) {
      Request request = request_for(strategy, 15, 3);
      request.set[key] = value;
      expect_oracle(scenario, pool, request);
    };
    for (const char* first : {"smallest_row", "random", "max_norm"}) check("k_center", "first", first);
    if (!covered) check("k_center", "first", "farthest_from_mean");
    for (const char* ground : {"auto", "all", "37", "1", "199"}) check("facility_location", "ground", ground);
    for (const char* noise : {"0.01", "1", "1e-4", "30"}) check("log_det", "noise", noise);
    check("badge", "conditioned", "false");
    check("badge", "conditioned", "true");
    for (const char* name : {"k_center", "k_means_pp", "badge", "log_det", "facility_location"})
      for (const Normalize normalize : {Normalize::none, Normalize::l2}) {
        Request request = request_for(name, 15, 4);
        request.normalize = normalize;
        expect_oracle(scenario, pool, request);
      }
  }
}

TEST(Oracle, ScoreKeepAndPower) {
  Scenario scenario{.pool = random_pool(700, 4, 4, 3, 60), .storage = {.shard_rows = even_shards(700, 2)}};
  for (std::size_t i = 0; i < 12 * 200; ++i) scenario.pool.p[i] = i % 4 == 0 ? 1 : 0;  // 200 rows of score 0
  for (const bool covered : {false, true}) {
    if (covered) scenario.lists = {.labelled = {0, 300, 301, 302}, .excluded = {303, 304, 1}};
    const SharedFolder folder(world());
    const PoolRequest pool = share_scenario(world(), scenario, folder);
    for (const std::string strategy : {"k_center", "k_means_pp", "facility_location", "badge", "log_det"}) {
      for (const char* score : {"entropy", "margin", "bald"}) {
        Request request = request_for(strategy, 11, 8);
        request.score = score;
        request.keep = 3.3;
        expect_oracle(scenario, pool, request);
        request.keep = 1;
        expect_oracle(scenario, pool, request);
        if (strategy == "badge" || strategy == "log_det") continue;
        for (const double power : {1.0, 0.5, 2.5}) {
          request.keep.reset();
          request.score_power = power;
          expect_oracle(scenario, pool, request);
        }
        request.keep = 40;
        request.score_power = 1;
        expect_oracle(scenario, pool, request);
        expect_oracle(scenario, pool, merged(request, 4, 4));
      }
    }
  }
}

// Rows of weight 0 come last, as fillers by row.
TEST(Oracle, WeightsOfZero) {
  std::vector<double> x;
  for (int row = 0; row < 40; ++row) x.push_back(row * row);
  Scenario scenario{.pool = line_pool(x)};
  scenario.pool.classes = 2;
  for (int row = 0; row < 40; ++row) {
    scenario.pool.p.push_back(row % 3 == 0 ? 0.5 : 1);
    scenario.pool.p.push_back(row % 3 == 0 ? 0.5 : 0);
  }
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const char* strategy : {"k_center", "k_means_pp"}) {
    Request request = request_for(strategy, 40, 3);
    request.score = "margin";
    request.score_power = 1;
    const Batch batch = expect_oracle(scenario, pool, request);
    EXPECT_EQ(Rows({batch.selection.rows.end() - 3, batch.selection.rows.end()}), (Rows{35, 37, 38})) << strategy;
  }
}

TEST(Oracle, MergeTrees) {
  Scenario scenario{.pool = random_pool(1500, 3, 3, 2, 80), .storage = {.shard_rows = uneven_shards(1500, 5)}};
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const std::string& strategy : names()) {
    for (const auto& [partitions, fan_in] : {std::pair{16, 8}, {9, 8}, {13, 2}, {64, 5}, {2, 2}, {1, 8}}) {
      const Request request = request_for(strategy, 6, 21);
      expect_oracle(scenario, pool, merged(request, partitions, fan_in));
    }
    expect_oracle(scenario, pool, merged(request_for(strategy, 1, 22), 64, 3));  // 24 runs of rows: leaves are empty
  }
}

// One partition is the exact run.
TEST(Merge, OnePartitionIsExact) {
  Scenario scenario{.pool = random_pool(300, 4, 3, 2, 90)};
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const std::string& strategy : names()) {
    const Request request = request_for(strategy, 80, 3);  // 300 / 2 < 4 * 80, whatever --partitions says
    const Batch exact = select_on(world(), request, pool), merge = select_on(world(), merged(request, 64, 8), pool);
    EXPECT_EQ(exact.selection.rows, merge.selection.rows) << strategy;
    for (std::size_t t = 0; t < 80; ++t)
      EXPECT_TRUE(near(merge.selection.gains[t], exact.selection.gains[t], 0, 0)) << strategy << " pick " << t;
  }
}

TEST(Truncated, AboveTheCandidatesWarns) {
  Scenario scenario{.pool = random_pool(20, 3, 3, 2, 91), .lists = {.excluded = {1, 2}}};
  for (const std::string& strategy : names()) {
    std::vector<std::string> warnings;
    const Batch batch = run(scenario, request_for(strategy, 19), &warnings);
    EXPECT_TRUE(batch.truncated) << strategy;
    EXPECT_EQ(batch.selection.rows.size(), 18u) << strategy;
    EXPECT_EQ(batch.candidates, 18) << strategy;
    EXPECT_EQ(warnings.empty(), !world().is_root()) << strategy;
    warnings.clear();
    EXPECT_FALSE(run(scenario, request_for(strategy, 18), &warnings).truncated) << strategy;
    EXPECT_TRUE(warnings.empty()) << strategy << ": " << (warnings.empty() ? "" : warnings[0]);
  }
}

TEST(Ids, UnknownOnesWarn) {
  const SharedFolder folder(world());
  Scenario scenario{.pool = random_pool(20, 3, 3, 2, 92), .lists = {.labelled = {1}}};
  PoolRequest pool = share_scenario(world(), scenario, folder);
  world().agree([&] {
    if (world().is_root()) write_text(folder.path() + "/labelled.txt", "1\n20\nword\n+7\r\n\n007\n");
  });
  std::vector<std::string> warnings;
  const Batch batch = select_on(world(), request_for("entropy", 30), pool, "cpu", 1, &warnings);
  EXPECT_EQ(batch.candidates, 18);  // 1 and 7
  if (world().is_root()) {
    bool counted = false;
    for (const std::string& line : warnings) counted |= line.find('2') != std::string::npos;
    EXPECT_TRUE(counted);
  }
  pool.strict_ids = true;
  try {
    select_on(world(), request_for("entropy", 3), pool);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Exit::bad_data);
  }
}

// --- Certificates against the best possible batch ---

void each_subset(const Rows& from, std::size_t size, const std::function<void(const Rows&)>& visit) {
  std::vector<bool> in(from.size(), false);
  std::fill(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(size), true);
  do {
    Rows subset;
    for (std::size_t i = 0; i < from.size(); ++i)
      if (in[i]) subset.push_back(from[i]);
    visit(subset);
  } while (std::prev_permutation(in.begin(), in.end()));
}

TEST(Certificates, HoldAgainstBruteForce) {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Scenario scenario{.pool = seed % 3 == 0 ? grid_pool(12, 2, 3, 2, seed) : random_pool(12, 2, 3, 2, seed)};
    if (seed % 2 == 0) scenario.lists.labelled = {static_cast<std::int64_t>(seed % 12)};
    if (seed % 4 >= 2) scenario.lists.excluded = {static_cast<std::int64_t>((seed + 5) % 12)};
    const SharedFolder folder(world());
    const PoolRequest pool = share_scenario(world(), scenario, folder);
    const View view = view_of(scenario);
    Rows open;
    for (std::int64_t row = 0; row < 12; ++row)
      if (view.part[row] == Part::candidate) open.push_back(row);
    for (const std::string strategy : {"k_center", "facility_location", "log_det"}) {
      for (const bool weighted : {false, true}) {
        if (weighted && strategy == "log_det") continue;
        Request request = request_for(strategy, 3, seed);
        if (weighted) {
          request.score = "entropy";
          request.score_power = 1;
        }
        if (strategy == "k_center" && seed % 5 == 0) request.normalize = Normalize::l2;
        SCOPED_TRACE(name_of(request));
        const Batch batch = select_on(world(), request, pool);
        const Batch merge = select_on(world(), merged(request, 3, 2), pool);
        const bool radius = strategy == "k_center";
        double best = radius ? kInfinity : 0;
        each_subset(open, 3, [&](const Rows& subset) {
          const double value = objective(view, request, subset);
          best = radius ? std::min(best, value) : std::max(best, value);
        });
        for (const Batch* b : {&batch, &merge}) {
          const Certificate& c = b->certificate;
          EXPECT_TRUE(near(c.value, objective(view, request, b->selection.rows), 1e-5, 1e-6));
          if (radius) {
            EXPECT_LE(c.bound, best * (1 + 1e-9));
            EXPECT_GE(c.value, c.bound);
          } else {
            EXPECT_GE(c.bound, best * (1 - 1e-6));
            EXPECT_GE(c.bound, c.value);
          }
        }
        if (radius && !weighted) {
          EXPECT_LE(batch.certificate.value, 2 * best * (1 + 1e-5));
          if (scenario.lists.excluded.empty()) {
            EXPECT_LE(batch.certificate.ratio, 2 * (1 + 1e-4));
          }
        }
        if (!radius) {
          EXPECT_GE(batch.certificate.value, (1 - std::exp(-1.0)) * best * (1 - 1e-6));
        }
      }
    }
  }
}

// Above 16,384 rows `auto` measures potential and random on a sample; radius and scores stay exact.
TEST(Certificates, SampleAboveTheLimit) {
  Scenario scenario{.pool = random_pool(17000, 2, 3, 0, 95)};
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  const View view = view_of(scenario);
  Rows sample(17000);
  std::iota(sample.begin(), sample.end(), 0);
  std::stable_sort(sample.begin(), sample.end(), [](std::int64_t i, std::int64_t j) {
    return uniform(5, Purpose("evaluation"), static_cast<std::uint64_t>(i)) <
           uniform(5, Purpose("evaluation"), static_cast<std::uint64_t>(j));
  });
  sample.resize(16384);
  const auto potential = [&](const Rows& batch) {
    double sum = 0;
    for (const std::int64_t row : sample) {
      double best = kInfinity;
      for (const std::int64_t pick : batch)
        best = std::min(best, std::pow(view.x[row * 2] - double{view.x[pick * 2]}, 2) +
                                  std::pow(view.x[row * 2 + 1] - double{view.x[pick * 2 + 1]}, 2));
      sum += best;
    }
    return sum / 16384;
  };
  Request request = request_for("k_means_pp", 10, 5);
  const Batch batch = select_on(world(), request, pool);
  double random = 0;
  for (std::uint64_t s = 6; s <= 10; ++s) random += potential(expected_random(view, s, 10)) / 5;
  EXPECT_EQ(batch.certificate.rows, 16384);
  EXPECT_TRUE(near(batch.certificate.value, potential(batch.selection.rows), 1e-6, 0));
  EXPECT_TRUE(near(batch.certificate.random, random, 1e-6, 0));
  request.certificate = CertificateMode::full;
  const Batch full = select_on(world(), request, pool);
  EXPECT_EQ(full.selection.rows, batch.selection.rows);
  EXPECT_EQ(full.certificate.rows, 17000);
  EXPECT_TRUE(near(full.certificate.value, objective(view, request, full.selection.rows), 1e-6, 0));
  request.strategy = "k_center";
  request.certificate = CertificateMode::automatic;
  const Batch centers = select_on(world(), request, pool);
  EXPECT_EQ(centers.certificate.rows, 17000);
  EXPECT_TRUE(near(centers.certificate.value, objective(view, request, centers.selection.rows), 1e-6, 0));
}

TEST(Certificates, Off) {
  Scenario scenario{.pool = random_pool(50, 3, 3, 2, 96)};
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const std::string& strategy : names()) {
    Request request = request_for(strategy, 6);
    const Batch with = select_on(world(), request, pool);
    request.certificate = CertificateMode::off;
    const Batch without = select_on(world(), request, pool);
    EXPECT_EQ(with.selection.rows, without.selection.rows) << strategy;
    EXPECT_TRUE(std::isnan(without.certificate.value)) << strategy;
  }
}

}  // namespace
}  // namespace seine::test
