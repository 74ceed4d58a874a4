// Black box: whole runs on a device with memory of its own, which the plug-in of fake_device.cpp stands in for where
// there is no GPU. SEINE_BIN is a copy of the executable that has it beside itself. What the CPU gives, to the bit; and
// what a run takes of the device is what it was given, and what the plan said.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/plugin.hpp"
#include "launching.hpp"
#include "pools.hpp"
#include "seine/bytes.hpp"
#include "seine/strategy.hpp"

namespace seine::test {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kKept = static_cast<std::int64_t>(kGiB) / 2;  // of a device: no run is given it
const std::string kOpen = "SEINE_FAKE_OPEN=1";
const std::string kNoDevice = "the fake has no device for this rank";

std::string free_bytes(std::int64_t bytes) {
  return "SEINE_FAKE_FREE=" + std::to_string(bytes);
}

// Rows in three files, with all that a strategy may need.
class Pool {
 public:
  Pool(std::int64_t rows, std::int64_t dim, Dtype type) {
    TestPool content = random_pool(rows, dim, 4, 2, 11);
    round_to(content, type, Dtype::f32);
    add_number_ids(content);
    paths_ = write_pool(content, {.shard_rows = even_shards(rows, 3), .x = type}, folder_.path());
  }

  Words words(const Words& command, const std::string& device, const Words& more = {}) const {
    Words all = command;
    append(all, {"--device", device, "--threads", "1"});
    append(all, more);
    all.emplace_back("--pool");
    append(all, paths_);
    return all;
  }

