#include "seine/plan.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "errors.hpp"
#include "pools.hpp"
#include "process_memory.hpp"
#include "reading/loader.hpp"
#include "seine/bytes.hpp"
#include "seine/calibration.hpp"
#include "seine/input.hpp"
#include "seine/strategy.hpp"
#include "seine/synthesis.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

PoolShape shape_of(std::int64_t rows, std::int64_t dim, std::int64_t classes = 10, std::int64_t passes = 2) {
  PoolShape shape;
  shape.rows = rows;
  shape.dim = dim;
  shape.classes = classes;
  shape.passes = passes;
  shape.ids = true;
  shape.embeddings_type = shape.probabilities_type = "float32";
  return shape;
}

Request request_of(std::string_view name, std::int64_t batch = 1000) {
  Request request;
  request.strategy = name;
  request.batch = batch;
  request.pool.threads = 2;
  return request;
}

void expect_ordered(const Range& range) {
  EXPECT_GE(range.low, 0);
  EXPECT_LE(range.low, range.likely);
  EXPECT_LE(range.likely, range.high);
  EXPECT_TRUE(std::isfinite(range.high));
}

class EveryStrategy : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Plan, EveryStrategy, testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const Entry& entry : strategies()) names.emplace_back(entry.name);
                           return names;
                         }()));

TEST_P(EveryStrategy, SaysWhatItsWorkIs) {
  const Plan planned = plan(shape_of(100000, 64), request_of(GetParam()), 2, {});
  EXPECT_TRUE(planned.possible);
  EXPECT_TRUE(planned.resident);
  for (const Range& range : {planned.bytes_read, planned.rounds, planned.start, planned.read, planned.select,
                             planned.certificate, planned.write, planned.seconds(), planned.processor_seconds})
    expect_ordered(range);
  EXPECT_GT(planned.bytes_read.likely, 0);
  EXPECT_GT(planned.select.likely, 0);
}

TEST_P(EveryStrategy, TakesMoreOfMoreRowsAndLessOnMoreRanks) {
  Request request = request_of(GetParam());
  if (GetParam() == "facility_location") request.set["ground"] = "all";  // else fewer in a very large pool
  Plan before = plan(shape_of(50000, 32), request, 1, {});
  for (const std::int64_t rows : {100000, 200000, 400000}) {
    const Plan now = plan(shape_of(rows, 32), request, 1, {});
    EXPECT_GT(now.memory_bytes, before.memory_bytes) << rows;
    EXPECT_GT(now.bytes_read.likely, before.bytes_read.likely) << rows;
    EXPECT_GT((now.read + now.select).likely, (before.read + before.select).likely) << rows;
    before = now;
  }
  for (const int ranks : {4, 8, 16}) {
    const Plan now = plan(shape_of(400000, 32), request, ranks, {});
    EXPECT_LT(now.rows_per_rank, before.rows_per_rank) << ranks;
    EXPECT_LE(now.memory_bytes, before.memory_bytes) << ranks;
    before = now;
  }
}

TEST_P(EveryStrategy, TakesMoreOfWiderRowsWhereItReadsThem) {
  const Request request = request_of(GetParam());
  const Plan narrow = plan(shape_of(100000, 32), request, 1, {}), wide = plan(shape_of(100000, 256), request, 1, {});
  if (strategy(GetParam()).needs.embeddings) {
    EXPECT_GE(wide.memory_bytes, narrow.memory_bytes + 100000 * 224 * 4);
    EXPECT_GT(wide.select.likely, narrow.select.likely);
  } else {
    EXPECT_EQ(wide.memory_bytes, narrow.memory_bytes);
  }
}

