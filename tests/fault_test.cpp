// Black box: the real executable (environment variable SEINE_BIN) under the real mpirun, at 1 and 3 ranks. Every fault
// of the contract's section 2 and every wrong option: the exit code, exactly one line `seine: error: ...` that names
// file, dataset and row, no output, no temporary file, no hang.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <hdf5.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <regex>
#include <sstream>

#include "launching.hpp"
#include "pools.hpp"

namespace seine::test {
namespace {

namespace fs = std::filesystem;

// One run that must fail: `words` and, below a fresh folder, --out.
void expect_fault_at(int ranks, const Words& words, const std::vector<int>& codes, const Words& mentions,
                     const std::string& out_name = "batch.h5") {
  const Folder folder;
  Words all = words;
  if (!out_name.empty()) append(all, {"--out", folder.path() + "/" + out_name});
  const Ended ended = launch(ranks, all);
  std::string shown;
  for (const std::string& word : all) shown += word + " ";
  SCOPED_TRACE(std::to_string(ranks) + " ranks: " + shown + "\n--- standard error ---\n" + ended.err);
  EXPECT_FALSE(ended.hung) << "ended by force after " << kLimitSeconds << " s";
  EXPECT_NE(std::find(codes.begin(), codes.end(), ended.code), codes.end())
      << "exit code " << ended.code << ", expected " << codes[0];
  const Words lines = ended.error_lines();
  EXPECT_EQ(lines.size(), 1u);
  for (const std::string& mention : mentions)
    if (!lines.empty()) {
      EXPECT_NE(lines[0].find(mention), std::string::npos) << "does not name " << mention;
    }
  EXPECT_EQ(ended.out, "") << "a result on standard output";
  EXPECT_TRUE(folder.names().empty()) << "left behind: " << testing::PrintToString(folder.names());
}

struct Fault {
  Words words;
  int code;
  Words mentions;
  std::string out_name = "batch.h5";
};

void expect_faults(const std::vector<Fault>& faults) {
  std::vector<std::function<void()>> tasks;
  for (const Fault& fault : faults)
    for (const int ranks : {1, 3})
      tasks.push_back(
          [&fault, ranks] { expect_fault_at(ranks, fault.words, {fault.code}, fault.mentions, fault.out_name); });
  at_once(tasks);
}

void expect_fault(const Words& words, int code, const Words& mentions, const std::string& out_name = "batch.h5") {
  expect_faults({{words, code, mentions, out_name}});
}

void expect_success(const Words& words, const std::string& line = "rows=") {
  std::vector<std::function<void()>> tasks;
  for (const int ranks : {1, 3})
    tasks.push_back([&, ranks] {
      const Folder folder;
      Words all = words;
      append(all, {"--out", folder.path() + "/batch.h5"});
      const Ended ended = launch(ranks, all);
      SCOPED_TRACE(std::to_string(ranks) + " ranks\n" + ended.err);
      EXPECT_EQ(ended.code, 0);
      EXPECT_TRUE(ended.error_lines().empty());
      EXPECT_NE(ended.out.find(line), std::string::npos) << ended.out;
      EXPECT_EQ(folder.names(), Words{"batch.h5"});
    });
  at_once(tasks);
}

// --- Pools to be broken: three shards of 300 rows ---

class Pool {
 public:
  explicit Pool(std::int64_t passes = 0, Storage storage = {}) : Pool(random_pool(900, 4, 3, passes, 400), storage) {}
  Pool(TestPool content, Storage storage) {
    if (content.numbers.empty() && content.words.empty()) add_number_ids(content);
    if (storage.shard_rows.empty()) storage.shard_rows = even_shards(content.rows, 3);
    paths_ = write_pool(content, storage, folder_.path());
  }

  const std::string& path(std::size_t shard) const { return paths_[shard]; }
  std::string other(const std::string& name) const { return folder_.path() + "/" + name; }
  Words select(const std::string& strategy, const Words& more = {}) const {
    Words words = {"select", "--strategy", strategy, "--batch", "5"};
    for (const Words& usual : {Words{"--threads", "1"}, Words{"--device", "cpu"}})
      if (std::find(more.begin(), more.end(), usual[0]) == more.end()) append(words, usual);
    words.emplace_back("--pool");
    append(words, paths_);
    append(words, more);
    return words;
  }