 private:
  Folder folder_;
  Words paths_;
};

// What a run is: the command, but for device, pool and outputs.
Words selecting(std::string_view strategy, std::int64_t batch, const Words& more = {}) {
  Words words{"select", "--strategy", std::string(strategy), "--batch", std::to_string(batch)};
  append(words, more);
  return words;
}

std::string digest_on_cpu(const Pool& pool, const Words& run) {
  const Folder folder;
  return launch(0, pool.words(run, "cpu", {"--out", folder / "batch.h5"})).digest();
}

// One that must fail: nothing is written, and one line says why.
void expect_fault(int ranks, const Words& words, const Words& variables, int code, const Words& mentions) {
  const Folder folder;
  Words all = words;
  append(all, {"--out", folder / "batch.h5"});
  const Ended ended = launch(ranks, all, kLimitSeconds, variables);
  SCOPED_TRACE(ended.err);
  EXPECT_FALSE(ended.hung);
  EXPECT_EQ(ended.code, code);
  EXPECT_EQ(ended.out, "");
  const Words errors = ended.error_lines();
  ASSERT_EQ(errors.size(), 1u);
  for (const std::string& mention : mentions) EXPECT_NE(errors[0].find(mention), std::string::npos) << mention;
  EXPECT_TRUE(folder.names().empty()) << testing::PrintToString(folder.names());
}

// --- What a plan says of the device, and what a run takes of it ---

struct Planned {
  bool resident;
  std::int64_t bytes, resident_bytes, least_bytes;
};

Planned plan(const Pool& pool, Words run, int ranks, const Words& variables) {
  run[0] = "plan";
  const Ended ended =
      launch(0, pool.words(run, "cuda", {"--json", "--ranks", std::to_string(ranks)}), kLimitSeconds, variables);
  EXPECT_EQ(ended.code, 0) << ended.err;
  const auto json = nlohmann::json::parse(ended.out);
  return {json["resident"], json["device_memory_bytes"], json["device_resident_memory_bytes"],
          json["device_least_memory_bytes"]};
}

// So many bytes free that rows stream, where there are vectors, with a part of the room that they would need to stay.
std::int64_t little_memory(const Pool& pool, const Words& run, int ranks) {
  const Planned planned = plan(pool, run, ranks, {});
  EXPECT_GE(planned.resident_bytes, planned.least_bytes);
  return kKept + planned.least_bytes + (planned.resident_bytes - planned.least_bytes) / 4;
}

// The most bytes that a rank took: in all, and without what loops take for a moment.
struct Peak {
  std::int64_t taken = 0, with_scratch = 0;
};

struct Taken {
  Ended ended;
  std::vector<Peak> peaks;  // of each rank
};

Taken run_on_device(const Pool& pool, const Words& run, int ranks, Words variables) {
  const Folder folder;
  variables.push_back("SEINE_FAKE_PEAK=" + folder / "peak");
  constexpr double kMostSeconds = 100;  // large batches without optimisation
  Words more;
  if (run[0] == "select") more = {"--out", folder / "batch.h5"};
  Taken taken{launch(ranks, pool.words(run, "auto", more), kMostSeconds, variables), {}};
  for (int rank = 0; rank < ranks; ++rank) {
    Peak peak;
    std::ifstream(folder / ("peak." + std::to_string(rank))) >> peak.taken >> peak.with_scratch;
    taken.peaks.push_back(peak);
  }
  return taken;
}

// --- Batches ---

class EveryStrategy : public testing::TestWithParam<std::string> {
 protected:
  const Pool pool_{4000, 40, Dtype::f32};
  const Words run_ = selecting(GetParam(), 25);
};

TEST_P(EveryStrategy, PicksWhatTheCpuDoes) {
  const std::string want = digest_on_cpu(pool_, run_);
  ASSERT_TRUE(want.starts_with("digest="));
  std::vector<std::function<void()>> tasks;
  for (const int ranks : {1, 2, 3})
    tasks.push_back([&, ranks] {
      const Taken got = run_on_device(pool_, run_, ranks, {});
      SCOPED_TRACE(std::to_string(ranks) + " ranks\n" + got.ended.err);
      EXPECT_EQ(got.ended.code, 0);
      EXPECT_EQ(got.ended.digest(), want);
      EXPECT_EQ(got.ended.lines_with("device cuda: fake device 0, which auto prefers").size(), 1u);
      for (const Peak& peak : got.peaks) EXPECT_GT(peak.taken, 0);
    });
  at_once(tasks);
}

TEST_P(EveryStrategy, PicksTheSameWhereRowsDoNotFit) {
  const std::string want = digest_on_cpu(pool_, run_);
  ASSERT_TRUE(want.starts_with("digest="));
  const bool has_vectors = strategy(GetParam()).needs.embeddings;
  std::vector<std::function<void()>> tasks;
  for (const int ranks : {1, 3})
    tasks.push_back([&, ranks] {
      const std::int64_t free = little_memory(pool_, run_, ranks);
      const Taken got = run_on_device(pool_, run_, ranks, {free_bytes(free)});
      SCOPED_TRACE(std::to_string(ranks) + " ranks\n" + got.ended.err);
      EXPECT_EQ(got.ended.code, 0);
      EXPECT_EQ(got.ended.digest(), want);
      EXPECT_EQ(got.ended.lines_with("do not fit the GPU").size(), has_vectors ? 1u : 0u);
      for (const Peak& peak : got.peaks) EXPECT_LE(peak.taken, free - kKept);
    });
  at_once(tasks);
}

std::vector<std::string> names_of_strategies() {
  std::vector<std::string> names;
  for (const Entry& entry : strategies()) names.emplace_back(entry.name);
  return names;
}
INSTANTIATE_TEST_SUITE_P(Device, EveryStrategy, testing::ValuesIn(names_of_strategies()),
                         [](const auto& test) { return test.param; });

TEST(Sharing, RanksOfOneDeviceHaveAPartEach) {
  const Pool pool(4000, 40, Dtype::f32);
  const Words run = selecting("k_center", 25);
  const std::int64_t free = 2 * little_memory(pool, run, 2);
  const Taken got = run_on_device(pool, run, 2, {"SEINE_FAKE_SHARED=1", free_bytes(free)});
  SCOPED_TRACE(got.ended.err);
  EXPECT_EQ(got.ended.digest(), digest_on_cpu(pool, run));
  EXPECT_EQ(got.ended.lines_with("for each of 2 ranks").size(), 1u);
  EXPECT_EQ(got.ended.lines_with("do not fit the GPU").size(), 1u);
  for (const Peak& peak : got.peaks) EXPECT_LE(peak.taken, free / 2 - kKept);
}

// --- auto, where not all ranks have a device that is of use ---

struct Lack {
  std::string variable, rank, reason;
};

const Lack kLacks[] = {
    {"SEINE_FAKE_NONE=1", "rank 1 of 3", kNoDevice},
    {"SEINE_FAKE_NONE=0", "rank 0 of 3", kNoDevice},
    {free_bytes(kKept), "rank 0 of 3", "of its GPU are free for"},
};

// Runs a command where something lacks: what is on standard output, and what is written, are those of the CPU.
void expect_cpu(const Pool& pool, const Words& command, const std::string& out) {
  const auto run = [&](const Folder& folder, int ranks, const std::string& device, const Words& variables) {
    Words more;
    if (!out.empty()) more = {"--out", folder / out};
    Ended ended = launch(ranks, pool.words(command, device, more), kLimitSeconds, variables);
    for (std::size_t at; (at = ended.out.find(folder.path())) != std::string::npos;)
      ended.out.erase(at, folder.path().size());
    return ended;
  };
  const Folder of_cpu;
  const Ended want = run(of_cpu, 0, "cpu", {});
  ASSERT_EQ(want.code, 0) << want.err;
  std::vector<std::function<void()>> tasks;
  for (const Lack& lack : kLacks)
    tasks.push_back([&] {
      const Folder folder;
      const Ended got = run(folder, 3, "auto", {lack.variable});
      SCOPED_TRACE(command[0] + ", " + lack.variable + "\n" + got.err);
      EXPECT_FALSE(got.hung);
      EXPECT_EQ(got.code, 0);
      EXPECT_EQ(got.out, want.out);
      EXPECT_EQ(folder.names(), of_cpu.names());
      const Words lines = got.lines_with("seine: device ");
      ASSERT_EQ(lines.size(), 1u);
      for (const std::string& part : {std::string("seine: device cpu: "), lack.rank, lack.reason})
        EXPECT_NE(lines[0].find(part), std::string::npos) << part;
    });
  at_once(tasks);
}

TEST(Lacking, AutoTakesTheCpuOnAllRanks) {
  const Pool pool(900, 12, Dtype::f32);
  const Folder folder;
  const std::string picked = folder / "picked.h5";
  ASSERT_EQ(launch(0, pool.words(selecting("k_center", 10), "cpu", {"--out", picked})).code, 0);
  expect_cpu(pool, selecting("k_center", 10), "batch.h5");
  expect_cpu(pool, selecting("facility_location", 10), "batch.h5");
  expect_cpu(pool, {"score", "--strategy", "entropy"}, "scores");
  expect_cpu(pool, {"evaluate", "--picked", picked}, "table.json");
  expect_cpu(pool, {"inspect"}, "");
}

TEST(Lacking, CudaIsAnErrorOfAllRanks) {
  const Pool pool(900, 12, Dtype::f32);
  const Words words = pool.words(selecting("k_center", 10), "cuda");
  std::vector<std::function<void()>> tasks;
  for (const char* none : {"0", "1", "012"})
    tasks.push_back([&, none] {
      expect_fault(3, words, {std::string("SEINE_FAKE_NONE=") + none}, 69, {"--device cuda", kNoDevice});
    });
  for (const std::int64_t more : {0, 1000})
    tasks.push_back([&, more] {
      expect_fault(3, words, {free_bytes(kKept + more)}, 71,
                   {"a rank needs at least 0.00", "GiB of a GPU", "has 0.000", "use more GPUs, or --device cpu"});
    });
  at_once(tasks);
}

// --- Memory ---

struct Demand {
  std::string name;
  std::int64_t rows, dim;
  Dtype type;
  Words run;
  bool streams;
  std::int64_t room = 1024;  // beside what all rows in memory need; of those that stream it is little
};
void PrintTo(const Demand& demand, std::ostream* out) {
  *out << demand.name;
}

class Memory : public testing::TestWithParam<Demand> {};

// Of what the backend took for good, and of all with what its loops took for a moment.
TEST_P(Memory, IsWhatWasGivenAndPlanned) {
  const Demand& demand = GetParam();
  const Pool pool(demand.rows, demand.dim, demand.type);
  std::vector<std::function<void()>> tasks;
  for (const int ranks : {1, 2})
    tasks.push_back([&, ranks] {
      const std::int64_t resident = plan(pool, demand.run, ranks, {}).resident_bytes;
      const std::int64_t free =
          demand.streams ? little_memory(pool, demand.run, ranks) : kKept + resident + demand.room;
      const Planned planned = plan(pool, demand.run, ranks, {free_bytes(free)});
      EXPECT_EQ(planned.resident, !demand.streams);
      EXPECT_LE(planned.bytes, free - kKept);
      const Taken got = run_on_device(pool, demand.run, ranks, {free_bytes(free), kOpen});
      SCOPED_TRACE(std::to_string(ranks) + " ranks\n" + got.ended.err);
      EXPECT_EQ(got.ended.code, 0);
      EXPECT_EQ(got.ended.lines_with("do not fit the GPU").size(), demand.streams ? 1u : 0u);
      const std::int64_t row_bytes = demand.dim * (demand.type == Dtype::f16 ? 2 : 4);
      for (const Peak& peak : got.peaks) {
        EXPECT_LE(peak.taken, planned.bytes);
        EXPECT_LE(peak.with_scratch, free);
        if (!demand.streams) {
          EXPECT_GT(peak.taken, demand.rows / 2 / ranks * row_bytes);
        }
      }
    });
  at_once(tasks);
}

// Batches are large: picks are as many bytes as rows, and more where they are widened. Facility location keeps lists
// where there is room.
const Words kAll{"--set", "ground=all"};
INSTANTIATE_TEST_SUITE_P(
    Device, Memory,
    testing::Values(Demand{"KCenter", 4600, 128, Dtype::f16, selecting("k_center", 4500), false},
                    Demand{"KCenterStreamed", 4000, 128, Dtype::f16, selecting("k_center", 600), true},
                    Demand{"Badge", 4600, 128, Dtype::f16, selecting("badge", 4500), false},
                    Demand{"BadgeStreamed", 4000, 128, Dtype::f16, selecting("badge", 300), true},
                    Demand{"FacilityLocation", 2000, 64, Dtype::f32, selecting("facility_location", 50, kAll), false},
                    Demand{"FacilityLocationWithLists", 2000, 32, Dtype::f32, selecting("facility_location", 50, kAll),
                           false, 2 << 20},
                    Demand{"FacilityLocationStreamed", 3000, 64, Dtype::f32, selecting("facility_location", 50, kAll),
                           true}),
    [](const auto& test) { return test.param.name; });

// Of a batch that is nearly the pool, and larger than what commands without a plan may take unmeasured.
TEST(Evaluation, TakesWhatItWasGiven) {
  const Pool pool(2000, 1200, Dtype::f32);
  const Folder folder;
  const std::string picked = folder / "picked.h5";
  ASSERT_EQ(launch(0, pool.words(selecting("random", 1950), "cpu", {"--out", picked})).code, 0);
  const Words run{"evaluate", "--picked", picked, "--random", "0"};
  const Ended want = launch(0, pool.words(run, "cpu"));
  ASSERT_EQ(want.code, 0) << want.err;
  std::vector<std::function<void()>> tasks;
  for (const std::int64_t mib : {27, 28, 36, 60})
    tasks.push_back([&, mib] {
      const auto given = mib * static_cast<std::int64_t>(kMiB);
      const Taken got = run_on_device(pool, run, 1, {free_bytes(kKept + given), kOpen});
      SCOPED_TRACE(std::to_string(mib) + " MiB\n" + got.ended.err);
      EXPECT_EQ(got.ended.code, 0);
      EXPECT_EQ(got.ended.out, want.out);
      for (const Peak& peak : got.peaks) {
        EXPECT_GT(peak.taken, 0);
        EXPECT_LE(peak.taken, given);
      }
    });
  at_once(tasks);
}

// --- Plug-ins that are none ---

// A copy of the executable with something else beside it.
class BesidePlugin {
 public:
  explicit BesidePlugin(const std::function<void(const std::string& path)>& make) {
    fs::copy_file(std::getenv("SEINE_BIN"), folder_ / "seine");
    make(folder_ / kPluginFile);
  }
  Ended run(const Words& words, const Words& variables) const {
    Words all{folder_ / "seine"};
    append(all, words);
    return Launched(all, variables).wait();
  }