TEST_P(EveryStrategy, MergesAndPrefiltersTakeSomethingToo) {
  Request request = request_of(GetParam());
  request.reduce = Reduce::merge;
  const Plan merged = plan(shape_of(1000000, 64), request, 4, {});
  expect_ordered(merged.seconds());
  EXPECT_GT(merged.select.likely, 0);
  if (strategy(GetParam()).score) return;
  request.reduce = Reduce::exact;
  request.score = "entropy";
  request.keep = 10;
  const Plan kept = plan(shape_of(1000000, 64), request, 4, {});
  expect_ordered(kept.seconds());
  request.score.reset();
  request.keep.reset();
  EXPECT_LE(kept.rounds.likely, plan(shape_of(1000000, 64), request, 4, {}).rounds.likely);
}

TEST(Plan, ABatchOfMoreThanAllRows) {
  for (const Entry& entry : strategies())
    expect_ordered(plan(shape_of(10, 4), request_of(entry.name, 1000000000), 3, {}).seconds());
}

// 100 picks and 100000 rows, of which 65536 at a time.
TEST(Plan, PicksAreComparedOnTheProcessorOnly) {
  Request request = request_of("k_center", 100);
  const Entry& entry = strategy(request.strategy);
  const PoolShape shape = shape_of(100000, 32);
  EXPECT_EQ(wanted_by(request, entry, shape).state.beside, 100 * 100 * 4 + 65536 * 26);
  request.pool.device = "cuda";
  EXPECT_EQ(wanted_by(request, entry, shape).state.beside, 0);
}

TEST(Plan, WhatDoesNotFitIsStreamed) {
  Request request = request_of("k_center");
  const PoolShape shape = shape_of(1000000, 256);
  const Plan resident = plan(shape, request, 1, {});
  request.pool.memory_gib = 0.5;
  const Plan streamed = plan(shape, request, 1, {});
  EXPECT_TRUE(resident.resident);
  EXPECT_GT(static_cast<double>(resident.memory_bytes), 0.5 * kGiB);
  EXPECT_FALSE(streamed.resident);
  EXPECT_TRUE(streamed.possible);
  EXPECT_LE(static_cast<double>(streamed.memory_bytes), 0.5 * kGiB);
  EXPECT_EQ(streamed.resident_bytes, resident.memory_bytes);
  EXPECT_GT(streamed.bytes_read.likely, resident.bytes_read.likely);
  EXPECT_GT(streamed.select.likely, resident.select.likely);
}

TEST(Plan, OnAGpuVectorsAreThere) {
  Request request = request_of("k_center");
  const PoolShape shape = shape_of(1000000, 256);
  const Plan without = plan(shape, request, 1, {});
  EXPECT_EQ(without.device_bytes, 0);
  request.pool.device = "cuda";
  const Plan unknown = plan(shape, request, 1, {});
  EXPECT_TRUE(unknown.resident);
  EXPECT_LT(unknown.memory_bytes, without.memory_bytes - 400000000) << "vectors are not on the host";
  EXPECT_GT(unknown.device_bytes, 1000000 * 256 * 4);
  request.pool.device_gib = 0.5;
  const Plan streamed = plan(shape, request, 1, {});
  EXPECT_FALSE(streamed.resident);
  EXPECT_TRUE(streamed.possible);
  EXPECT_LE(static_cast<double>(streamed.device_bytes), 0.5 * kGiB);
  EXPECT_EQ(streamed.device_resident_bytes, unknown.device_bytes);
  EXPECT_GT(streamed.memory_bytes, unknown.memory_bytes) << "what streams goes through the host";
  EXPECT_EQ(streamed.resident_bytes, unknown.resident_bytes);
  request.pool.device_gib = 4;
  EXPECT_TRUE(plan(shape, request, 1, {}).resident);
  request.pool.memory_gib = 0.9;
  EXPECT_FALSE(plan(shape, request, 1, {}).resident) << "--memory is for both";
  request.pool.device_gib = 0.01;
  const Plan refused = plan(shape, request, 1, {});
  EXPECT_FALSE(refused.possible);
  EXPECT_NE(refused.obstacle.find("of a GPU"), std::string::npos) << refused.obstacle;
}