  void remove(std::size_t shard, const char* name) const {
    edit(shard, [&](hid_t file) { ASSERT_GE(H5Ldelete(file, name, H5P_DEFAULT), 0); });
  }
  // Puts a dataset in the place of one of this name.
  void replace(std::size_t shard, const char* name, const std::vector<hsize_t>& shape, hid_t type, hid_t memory,
               const void* data) const {
    edit(shard, [&](hid_t file) {
      if (H5Lexists(file, name, H5P_DEFAULT) > 0) {
        ASSERT_GE(H5Ldelete(file, name, H5P_DEFAULT), 0);
      }
      const hid_t space = H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr);
      const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
      ASSERT_GE(set, 0);
      if (data) {
        ASSERT_GE(H5Dwrite(set, memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data), 0);
      }
      H5Dclose(set);
      H5Sclose(space);
    });
  }
  void replace_reals(std::size_t shard, const char* name, const std::vector<hsize_t>& shape, double value) const {
    hsize_t count = 1;
    for (const hsize_t n : shape) count *= n;
    const std::vector<double> values(count, value);
    replace(shard, name, shape, H5T_IEEE_F32LE, H5T_NATIVE_DOUBLE, values.data());
  }
  void replace_integers(std::size_t shard, const char* name, const std::vector<hsize_t>& shape,
                        std::int64_t first = 0) const {
    hsize_t count = 1;
    for (const hsize_t n : shape) count *= n;
    std::vector<std::int64_t> values(count);
    for (hsize_t i = 0; i < count; ++i) values[i] = first + static_cast<std::int64_t>(i);
    replace(shard, name, shape, H5T_STD_I64LE, H5T_NATIVE_INT64, values.data());
  }
  // Sets one value of a [rows, ...] dataset, by position in memory order.
  void poke(std::size_t shard, const char* name, hsize_t position, double value) const {
    edit(shard, [&](hid_t file) {
      const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
      ASSERT_GE(set, 0);
      const hid_t space = H5Dget_space(set);
      std::vector<double> values(static_cast<std::size_t>(H5Sget_simple_extent_npoints(space)));
      ASSERT_GE(H5Dread(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
      values[position] = value;
      ASSERT_GE(H5Dwrite(set, H5T_NATIVE_DOUBLE, H5S_ALL, H5S_ALL, H5P_DEFAULT, values.data()), 0);
      H5Sclose(space);
      H5Dclose(set);
    });
  }
  // Overwrites bytes in the middle of a stored chunk.
  void damage_chunk(std::size_t shard, const char* name, hsize_t index) const {
    haddr_t address = 0;
    hsize_t size = 0;
    edit(shard, [&](hid_t file) {
      const hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
      const hid_t space = H5Dget_space(set);
      hsize_t offset[3] = {};
      unsigned filters = 0;
      ASSERT_GE(H5Dget_chunk_info(set, space, index, offset, &filters, &address, &size), 0);
      H5Sclose(space);
      H5Dclose(set);
    });
    std::fstream file(path(shard), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(address + size / 2));
    file << std::string(static_cast<std::size_t>(size / 4), '\x5a');
    ASSERT_TRUE(file.good());
  }

 private:
  void edit(std::size_t shard, const std::function<void(hid_t)>& work) const {
    const hid_t file = H5Fopen(path(shard).c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
    ASSERT_GE(file, 0);
    work(file);
    ASSERT_GE(H5Fclose(file), 0);
  }

  Folder folder_;
  Words paths_;
};

// --- Success first, so that a failure means the fault and nothing else ---

TEST(Healthy, EveryBasePool) {
  const Pool pool;
  for (const char* strategy : {"k_center", "entropy", "badge"})
    expect_success(pool.select(strategy), " rows=5 digest=");
  expect_success(Pool(2).select("bald"));
  Words before;
  for (int s = 0; s < 3; ++s) before.push_back(content(pool.path(s)));
  expect_success(pool.select("log_det"));
  for (int s = 0; s < 3; ++s) EXPECT_TRUE(content(pool.path(s)) == before[s]) << "the input was modified";
}

TEST(Healthy, PrintsOneLine) {
  const Pool pool;
  const Folder folder;
  const std::string out = folder.path() + "/b.csv";
  const Ended ended = launch(3, pool.select("k_center", {"--out", out}));
  EXPECT_TRUE(std::regex_match(ended.out, std::regex(".*/b\\.csv rows=5 digest=[0-9a-f]{32} kind=radius value=[^ ]+ "
                                                     "bound=[^ ]+ ratio=[^ ]+\n")))
      << ended.out;
  EXPECT_TRUE(content(out).starts_with("id,row,score,gain\n"));
}

TEST(Healthy, ToleratedValues) {
  {
    const Pool pool;  // float32: 1e-3 on the sum, -1e-6 on a value
    pool.replace_reals(1, "probabilities", {300, 3}, 1.0 / 3 + 3e-4);
    pool.poke(1, "probabilities", 3, -9e-7);
    pool.poke(1, "probabilities", 4, 0.5);
    pool.poke(1, "probabilities", 5, 0.5);
    expect_success(pool.select("entropy"));
  }
  TestPool half = random_pool(900, 4, 3, 0, 400);  // float16: 1e-2
  for (double& p : half.p) p = 1.0 / 3 + 2e-3;
  round_to(half, Dtype::f16, Dtype::f16);
  expect_success(Pool(half, {.x = Dtype::f16, .p = Dtype::f16}).select("entropy"));
}

// --- Section 2 of the contract ---

TEST(BadData, MissingDataset) {
  Pool pool;
  pool.remove(1, "embeddings");
  expect_fault(pool.select("k_center"), 65, {pool.path(1), "embeddings"});
  pool.remove(2, "probabilities");
  expect_fault(pool.select("entropy"), 65, {pool.path(2), "probabilities"});
  expect_fault(Pool().select("k_center", {"--embeddings", "hidden"}), 65, {"part-0.h5", "hidden"});
}

TEST(BadData, WrongRankOrType) {
  std::vector<std::unique_ptr<Pool>> pools;
  std::vector<Fault> faults;
  const auto check = [&](const char* strategy, const char* dataset, const std::function<void(const Pool&)>& harm) {
    const Pool& pool = *pools.emplace_back(std::make_unique<Pool>());
    harm(pool);
    faults.push_back({pool.select(strategy), 65, {pool.path(1), dataset}});
  };
  check("k_center", "embeddings", [](const Pool& p) { p.replace_reals(1, "embeddings", {300}, 1); });
  check("k_center", "embeddings", [](const Pool& p) { p.replace_reals(1, "embeddings", {300, 2, 2}, 1); });
  check("k_center", "embeddings", [](const Pool& p) { p.replace_integers(1, "embeddings", {300, 4}); });
  check("k_center", "embeddings", [](const Pool& p) {
    const hid_t text = H5Tcopy(H5T_C_S1);
    H5Tset_size(text, 3);
    p.replace(1, "embeddings", {300, 4}, text, text, nullptr);
    H5Tclose(text);
  });
  check("entropy", "probabilities", [](const Pool& p) { p.replace_reals(1, "probabilities", {300}, 1); });
  check("entropy", "probabilities", [](const Pool& p) {
    p.replace_reals(1, "probabilities", {300, 1, 1, 3}, 1.0 / 3);
  });
  check("entropy", "probabilities", [](const Pool& p) { p.replace_integers(1, "probabilities", {300, 3}); });
  check("entropy", "labels", [](const Pool& p) {
    p.replace_integers(0, "labels", {300}, -1000);
    p.replace_reals(1, "labels", {300}, -1);
    p.replace_integers(2, "labels", {300}, -1000);
  });
  check("entropy", "ids", [](const Pool& p) { p.replace_reals(1, "ids", {300}, 1); });
  check("entropy", "ids", [](const Pool& p) { p.replace_integers(1, "ids", {300, 1}, 5000); });
  expect_faults(faults);
}

TEST(BadData, OneClass) {
  TestPool content = random_pool(900, 4, 3, 0, 400);
  content.classes = 1;
  content.p.assign(900, 1.0);
  const Pool pool(content, {});
  expect_fault(pool.select("entropy"), 65, {"part-0.h5", "probabilities"});
}

TEST(BadData, ShardsDisagree) {
  {
    const Pool pool;
    pool.replace_reals(2, "embeddings", {300, 5}, 1);
    expect_fault(pool.select("k_center"), 65, {pool.path(2), "embeddings", "5", "4"});
  }
  {
    const Pool pool;
    pool.replace_reals(2, "probabilities", {300, 4}, .25);
    expect_fault(pool.select("entropy"), 65, {pool.path(2), "probabilities", "4", "3"});
  }
  {
    const Pool pool(2);
    pool.replace_reals(1, "probabilities", {300, 6, 3}, 1.0 / 3);
    expect_fault(pool.select("bald"), 65, {pool.path(1), "probabilities", "6", "2"});
  }
  {
    const Pool pool(2);
    pool.replace_reals(1, "probabilities", {300, 3}, 1.0 / 3);
    expect_fault(pool.select("entropy"), 65, {pool.path(1), "probabilities"});
  }
}

TEST(BadData, RowsDisagree) {
  for (const char* dataset : {"probabilities", "ids"}) {
    const Pool pool;
    if (dataset[0] == 'p') pool.replace_reals(1, dataset, {299, 3}, 1.0 / 3);
    if (dataset[0] == 'i') pool.replace_integers(1, dataset, {301}, 50000);
    expect_fault(pool.select("badge"), 65, {pool.path(1), dataset, "300", dataset[0] == 'p' ? "299" : "301"});
  }
  const Pool pool;
  for (std::size_t s = 0; s < 3; ++s) pool.replace_integers(s, "labels", {s == 2 ? 10ULL : 300ULL}, -1000);
  expect_fault(pool.select("k_center"), 65, {pool.path(2), "labels", "300", "10"});
}

TEST(BadData, NotFinite) {
  for (const double value : {double{NAN}, double{HUGE_VAL}, -double{HUGE_VAL}}) {
    Pool pool;
    pool.poke(1, "embeddings", 4 * 217 + 2, value);
    expect_fault(pool.select("k_center"), 65, {pool.path(1), "embeddings", "row 217"});
    pool.poke(2, "probabilities", 3 * 299, value);
    expect_fault(pool.select("margin"), 65, {pool.path(2), "probabilities", "row 299"});
  }
  TestPool logits = random_pool(900, 4, 3, 0, 400);
  logits.logits = true;
  const Pool pool(logits, {});
  expect_success(pool.select("entropy"));
  pool.poke(0, "logits", 0, NAN);
  expect_fault(pool.select("entropy"), 65, {pool.path(0), "logits", "row 0"});
  const Pool wide(random_pool(900, 4, 3, 0, 400), {.x = Dtype::f64});
  wide.poke(1, "embeddings", 4 * 3, 1e300);  // infinite as float32
  expect_fault(wide.select("k_center"), 65, {wide.path(1), "embeddings", "row 3"});
  const Pool half(random_pool(900, 4, 3, 0, 400), {.x = Dtype::f16, .chunk_rows = 64, .gzip = 1});
  half.poke(1, "embeddings", 4 * 299 + 3, NAN);
  expect_fault(half.select("k_center"), 65, {half.path(1), "embeddings", "row 299"});
}

TEST(BadData, NotDistributions) {
  Pool pool;
  pool.poke(1, "probabilities", 3 * 77, -1e-3);
  expect_fault(pool.select("entropy"), 65, {pool.path(1), "probabilities", "row 77"});
  {
    const Pool sums;
    sums.replace_reals(2, "probabilities", {300, 3}, 1.0 / 3);
    sums.poke(2, "probabilities", 3 * 12 + 1, 1.0 / 3 + 0.002);
    expect_fault(sums.select("badge"), 65, {sums.path(2), "probabilities", "row 12"});
  }
  TestPool half = random_pool(900, 4, 3, 0, 400);
  for (double& p : half.p) p = 1.0 / 3;
  half.p[3 * 450] += 0.02;
  round_to(half, Dtype::f16, Dtype::f16);
  const Pool wrong(half, {.p = Dtype::f16});
  expect_fault(wrong.select("entropy"), 65, {wrong.path(1), "probabilities", "row 150"});
  const Pool passes(2);
  passes.poke(1, "probabilities", 6 * 40 + 4, 0.99);
  expect_fault(passes.select("bald"), 65, {passes.path(1), "probabilities", "row 40"});
}

TEST(BadData, PassesAreNeeded) {
  const Pool pool;
  expect_fault(pool.select("bald"), 65, {"probabilities"});
  const Pool one(1);
  expect_fault(one.select("bald"), 65, {"probabilities"});
  expect_fault(one.select("k_center", {"--score", "bald", "--keep", "2"}), 65, {"probabilities"});
}

TEST(BadData, DuplicateIds) {
  {
    const Pool pool;
    pool.poke(1, "ids", 20, 77777);
    pool.poke(1, "ids", 290, 77777);
    expect_fault(pool.select("random"), 65, {pool.path(1), "ids", "77777", "row 20", "row 290"});
  }
  {
    const Pool pool;
    pool.poke(0, "ids", 299, 88888);
    pool.poke(2, "ids", 0, 88888);
    expect_fault(pool.select("random"), 65, {pool.path(0), pool.path(2), "ids", "88888", "row 299", "row 0"});
  }
  TestPool words = random_pool(900, 4, 3, 0, 400);
  add_word_ids(words);
  words.words[899] = words.words[1];
  const Pool pool(words, {});
  expect_fault(pool.select("random"), 65, {pool.path(0), pool.path(2), "ids", "row 1", "row 299"});
}

TEST(BadData, IdsBeyondInt64) {
  const Pool pool;
  std::vector<std::uint64_t> ids(300);
  for (std::size_t i = 0; i < 300; ++i) ids[i] = 100000 + i;
  ids[123] = (std::uint64_t{1} << 63) + 5;
  pool.replace(1, "ids", {300}, H5T_STD_U64LE, H5T_NATIVE_UINT64, ids.data());
  expect_fault(pool.select("random"), 65, {pool.path(1), "ids", "row 123"});
}

TEST(BadData, NotAnHdf5File) {
  Pool pool;
  const std::string whole = content(pool.path(1));
  write_text(pool.path(1), whole.substr(0, whole.size() / 2));
  expect_fault(pool.select("k_center"), 65, {pool.path(1)});
  write_text(pool.path(1), "id,x\n1,2\n");
  expect_fault(pool.select("k_center"), 65, {pool.path(1)});
  write_text(pool.path(1), "");
  expect_fault(pool.select("k_center"), 65, {pool.path(1)});
}

TEST(BadData, EmptyPool) {
  TestPool nothing{.rows = 0, .dim = 4, .classes = 3};
  const Pool pool(nothing, {.shard_rows = {0, 0, 0}});
  for (const char* strategy : {"k_center", "random", "entropy"}) expect_fault(pool.select(strategy), 65, {});
}

TEST(BadData, NoCandidateLeft) {
  {
    const Pool pool;
    for (std::size_t s = 0; s < 3; ++s) pool.replace_integers(s, "labels", {300}, 0);
    expect_fault(pool.select("k_center"), 65, {"--labels none"});
    expect_success(pool.select("k_center", {"--labels", "none"}));
  }
  TestPool small = random_pool(6, 4, 3, 0, 400);
  const Pool pool(small, {});
  std::string all;
  for (std::int64_t row = 0; row < 6; ++row) all += std::to_string(18 - 7 * row) + "\n";
  write_text(pool.other("all.txt"), all);
  write_text(pool.other("nobody.txt"), "424242\n");
  for (const char* list : {"--labelled", "--pending", "--exclude"})
    expect_fault(pool.select("k_center", {list, pool.other("all.txt")}), 65, {});
  expect_fault(pool.select("k_center", {"--candidates", pool.other("nobody.txt")}), 65, {});
}

TEST(BadData, Lists) {
  const Pool pool;
  std::vector<Fault> faults;
  write_text(pool.other("unknown.txt"), "2700\n424242\n");  // the first is known
  expect_success(pool.select("random", {"--labelled", pool.other("unknown.txt")}));
  faults.push_back(
      {pool.select("random", {"--labelled", pool.other("unknown.txt"), "--strict-ids"}), 65, {"--labelled", "424242"}});
  write_text(pool.other("no_column.csv"), "row,score\n1,2\n");
  faults.push_back({pool.select("random", {"--exclude", pool.other("no_column.csv")}), 65, {"no_column.csv"}});
  write_text(pool.other("broken.json"), "{\"ids\": [1, ");
  faults.push_back({pool.select("random", {"--pending", pool.other("broken.json")}), 65, {"broken.json"}});
  write_text(pool.other("broken.h5"), "no");
  faults.push_back({pool.select("random", {"--pending", pool.other("broken.h5")}), 65, {"broken.h5"}});
  faults.push_back({pool.select("random", {"--candidates", pool.other("absent.txt")}), 66, {"absent.txt"}});
  const Pool outside(random_pool(9, 5, 3, 0, 401), {.name = "outside"});
  faults.push_back(
      {pool.select("k_center", {"--labelled-pool", outside.path(0)}), 65, {outside.path(0), "embeddings"}});
  expect_faults(faults);
}

TEST(NoInput, PoolIsNotThere) {
  const Words rest = {"--strategy", "random", "--batch", "2", "--device", "cpu"};
  const Folder folder;
  const auto select = [&](const std::string& pool) {
    Words words = {"select", "--pool", pool};
    append(words, rest);
    return words;
  };
  expect_fault(select(folder.path() + "/absent.h5"), 66, {"absent.h5"});
  expect_fault(select(folder.path() + "/*.h5"), 66, {"*.h5"});
  write_text(folder.path() + "/list.txt", folder.path() + "/gone.h5\n");
  expect_fault(select(folder.path() + "/list.txt"), 66, {"gone.h5"});
}

// --- Shards that somebody keeps from others ---

TEST(Shards, ThatMayNotBeRead) {
  const Pool pool;
  fs::permissions(pool.path(1), fs::perms::none);
  const bool tried = without_privileges([&] {
    expect_fault(pool.select("k_center"), 66, {pool.path(1), std::strerror(EACCES)});
  });
  if (!tried) GTEST_SKIP() << "root may read everything here";
}

// Nobody is asked for a lock, as pools are only ever read: not one of the system, nor that of a writer in HDF5.
TEST(Shards, ThatAreLocked) {
  const Pool pool;
  const int descriptor = open(pool.path(0).c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(descriptor, LOCK_EX | LOCK_NB), 0);
  ASSERT_EQ(lockf(descriptor, F_TLOCK, 0), 0);
  const hid_t writer = H5Fopen(pool.path(2).c_str(), H5F_ACC_RDWR, H5P_DEFAULT);
  ASSERT_GE(writer, 0);
  expect_success(pool.select("badge"));
  H5Fclose(writer);
  close(descriptor);
}

// The newest format notes in the file that somebody writes it; the library then opens it for nobody else.
TEST(Shards, ThatAreBeingWritten) {
  const Pool pool;
  const hid_t newest = H5Pcreate(H5P_FILE_ACCESS);
  H5Pset_libver_bounds(newest, H5F_LIBVER_LATEST, H5F_LIBVER_LATEST);
  const hid_t writer = H5Fcreate(pool.path(1).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, newest);
  ASSERT_GE(writer, 0);
  H5Fflush(writer, H5F_SCOPE_LOCAL);
  expect_fault(pool.select("k_center"), 65, {pool.path(1), "open for write"});
  H5Fclose(writer);
  H5Pclose(newest);
}

// --- Wrong options ---

TEST(Usage, Select) {
  const Pool pool;
  const std::vector<std::pair<Words, Words>> wrong = {
      {{"--nonsense"}, {"--nonsense"}},
      {{"--set", "first=random"}, {"first"}},  // entropy has no parameters
      {{"--set", "nonsense"}, {"nonsense"}},
      {{"--normalize", "l3"}, {"l3"}},
      {{"--reduce", "tree"}, {"tree"}},
      {{"--certificate", "maybe"}, {"maybe"}},
      {{"--device", "tpu"}, {"tpu"}},
      {{"--partitions", "0"}, {"partitions"}},
      {{"--fan-in", "1"}, {"fan-in"}},
      {{"--threads", "-1"}, {"threads"}},
      {{"--memory", "0"}, {"memory"}},
      {{"--seed", "x"}, {"seed"}},
      {{"--seed", "-1"}, {"seed"}},
      {{"--score", "entropy"}, {"score"}},        // without --keep or --score-power
      {{"--keep", "3"}, {"keep"}},                // without --score
      {{"--score-power", "1"}, {"score-power"}},  // without --score
      {{"--restart"}, {"checkpoint"}},            // without it
      {{"--checkpoint-every", "5"}, {"checkpoint"}},
  };
  std::vector<Fault> faults;
  for (const auto& [words, mentions] : wrong) faults.push_back({pool.select("entropy", words), 64, mentions});
  expect_faults(faults);
}

TEST(Usage, Strategies) {
  const Pool pool;
  expect_fault(pool.select("k_centre"), 64, {"k_centre"});
  const std::vector<std::tuple<std::string, Words, Words>> wrong = {
      {"k_center", {"--set", "frist=random"}, {"frist", "first"}},  // lists the known ones
      {"k_center", {"--set", "first=last"}, {"last"}},
      {"badge", {"--set", "conditioned=maybe"}, {"maybe"}},
      {"facility_location", {"--set", "ground=0"}, {"ground"}},
      {"facility_location", {"--set", "ground=some"}, {"some"}},
      {"log_det", {"--set", "noise=0"}, {"noise"}},
      {"log_det", {"--set", "noise=-1"}, {"noise"}},
      {"log_det", {"--set", "noise=nan"}, {"noise"}},
      {"k_center", {"--score", "entropy", "--keep", "0.5"}, {"keep"}},
      {"k_center", {"--score", "k_means_pp", "--keep", "2"}, {"k_means_pp"}},
      {"badge", {"--score", "entropy", "--score-power", "1"}, {"score-power"}},
      {"log_det", {"--score", "entropy", "--score-power", "1"}, {"score-power"}},
      {"k_center", {"--score", "entropy", "--score-power", "-1"}, {"score-power"}},
  };
  std::vector<Fault> faults;
  for (const auto& [strategy, words, mentions] : wrong) faults.push_back({pool.select(strategy, words), 64, mentions});
  expect_faults(faults);
}

TEST(Usage, RequiredOptionsAndCommands) {
  const Pool pool;
  const std::string& file = pool.path(0);
  std::vector<Fault> faults;
  for (const char* batch : {"0", "-3", "many", "1.5", "1e3x"})
    faults.push_back({{"select", "--pool", file, "--strategy", "random", "--batch", batch}, 64, {"batch"}});
  faults.push_back({{"select", "--strategy", "random", "--batch", "2"}, 64, {"pool"}});
  faults.push_back({{"select", "--pool", file, "--batch", "2"}, 64, {"strategy"}});
  faults.push_back({{"select", "--pool", file, "--strategy", "random"}, 64, {"batch"}});
  faults.push_back({{"select", "--pool", file, "--strategy", "random", "--batch", "2"}, 64, {"out"}, ""});
  faults.push_back({{"chose", "--pool", file}, 64, {}, ""});
  faults.push_back({{"score", "--pool", file, "--strategy", "k_center"}, 64, {"k_center"}, "scores"});
  faults.push_back({{"score", "--pool", file, file, "--strategy", "entropy"}, 64, {"part-0.h5"}, "scores"});
  expect_faults(faults);
}

TEST(Usage, ConfigFile) {
  const Pool pool;
  write_text(pool.other("bad.toml"), "strategy = \"random\"\nbtach = 3\n");
  expect_fault({"select", "--config", pool.other("bad.toml"), "--pool", pool.path(0)}, 64, {"btach"});
  write_text(pool.other("broken.toml"), "strategy = \n");
  expect_fault({"select", "--config", pool.other("broken.toml"), "--pool", pool.path(0)}, 64, {"broken.toml"});
}

// --- Output ---

TEST(Output, CannotBeCreated) {
  const Pool pool;
  expect_fault(pool.select("random"), 64, {".npy"}, "batch.npy");
  expect_fault(pool.select("random"), 73, {"absent"}, "absent/batch.h5");
  const Folder folder;
  fs::create_directory(folder.path() + "/batch.h5");
  for (const int ranks : {1, 3})
    expect_fault_at(ranks, pool.select("random", {"--out", folder.path() + "/batch.h5"}), {73}, {"batch.h5"}, "");
  write_text(folder.path() + "/file", "");
  for (const int ranks : {1, 3})
    expect_fault_at(ranks, pool.select("random", {"--out", folder.path() + "/file/batch.csv"}), {73}, {"batch.csv"},
                    "");
  EXPECT_EQ(folder.names(), (Words{"batch.h5", "file"}));
}

// What was there stays as it is when the run fails.
TEST(Output, OldBatchSurvivesAFault) {
  const Pool pool;
  pool.poke(1, "embeddings", 4 * 100, NAN);
  const Folder folder;
  const std::string old = "id,row,score,gain\n";
  write_text(folder.path() + "/batch.csv", old);
  expect_fault_at(3, pool.select("k_center", {"--force", "--out", folder.path() + "/batch.csv"}), {65}, {"row 100"},
                  "");
  EXPECT_EQ(content(folder.path() + "/batch.csv"), old);
  EXPECT_EQ(folder.names(), Words{"batch.csv"});
}

// What is there is somebody's, and so is a batch of another request.
TEST(Output, ThatExistsIsKeptUnlessForced) {
  const Pool pool;
  const Folder folder;
  const std::string notes = folder.path() + "/notes.csv", other_pool = folder.path() + "/pool.h5";
  write_text(notes, "id,comment\n");
  fs::copy_file(pool.path(0), other_pool);
  Words paths = {notes, other_pool};
  for (const char* name : {"/batch.h5", "/batch.csv", "/batch.json"}) {
    paths.push_back(folder.path() + name);
    EXPECT_EQ(launch(1, pool.select("random", {"--seed", "1", "--out", paths.back()})).code, 0);
  }
  for (const std::string& path : paths) {
    const std::string before = content(path);
    for (const int ranks : {1, 3})
      expect_fault_at(ranks, pool.select("random", {"--seed", "2", "--out", path}), {73}, {path, "--force"}, "");
    EXPECT_TRUE(content(path) == before);
    const Ended forced = launch(1, pool.select("random", {"--seed", "2", "--force", "--out", path}));
    EXPECT_EQ(forced.code, 0) << forced.err;
    EXPECT_FALSE(content(path) == before);
  }
}

// The same command may be given again: nothing is lost, whatever it runs on.
TEST(Output, OfTheSameRequestIsWrittenAgain) {
  const Pool pool;
  const Folder folder;
  for (const char* name : {"/batch.h5", "/batch.json"}) {
    const Words words = pool.select("k_center", {"--score", "entropy", "--keep", "7.5", "--out", folder.path() + name});
    const Ended first = launch(1, words), again = launch(3, words);
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(again.out, first.out);
    Words other = words;
    *std::find(other.begin(), other.end(), "7.5") = "8";
    expect_fault_at(1, other, {73}, {"a batch of another request"}, "");
  }
  const std::string empty = folder.path() + "/made-by-mktemp.csv";
  write_text(empty, "");
  EXPECT_EQ(launch(1, pool.select("random", {"--out", empty})).code, 0);
  expect_fault_at(1, pool.select("random", {"--out", empty}), {73}, {"may be of another request"},
                  "");  // who can tell?
}

// Inputs are never modified, by whatever name the output reaches them.
TEST(Output, NamesAnInput) {
  const Pool pool;
  const std::string before = content(pool.path(1));
  const Folder folder;
  const std::string list = folder.path() + "/labelled.csv", link = folder.path() + "/link.h5";
  write_text(list, "id\n3\n");
  fs::create_symlink(pool.path(1), link);
  for (const int ranks : {1, 3}) {
    expect_fault_at(ranks, pool.select("random", {"--out", pool.path(1)}), {64}, {"overwrite"}, "");
    expect_fault_at(ranks, pool.select("random", {"--out", link}), {64}, {"overwrite"}, "");
    expect_fault_at(ranks, pool.select("random", {"--labelled", list, "--out", list}), {64}, {"overwrite"}, "");
    expect_fault_at(ranks, {"evaluate", "--pool", pool.path(1), "--picked", list, "--out", list}, {64}, {"overwrite"},
                    "");
  }
  EXPECT_EQ(content(pool.path(1)), before);
  EXPECT_EQ(content(list), "id\n3\n");
}

// Two names of one file, which is not there yet.
TEST(Output, IsTheCheckpoint) {
  const Pool pool;
  const Folder folder;
  const std::string out = folder.path() + "/batch.csv", link = folder.path() + "/link";
  fs::create_directory_symlink(folder.path(), link);
  for (const std::string& checkpoint : {out, folder.path() + "/./batch.csv", link + "/batch.csv"})
    for (const int ranks : {1, 3})
      expect_fault_at(ranks, pool.select("random", {"--out", out, "--checkpoint", checkpoint}), {64}, {"overwrite"},
                      "");
  EXPECT_EQ(folder.names(), Words{"link"});
}

TEST(Checkpoint, ThatIsAPipeHangsNobody) {
  const Pool pool;
  const Folder folder;
  const std::string pipe = folder.path() + "/pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const Words& more : {Words{}, Words{"--restart"}})
    for (const int ranks : {1, 3}) {
      Words words = pool.select("random", {"--checkpoint", pipe});
      append(words, more);
      expect_fault_at(ranks, words, {73}, {pipe, "not a regular file"});
    }
  EXPECT_EQ(folder.names(), Words{"pipe"});
}

TEST(Output, FullDisk) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small file system needs root";
  const Folder folder;
  const std::string disk = folder.path() + "/disk";
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=48k") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  {
    const Pool pool(random_pool(6000, 2, 0, 0, 402), {});
    for (const char* ending : {"h5", "csv", "json"})
      for (const int ranks : {1, 3}) {
        Words words = {"select",   "--strategy", "random",    "--batch", "6000",
                       "--device", "cpu",        "--threads", "1",       "--pool"};
        append(words, {pool.path(0), pool.path(1), pool.path(2), "--out", disk + "/batch." + ending});
        expect_fault_at(ranks, words, {73, 74}, {std::string("batch.") + ending}, "");
        EXPECT_TRUE(fs::is_empty(disk)) << "half-written: " << fs::directory_iterator(disk)->path();
      }
  }
  umount(disk.c_str());
}

// --- Temporary files ---

// A file system of this size in memory, or on a disk of its own, with nothing free but `left` bytes.
class FullFolder {
 public:
  FullFolder(bool on_disk, std::size_t size, std::size_t left) {
    if (geteuid() != 0) return;
    const std::string image = folder_.path() + "/image";
    fs::create_directory(path());
    write_text(image, "");
    fs::resize_file(image, on_disk ? size : 0);
    const std::string disk = "mkfs.ext4 -qF -O ^has_journal " + image + " && mount -o loop " + image + " " + path();
    const std::string memory = "mount -t tmpfs -o size=" + std::to_string(size) + " tmpfs " + path();
    is_there_ = std::system(((on_disk ? disk : memory) + " 2> /dev/null").c_str()) == 0;
    if (is_there_) write_text(path() + "/ballast", std::string(fs::space(path()).available - left, 'x'));
  }
  ~FullFolder() {
    if (is_there_) umount2(path().c_str(), MNT_DETACH);
  }
  FullFolder(const FullFolder&) = delete;
  FullFolder& operator=(const FullFolder&) = delete;
  std::string path() const { return folder_.path() + "/full"; }
  bool is_there() const { return is_there_; }