 private:
  Folder folder_;
};

std::string plugin_path() {
  return fs::path(std::getenv("SEINE_BIN")).parent_path() / kPluginFile;
}

// The first `bytes` of it.
void cut_off(const std::string& path, std::uintmax_t bytes) {
  fs::copy_file(plugin_path(), path);
  fs::resize_file(path, bytes);
}

struct Broken {
  std::string name;
  std::function<void(const std::string& path)> make;
  std::string reason;
  Words variables = {};
};
void PrintTo(const Broken& broken, std::ostream* out) {
  *out << broken.name;
}

class BrokenPlugin : public testing::TestWithParam<Broken> {};

TEST_P(BrokenPlugin, IsSaidAndNothingElse) {
  const Broken& broken = GetParam();
  const BesidePlugin beside(broken.make);
  const Pool pool(600, 8, Dtype::f32);
  const Words run = selecting("k_center", 10);

  const Ended version = beside.run({"--version"}, broken.variables);
  EXPECT_EQ(version.code, 0);
  EXPECT_EQ(version.err, "");
  EXPECT_NE(version.out.find("CUDA: "), std::string::npos);
  EXPECT_NE(version.out.find(broken.reason), std::string::npos) << version.out;

  const Folder folder;
  const Ended of_auto = beside.run(pool.words(run, "auto", {"--out", folder / "batch.h5"}), broken.variables);
  EXPECT_EQ(of_auto.code, 0) << of_auto.err;
  EXPECT_EQ(of_auto.digest(), digest_on_cpu(pool, run));
  const Words lines = of_auto.lines_with("device cpu: ");
  ASSERT_EQ(lines.size(), 1u) << of_auto.err;
  EXPECT_NE(lines[0].find(broken.reason), std::string::npos) << lines[0];

  const Ended cuda = beside.run(pool.words(run, "cuda", {"--out", folder / "other.h5"}), broken.variables);
  EXPECT_EQ(cuda.code, 69) << cuda.err;
  EXPECT_EQ(cuda.out, "");
  const Words errors = cuda.error_lines();
  ASSERT_EQ(errors.size(), 1u) << cuda.err;
  EXPECT_NE(errors[0].find(broken.reason), std::string::npos) << errors[0];
  EXPECT_EQ(folder.names(), Words{"batch.h5"});
}

INSTANTIATE_TEST_SUITE_P(
    Device, BrokenPlugin,
    testing::Values(
        Broken{"Half", [](const std::string& path) { cut_off(path, fs::file_size(plugin_path()) / 2); }, "is cut off"},
        Broken{"AlmostWhole", [](const std::string& path) { cut_off(path, fs::file_size(plugin_path()) - 1); },
               "is cut off"},
        Broken{"FewBytes", [](const std::string& path) { cut_off(path, 20); }, kPluginFile},
        Broken{"Empty", [](const std::string& path) { write_text(path, ""); }, kPluginFile},
        Broken{"Text", [](const std::string& path) { write_text(path, "no library\n"); }, kPluginFile},
        Broken{"Pipe", [](const std::string& path) { ASSERT_EQ(mkfifo(path.c_str(), 0600), 0); }, "is not a file"},
        Broken{"Folder", [](const std::string& path) { fs::create_directory(path); }, "is not a file"},
        Broken{"OtherInterface",
               [](const std::string& path) { fs::copy_file(plugin_path(), path); },
               "(interface 4711), this is seine ",
               {"SEINE_FAKE_ABI=4711"}}),
    [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace seine::test