// Blocks are whole tiles of 256 rows, so wide rows make them larger.
TEST(Plan, CountsBlocksOnTheirWayToAGpu) {
  const Request request = request_of("k_center");
  const auto staged = [&](std::int64_t dim) {
    const PoolShape shape = shape_of(100000, dim);
    const MemoryNeed need = memory_need(shape, shape.rows, wanted_by(request, strategy(request.strategy), shape));
    return on_host(need).loading - need.loading;
  };
  EXPECT_EQ(staged(64), 2 * 16 * kMiB);
  EXPECT_EQ(staged(2048), 2 * 16 * 256 * (2048 * 4 + 16)) << "a row, its id and its label";
}

TEST(Plan, SaysWhatCannotBeDoneAndWhatWouldDo) {
  Request request = request_of("k_means_pp");
  const PoolShape shape = shape_of(100000000, 256);
  request.pool.memory_gib = 1;
  const Plan refused = plan(shape, request, 4, {});
  EXPECT_FALSE(refused.possible);
  EXPECT_NE(refused.obstacle.find("--ranks 16 or --memory"), std::string::npos) << refused.obstacle;
  EXPECT_FALSE(plan(shape, request, 8, {}).possible);
  EXPECT_TRUE(plan(shape, request, 16, {}).possible);
  request.pool.memory_gib = in_gib(refused.least_bytes) + 0.001;
  EXPECT_TRUE(plan(shape, request, 4, {}).possible);
}

// Chunks are inflated before anything is selected, so the larger of both counts.
TEST(Plan, CountsChunks) {
  const Request request = request_of("k_center");
  PoolShape shape = shape_of(100000, 64);
  const std::int64_t without = plan(shape, request, 1, {}).least_bytes;
  shape.chunks = {std::int64_t{32} << 20, std::int64_t{32} << 20, std::int64_t{32} << 20};
  const MemoryNeed need = memory_need(shape, shape.rows, wanted_by(request, strategy(request.strategy), shape));
  EXPECT_GE(need.loading, shape.chunks.least());
  EXPECT_GT(plan(shape, request, 1, {}).least_bytes, without + (std::int64_t{40} << 20));
  shape.chunks = {1000, 1000, 1000};
  EXPECT_EQ(plan(shape, request, 1, {}).least_bytes, without) << "no more than is selected in";
}

TEST(Plan, CountsLabelledRowsOfAnotherPool) {
  Request request = request_of("k_center");
  const PoolShape shape = shape_of(100000, 64), few = shape_of(1000, 64), many = shape_of(1000000, 64);
  const std::int64_t without = plan(shape, request, 1, {}).least_bytes;
  const std::int64_t with_few = plan(shape, request, 1, {}, &few).least_bytes,
                     with_many = plan(shape, request, 1, {}, &many).least_bytes;
  EXPECT_GT(with_few, without);
  EXPECT_GT(with_many, with_few + 1000000 * 40) << "what is known of every row";
  EXPECT_LT(with_many, with_few + 1000000 * 64 * 4) << "their vectors are streamed";
  EXPECT_GT(plan(shape, request, 1, {}, &many).resident_bytes, 1000000 * 64 * 4);
}

