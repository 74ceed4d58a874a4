#include "seine/inspection.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "pools.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

Inspection inspected(const TestPool& pool, const Storage& storage = {}) {
  const SharedFolder folder(world());
  Inspection inspection = inspect(share_scenario(world(), {.pool = pool, .storage = storage}, folder), world(), {});
  for (std::string& fault : inspection.faults)
    for (std::size_t at; (at = fault.find(folder.path() + "/")) != std::string::npos;)
      fault.erase(at, folder.path().size() + 1);
  return inspection;
}

TEST(Inspection, SaysWhatIsInThePool) {
  TestPool pool = line_pool({3, -4, 0, 1});
  pool.classes = 2;
  pool.p = {0.5, 0.5, 0.25, 0.75, 1, 0, 0, 1};
  pool.labels = {-1, 0, 1, -1};
  const Inspection inspection = inspected(pool, {.shard_rows = {1, 3}});
  EXPECT_EQ(inspection.faults, std::vector<std::string>{});
  const nlohmann::json json = nlohmann::json::parse(inspection.to_json());
  std::vector<std::string> keys;
  for (const auto& [key, value] : json.items()) keys.push_back(key);
  EXPECT_EQ(keys, (std::vector<std::string>{"class_histogram", "classes", "dim", "faults", "files", "ids", "labelled",
                                            "norms", "passes", "rows", "types"}));
  EXPECT_EQ(json["rows"], 4);
  EXPECT_EQ(json["files"].size(), 2U);
  EXPECT_EQ(json["dim"], 1);
  EXPECT_EQ(json["classes"], 2);
  EXPECT_EQ(json["labelled"], 2);
  EXPECT_EQ(json["ids"], "row number");
  EXPECT_EQ(json["types"]["embeddings"], "float32");
  EXPECT_EQ(json["norms"], nlohmann::json::parse(R"({"min": 0.0, "mean": 2.0, "max": 4.0, "zero": 1})"));
  EXPECT_EQ(json["class_histogram"], nlohmann::json::parse("[2, 2]"));
}

TEST(Inspection, ReferenceClassesMakeTheHistogram) {
  TestPool pool = line_pool({1, 2, 3});
  pool.reference_classes = {4, 0, 4};
  EXPECT_EQ(inspected(pool).class_histogram, (std::vector<std::int64_t>{1, 0, 0, 0, 2}));
}

// Faults far apart, in runs of different ranks, in the order of the rows; the other rows still count.
TEST(Inspection, CollectsFaultsInOrderOfTheRows) {
  std::vector<double> x(2000, 1);
  x[1700] = x[3] = std::numeric_limits<double>::quiet_NaN();
  TestPool pool = line_pool(x);
  pool.classes = 2;
  pool.p.assign(4000, 0.5);
  pool.p[2 * 900] = 0.75;
  for (std::int64_t row = 0; row < 2000; ++row) pool.numbers.push_back(row == 1000 ? 5 : row);
  const Inspection inspection = inspected(pool, {.shard_rows = {901, 1099}, .name = "s"});
  const std::vector<std::string> expected{
      "row 3, column 0: expected a number that is finite, found nan",
      "row 900: expected a sum of 1 within 0.001, found 1.25",
      "row 99: expected unique ids, found \"5\" again",
      "row 799, column 0: expected a number that is finite, found nan",
  };
  ASSERT_EQ(inspection.faults.size(), expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NE(inspection.faults[i].find(expected[i]), std::string::npos) << inspection.faults[i];
  EXPECT_EQ(inspection.mean_norm, 1);
}

TEST(Inspection, ListsAtMostTwentyFaults) {
  const Inspection inspection = inspected(line_pool(std::vector<double>(700, std::numeric_limits<double>::infinity())));
  ASSERT_EQ(inspection.faults.size(), 20U);
  EXPECT_NE(inspection.faults[19].find("row 19,"), std::string::npos);
}

TEST(Inspection, NeedsSomethingToSelectBy) {
  const SharedFolder folder(world());
  PoolRequest request = share_scenario(world(), {.pool = line_pool({1, 2})}, folder);
  request.names.ids = "embeddings";  // a matrix
  const Inspection inspection = inspect(request, world(), {});
  ASSERT_EQ(inspection.faults.size(), 1U);
  EXPECT_NE(inspection.faults[0].find("expected [N] of integers"), std::string::npos) << inspection.faults[0];
  request.pool = {folder.path() + "/gone.h5"};
  EXPECT_THROW(inspect(request, world(), {}), Error);
}

}  // namespace
}  // namespace seine::test