 private:
  Folder folder_;
  bool is_there_ = false;
};

// Rows of chunks are then not kept beside them: slower, the same batch, and a line that says so.
TEST(Temporary, WithoutRoomForRows) {
  const Pool pool(random_pool(30000, 64, 0, 0, 406), {.chunk_rows = 64, .gzip = 1});
  const FullFolder disk(true, 2 << 20, 100 << 10), memory(false, 1 << 20, 0);
  if (!disk.is_there() || !memory.is_there()) GTEST_SKIP() << "no file systems of our own can be mounted here";
  const Folder folder;
  const Words words = pool.select("k_center", {"--out", folder.path() + "/batch.json"});
  const Ended resident = launch(0, words);
  Words streamed = words;
  append(streamed, {"--memory", "0.032"});
  for (const auto& [where, why] : {std::pair{disk.path(), "No space left on device"}, {memory.path(), "in memory"}}) {
    const Ended ended = launch(0, streamed, kLimitSeconds, {"TMPDIR=" + where});
    SCOPED_TRACE(ended.err);
    EXPECT_EQ(ended.code, 0);
    EXPECT_EQ(ended.out, resident.out);
    EXPECT_TRUE(ended.error_lines().empty());
    EXPECT_TRUE(std::regex_search(ended.err, std::regex("warning: " + where + ": no temporary file .*" + why)));
  }
}

TEST(Temporary, WithoutRoomForMpi) {
  const Pool pool;
  const FullFolder full(false, 1 << 20, 0), nearly(false, 9 << 20, 7 << 20);
  if (!full.is_there() || !nearly.is_there()) GTEST_SKIP() << "no file system of our own can be mounted here";
  const Folder folder;
  const Words words = pool.select("random", {"--out", folder.path() + "/batch.json"});
  for (const std::string& where : {full.path(), nearly.path()}) {
    const Words there = {"TMPDIR=" + where, "OMPI_MCA_orte_tmpdir_base=" + where};
    const Ended ended = launch(3, words, kLimitSeconds, there);
    SCOPED_TRACE(ended.err);
    EXPECT_FALSE(ended.hung);
    EXPECT_EQ(ended.code, 71);
    const Words lines = ended.error_lines();
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_NE(lines[0].find(where), std::string::npos);
    EXPECT_TRUE(folder.names().empty());
  }
}

// A run alone makes no files of MPI, which it would share with others that are alone.
TEST(Temporary, AloneNoneAreMade) {
  const Pool pool;
  const Folder folder;
  const std::string nowhere = pool.path(0) + "/below-a-file";
  const Ended ended = launch(0, pool.select("random", {"--out", folder.path() + "/batch.json"}), kLimitSeconds,
                             {"TMPDIR=" + nowhere, "OMPI_MCA_orte_tmpdir_base=" + nowhere});
  EXPECT_EQ(ended.code, 0) << ended.err;
}

// --- One rank alone ---

// A damaged chunk of 256 rows is one rank's: tiles of 256 rows are dealt to the ranks.
TEST(OneRank, UnreadableChunk) {
  for (const std::size_t shard : {0, 2}) {
    const Pool pool(random_pool(3 * 1024, 24, 3, 0, 403), {.chunk_rows = 256, .gzip = 6});
    expect_success(pool.select("badge"));
    pool.damage_chunk(shard, "embeddings", 1);
    for (const int ranks : {1, 3})
      expect_fault_at(ranks, pool.select("badge"), {65, 74}, {pool.path(shard), "embeddings"});
    for (const int ranks : {1, 3})
      expect_fault_at(ranks, pool.select("k_center", {"--reduce", "merge"}), {65, 74},
                      {pool.path(shard), "embeddings"});
  }
}

TEST(OneRank, UnreadableProbabilities) {
  const Pool pool(random_pool(3 * 1024, 2, 24, 0, 404), {.chunk_rows = 256, .gzip = 6});
  pool.damage_chunk(1, "probabilities", 2);
  for (const int ranks : {1, 3})
    expect_fault_at(ranks, pool.select("entropy"), {65, 74}, {pool.path(1), "probabilities"});
  const Folder folder;
  Words words = {"score", "--strategy", "entropy", "--device", "cpu", "--threads", "1", "--pool"};
  append(words, {pool.path(0), pool.path(1), pool.path(2), "--out", folder.path() + "/scores"});
  const Ended ended = launch(3, words);
  EXPECT_FALSE(ended.hung);
  EXPECT_TRUE(ended.code == 65 || ended.code == 74) << ended.code;
  EXPECT_EQ(ended.error_lines().size(), 1u) << ended.err;
  if (fs::exists(folder.path() + "/scores")) {
    EXPECT_TRUE(fs::is_empty(folder.path() + "/scores"));
  }
}

// --- The other commands ---

TEST(Inspect, ListsFaultsAndEndsWith65) {
  const Pool pool;
  pool.poke(0, "embeddings", 4 * 5, NAN);
  pool.poke(1, "embeddings", 4 * 6, HUGE_VAL);
  pool.poke(2, "probabilities", 3 * 7, -1);
  for (const int ranks : {1, 3}) {
    const Ended ended = launch(ranks, {"inspect", "--pool", pool.path(0), pool.path(1), pool.path(2)});
    SCOPED_TRACE(ended.err);
    EXPECT_FALSE(ended.hung);
    EXPECT_EQ(ended.code, 65);
    for (const char* row : {"row 5", "row 6", "row 7"}) EXPECT_NE(ended.err.find(row), std::string::npos) << row;
  }
  const Pool healthy;
  EXPECT_EQ(launch(3, {"inspect", "--pool", healthy.path(0)}).code, 0);
}

TEST(Evaluate, Faults) {
  const Pool pool;
  expect_fault({"evaluate", "--pool", pool.path(0), "--picked", pool.other("absent.csv")}, 66, {"absent.csv"},
               "e.json");
  write_text(pool.other("picked.txt"), "2700\n");
  expect_fault({"evaluate", "--pool", pool.path(0), "--picked", pool.other("picked.txt")}, 64, {}, "e.xml");
  expect_fault({"evaluate", "--pool", pool.path(0)}, 64, {"picked"}, "");
}

TEST(Device, CudaThatIsNotUsable) {
  if (fs::exists("/dev/nvidiactl")) GTEST_SKIP() << "a device is here";
  const Pool pool;
  Words words = {"select", "--strategy", "random", "--batch", "5", "--device", "cuda", "--pool", pool.path(0)};
  expect_fault(words, 69, {"cuda"});
}

TEST(Memory, PoolThatDoesNotFit) {
  const Pool pool(random_pool(60000, 8, 0, 0, 405), {});
  expect_fault(pool.select("k_center", {"--memory", "0.0001"}), 71, {"memory"});
}

}  // namespace
}  // namespace seine::test