// At the bound of what fits, the loader does what the plan says: in the memory of the host, and in that of a device.
TEST(Plan, TheLoaderAgrees) {
  const SharedFolder folder(world());
  SynthesisRequest synthesis;
  synthesis.rows = 65536;
  synthesis.dim = 96;
  synthesis.out = folder.path();
  synthesise(synthesis, world(), {});
  Request request = request_of("k_center", 100);
  request.pool.pool = {folder.path() + "/part-00000.h5"};
  const Entry& entry = strategy(request.strategy);
  std::string why;
  const auto backend = make_backend("cpu", {.threads = 2, .local_rank = 0}, why);
  const OpenedPool opened = open_pool(world(), request.pool, needs_of(request, entry), {});
  const PoolShape& shape = opened.files.shape();
  const Wanted wanted = wanted_by(request, entry, shape);
  const MemoryNeed need = memory_need(shape, opened.own.own(), wanted);
  const std::int64_t process = process_bytes(world().size(), wanted.threads) + 2 * opened.own.own();
  constexpr double kMargin = 3 << 20;
  for (const double beside : {-kMargin, kMargin}) {
    const double in_use = world().max(static_cast<double>(resident_bytes()));
    const double most = world().max(static_cast<double>(need.most()));
    PoolRequest with_memory;
    with_memory.memory_gib = (in_use + most + beside) / kGiB;
    const Loaded loaded = load(world(), *backend, opened, wanted, with_memory, nullptr);
    EXPECT_EQ(loaded.pool.store().resident(), beside > 0);
    request.pool.memory_gib = (static_cast<double>(process) + most + beside) / kGiB;
    EXPECT_EQ(plan(shape, request, world().size(), {}).resident, beside > 0);

    const double on_gpu = world().max(static_cast<double>(on_device(need).most()));
    with_memory.memory_gib = request.pool.memory_gib = 8;
    with_memory.device_gib = (on_gpu + beside) / kGiB;
    const Memory memory = memory_for(world(), need, with_memory);
    EXPECT_EQ(memory.streams, beside < 0);
    EXPECT_NE(memory.room, memory.host);
    EXPECT_LT(memory.room->left(), std::int64_t{1} << 30);
    EXPECT_GT(memory.host->left(), std::int64_t{6} << 30);
    EXPECT_EQ(load(world(), *backend, opened, wanted, memory, nullptr).pool.store().resident(), beside > 0);
    Request planned = request;
    planned.pool.device_gib = with_memory.device_gib;
    EXPECT_EQ(plan(shape, planned, world().size(), {}).resident, beside > 0);
  }
  PoolRequest little;
  little.memory_gib = 8;
  little.device_gib = 0.001;
  expect_error(Exit::system, "of a GPU", [&] { memory_for(world(), need, little); });
}

TEST(Machine, ConstantsAreKeptInAFile) {
  if (!world().is_root()) return;
  const std::filesystem::path folder =
      std::filesystem::temp_directory_path() / ("seine_plan_test_" + std::to_string(getpid()));
  const std::string path = folder / "deeper" / "machine.json";
  EXPECT_EQ(load_machine(path).origin, "built in");
  Machine machine;
  machine.pick = 1.25e-5;
  machine.distance = {3.5e-9, 0};
  store_machine(path, machine);
  const Machine back = load_machine(path);
  EXPECT_EQ(back.origin, path);
  EXPECT_EQ(back.pick, 1.25e-5);
  EXPECT_EQ(back.distance.each, 3.5e-9);
  EXPECT_EQ(back.distance.value, 0);
  EXPECT_EQ(back.scanned_row, Machine().scanned_row);
  std::filesystem::remove_all(folder);

  EXPECT_EQ(machine_from_json(R"({"format": "seine-machine", "pick": 2})", "m").pick, 2);
  for (const char* text : {"", "[]", "{}", "{\"format\": 1}", R"({"format": "seine-machine", "pick": -1})",
                           R"({"format": "seine-machine", "pick": "fast"})"})
    expect_error(Exit::bad_data, "m: ", [&] { machine_from_json(text, "m"); });
}

TEST(Machine, IsMeasured) {
  if (world().size() > 1) GTEST_SKIP() << "measures one rank alone";
  const Machine machine = calibrate({});
  for (const double seconds : {machine.start,
                               machine.stored_byte,
                               machine.cached_byte,
                               machine.fetched_byte,
                               machine.fetched_row,
                               machine.identified_row,
                               machine.residual_value,
                               machine.bounded_value,
                               machine.scored_value,
                               machine.distance.of(64),
                               machine.screened_distance.of(64),
                               machine.product.of(64),
                               machine.similarity.of(64),
                               machine.moment,
                               machine.scanned_row,
                               machine.sifted_row,
                               machine.pick,
                               machine.raced_row,
                               machine.close_pick.of(64),
                               machine.drawn_row}) {
    EXPECT_GT(seconds, 0);
    EXPECT_TRUE(std::isfinite(seconds));
  }
}

}  // namespace
}  // namespace seine::test
