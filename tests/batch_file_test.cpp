#include "seine/batch_file.hpp"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>

#include "atomic_file.hpp"
#include "errors.hpp"
#include "pools.hpp"
#include "reading/hdf5.hpp"
#include "seine/checkpoint.hpp"
#include "seine/run.hpp"

namespace seine::test {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Batch small_batch(bool text_ids) {
  Batch batch;
  batch.selection.add(17, 0.1f, kInfinity);
  batch.selection.add(3, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<double>::quiet_NaN());
  batch.selection.add(std::int64_t{1} << 40, -1e-30f, 0.1);
  batch.selection.add(0, 2, -kInfinity);
  batch.ids.text = text_ids;
  if (text_ids)
    batch.ids.words = {"plain", "with, comma", "a \"quote\"\nand a line", "Zo\u00eb"};
  else
    batch.ids.numbers = {-5, std::numeric_limits<std::int64_t>::max(), std::numeric_limits<std::int64_t>::min(), 0};
  Request request;
  request.strategy = "k_center";
  request.seed = std::numeric_limits<std::uint64_t>::max();
  batch.strategy = request.strategy;
  batch.request_json = request.to_json();
  batch.pool_fingerprint = "0123456789abcdef";
  batch.digest = digest_of(batch.selection.rows);
  batch.seed = request.seed;
  batch.pool_rows = (std::int64_t{1} << 40) + 1;
  batch.candidates = 4;
  batch.truncated = true;
  batch.certificate.kind = "radius";
  batch.certificate.objective = "largest distance";
  batch.certificate.value = 1.5;
  batch.certificate.bound = 0.75;
  batch.certificate.ratio = 2;
  batch.certificate.rows = batch.pool_rows;
  batch.timing.read = 0.25;
  batch.timing.ranks = 3;
  batch.timing.threads = 2;
  batch.timing.device = "cpu";
  batch.timing.share = 0.125;
  batch.timing.memory = 1 << 26;
  return batch;
}

// --- reading HDF5 back ---

template <class T>
T attribute(hid_t object, const char* name, hid_t type) {
  T value{};
  const h5::Id found(H5Aopen(object, name, H5P_DEFAULT), H5Aclose);
  EXPECT_TRUE(found && H5Aread(found.get(), type, &value) >= 0) << name;
  return value;
}
std::string text_attribute(hid_t object, const char* name) {
  char* const text = attribute<char*>(object, name, h5::text_type().get());
  const std::string copy = text ? text : "";
  H5free_memory(text);
  return copy;
}
std::int64_t integer_attribute(hid_t object, const char* name) {
  return attribute<std::int64_t>(object, name, H5T_NATIVE_INT64);
}
double number_attribute(hid_t object, const char* name) {
  return attribute<double>(object, name, H5T_NATIVE_DOUBLE);
}

template <class T>
std::vector<T> column(hid_t file, const std::string& name, hid_t type) {
  const h5::Id dataset = h5::open_dataset(file, name, "batch");
  std::vector<T> values(h5::shape_of(dataset.get()).at(0));
  h5::read_rows(dataset.get(), type, 0, values.size(), values.data(), "batch", name);
  return values;
}

// Equal to the bit, but for the kind of NaN.
template <class T>
void expect_same(const std::vector<T>& found, const std::vector<T>& expected) {
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(std::isnan(found[i]), std::isnan(expected[i])) << i;
    EXPECT_TRUE(std::isnan(found[i]) || found[i] == expected[i]) << i;
  }
}

TEST(BatchFile, Hdf5HoldsEverything) {
  for (const bool text : {false, true}) {
    const Folder folder;
    const std::string path = folder.path() + "/batch.h5";
    const Batch batch = small_batch(text);
    write_batch(path, batch);

    const h5::Id file = h5::open_file(path);
    EXPECT_EQ(column<std::int64_t>(file.get(), "rows", H5T_NATIVE_INT64), batch.selection.rows);
    expect_same(column<float>(file.get(), "score", H5T_NATIVE_FLOAT), batch.selection.scores);
    expect_same(column<double>(file.get(), "gain", H5T_NATIVE_DOUBLE), batch.selection.gains);
    if (text) {
      const h5::Id ids = h5::open_dataset(file.get(), "ids", path);
      EXPECT_EQ(h5::read_text_rows(ids.get(), 0, 4, path, "ids"), batch.ids.words);
    } else {
      EXPECT_EQ(column<std::int64_t>(file.get(), "ids", H5T_NATIVE_INT64), batch.ids.numbers);
    }
    EXPECT_EQ(text_attribute(file.get(), "format"), "seine-batch");
    EXPECT_EQ(integer_attribute(file.get(), "format_version"), 1);
    EXPECT_EQ(text_attribute(file.get(), "strategy"), "k_center");
    EXPECT_EQ(attribute<std::uint64_t>(file.get(), "seed", H5T_NATIVE_UINT64), batch.seed);
    EXPECT_EQ(text_attribute(file.get(), "request"), batch.request_json);
    EXPECT_EQ(integer_attribute(file.get(), "pool_rows"), batch.pool_rows);
    EXPECT_EQ(integer_attribute(file.get(), "candidates"), 4);
    EXPECT_EQ(integer_attribute(file.get(), "truncated"), 1);
    EXPECT_EQ(text_attribute(file.get(), "pool_fingerprint"), batch.pool_fingerprint);
    EXPECT_EQ(text_attribute(file.get(), "digest"), batch.digest);
    EXPECT_NE(text_attribute(file.get(), "software_version"), "");
    const std::string created = text_attribute(file.get(), "created");
    EXPECT_TRUE(created.size() == 20 && created[10] == 'T' && created.back() == 'Z') << created;

    const h5::Id certificate(H5Gopen2(file.get(), "certificate", H5P_DEFAULT), H5Gclose);
    EXPECT_EQ(text_attribute(certificate.get(), "kind"), "radius");
    EXPECT_EQ(text_attribute(certificate.get(), "bound_kind"), "");
    EXPECT_EQ(number_attribute(certificate.get(), "bound"), 0.75);
    EXPECT_TRUE(std::isnan(number_attribute(certificate.get(), "random")));
    EXPECT_EQ(integer_attribute(certificate.get(), "rows"), batch.pool_rows);
    const h5::Id timing(H5Gopen2(file.get(), "timing", H5P_DEFAULT), H5Gclose);
    EXPECT_EQ(number_attribute(timing.get(), "read"), 0.25);
    EXPECT_EQ(number_attribute(timing.get(), "share"), 0.125);
    EXPECT_EQ(integer_attribute(timing.get(), "memory"), 1 << 26);
    EXPECT_GT(number_attribute(timing.get(), "write"), 0);
    EXPECT_EQ(integer_attribute(timing.get(), "ranks"), 3);
    EXPECT_EQ(text_attribute(timing.get(), "device"), "cpu");
    EXPECT_EQ(folder.names(), std::vector<std::string>{"batch.h5"});
  }
}

TEST(BatchFile, CsvIsRfc4180) {
  const Folder folder;
  const std::string path = folder.path() + "/batch.csv";
  write_batch(path, small_batch(true));
  EXPECT_EQ(content(path),
            "id,row,score,gain\n"
            "plain,17,0.10000000149011612,inf\n"
            "\"with, comma\",3,nan,nan\n"
            "\"a \"\"quote\"\"\nand a line\",1099511627776,-1.0000000031710769e-30,0.1\n"
            "Zo\u00eb,0,2,-inf\n");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"batch.csv"});
}

TEST(BatchFile, JsonHoldsEverything) {
  const Folder folder;
  const std::string path = folder.path() + "/batch.json";
  const Batch batch = small_batch(true);
  write_batch(path, batch);
  const auto json = nlohmann::json::parse(content(path));
  EXPECT_EQ(json["format"], "seine-batch");
  EXPECT_EQ(json["format_version"], 1);
  EXPECT_EQ(json["seed"].get<std::uint64_t>(), batch.seed);
  EXPECT_EQ(json["request"], nlohmann::json::parse(batch.request_json));
  EXPECT_EQ(json["truncated"], 1);
  EXPECT_EQ(json["digest"], batch.digest);
  EXPECT_EQ(json["ids"].get<std::vector<std::string>>(), batch.ids.words);
  EXPECT_EQ(json["rows"].get<std::vector<std::int64_t>>(), batch.selection.rows);
  EXPECT_EQ(json["score"][0].get<float>(), 0.1f);
  EXPECT_TRUE(json["score"][1].is_null());
  EXPECT_EQ(json["gain"][2].get<double>(), 0.1);
  EXPECT_TRUE(json["gain"][0].is_null() && json["gain"][1].is_null() && json["gain"][3].is_null());
  EXPECT_EQ(json["certificate"]["value"].get<double>(), 1.5);
  EXPECT_TRUE(json["certificate"]["random"].is_null());
  EXPECT_EQ(json["timing"]["ranks"], 3);
  for (const char* key : {"strategy", "pool_rows", "candidates", "pool_fingerprint", "software_version", "created"})
    EXPECT_TRUE(json.contains(key)) << key;
}

TEST(BatchFile, EqualBatchesDifferInTimesOnly) {
  const Folder folder;
  std::string texts[2];
  for (std::string& text : texts) {
    write_batch(folder.path() + "/batch.h5", small_batch(true));
    text = content(folder.path() + "/batch.h5");
  }
  ASSERT_EQ(texts[0].size(), texts[1].size());
  int different = 0;
  for (std::size_t i = 0; i < texts[0].size(); ++i) different += texts[0][i] != texts[1][i];
  EXPECT_LE(different, 8 + 20);  // seconds of writing, and `created`
}

TEST(BatchFile, DigestIsXxh3OfLittleEndianRows) {
  EXPECT_EQ(digest_of({}), "99aa06d3014798d86001c324468d497f");  // from python-xxhash
  EXPECT_EQ(digest_of(std::vector<std::int64_t>{5, 3, 9}), "45d5fac03fade14a3eadc59d2ed9b80a");
}

Request request_to(const std::string& path) {
  Request request;
  request.out = path;
  return request;
}

TEST(BatchFile, ReplacesAnOlderOutput) {
  const Folder folder;
  const std::string path = folder.path() + "/batch.csv";
  write_text(path, std::string(100000, 'x'));
  Request request = request_to(path);
  EXPECT_EQ(error_of([&] { check_output(request); }).code(), Exit::cannot_create);  // somebody's file
  request.force = true;
  check_output(request);
  EXPECT_EQ(content(path).size(), 100000U);  // untouched by the check
  write_batch(path, small_batch(false));
  EXPECT_TRUE(content(path).starts_with("id,row,score,gain\n-5,17,"));
}

// What a run left that died before it had removed both generations of its checkpoint.
TEST(BatchFile, ReplacesATableOnlyWhereACheckpointRemembersIt) {
  const Folder folder;
  Request request = request_to(folder.path() + "/batch.csv");
  request.checkpoint = folder.path() + "/checkpoint";
  write_batch(request.out, small_batch(false));
  const auto code = [](const Request& asked) { return error_of([&] { check_output(asked); }).code(); };
  EXPECT_EQ(code(request), Exit::cannot_create);  // there is none
  Checkpoint checkpoint;
  for (const char* name : {"/checkpoint", "/checkpoint.previous"}) {
    checkpoint.facts.clear();
    write_text(folder.path() + name, checkpoint.to_bytes());
    EXPECT_EQ(code(request), Exit::cannot_create) << name;
    checkpoint.facts[Checkpoint::kOut] = std::filesystem::canonical(request.out);
    write_text(folder.path() + name, checkpoint.to_bytes());
    EXPECT_EQ(code(request), Exit::done) << name;
    Request other = request;
    other.out = std::filesystem::relative(request.out);
    EXPECT_EQ(code(other), Exit::done) << other.out;
    other.out = folder.path() + "/precious.csv";
    write_batch(other.out, small_batch(false));
    EXPECT_EQ(code(other), Exit::cannot_create) << name;
    other = request;
    other.restart = true;
    EXPECT_EQ(code(other), Exit::cannot_create) << name;
    std::filesystem::remove(folder.path() + name);
  }
}

// --- what cannot be written ---

TEST(BatchFile, RefusesUnknownEndings) {
  for (const char* name : {"batch", "batch.npy", "batch.h5.gz", "h5", "batch.H5"}) {
    const Error error = error_of([&] { check_output(request_to(name)); });
    EXPECT_EQ(error.code(), Exit::usage) << name;
    for (const char* ending : {".h5", ".csv", ".json"})
      EXPECT_NE(std::string(error.what()).find(ending), std::string::npos) << error.what();
  }
}

TEST(BatchFile, RefusesFoldersThatTakeNoFile) {
  const Folder folder;
  write_text(folder.path() + "/file", "");
  std::filesystem::create_directory(folder.path() + "/folder.h5");
  for (const std::string& path : {folder.path() + "/missing/batch.h5", folder.path() + "/file/batch.h5",
                                  folder.path() + "/folder.h5", std::string("/proc/batch.h5")}) {
    EXPECT_EQ(error_of([&] { check_output(request_to(path)); }).code(), Exit::cannot_create) << path;
    const Error error = error_of([&] { write_batch(path, small_batch(false)); });
    EXPECT_EQ(error.code(), Exit::cannot_create) << path;
    EXPECT_NE(std::string(error.what()).find(path), std::string::npos) << error.what();
  }
  EXPECT_EQ(folder.names(), (std::vector<std::string>{"file", "folder.h5"}));
}

TEST(BatchFile, RefusesReadOnlyFolders) {
  if (::geteuid() == 0) GTEST_SKIP() << "permissions do not bind root";
  const Folder folder;
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  EXPECT_EQ(error_of([&] { check_output(request_to(folder.path() + "/batch.h5")); }).code(), Exit::cannot_create);
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_all);
}

// Writes a batch of megabytes over an older output in `folder`, where there is room for less.
void expect_old_output_kept(const std::string& folder) {
  Batch batch = small_batch(false);
  for (int i = 0; i < 100000; ++i) {
    batch.selection.add(i, 0, 0);
    batch.ids.numbers.push_back(i);
  }
  for (const char* ending : {".h5", ".csv", ".json"}) {
    const std::string path = folder + "/batch" + ending;
    write_text(path, "old");
    const Error error = error_of([&] { write_batch(path, batch); });
    EXPECT_EQ(error.code(), Exit::cannot_create) << ending;
    EXPECT_EQ(content(path), "old") << ending;
    EXPECT_FALSE(std::filesystem::exists(AtomicFile(path).temporary())) << ending;
  }
}

TEST(BatchFile, FileSizeLimitLeavesTheOldOutput) {
  const Folder folder;
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{65536, before.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  expect_old_output_kept(folder.path());
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
}

TEST(BatchFile, FullDiskLeavesTheOldOutput) {
  const Folder folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=65536") != 0)
    GTEST_SKIP() << "no small file system can be mounted here: " << std::strerror(errno);
  expect_old_output_kept(folder.path());
  EXPECT_EQ(::umount(folder.path().c_str()), 0);
}

// --- temporaries ---

TEST(AtomicFile, LeavesNothingUnlessCommitted) {
  const Folder folder;
  const std::string path = folder.path() + "/text.csv";
  {
    AtomicFile file(path);
    file.write_text("one");
    EXPECT_EQ(std::filesystem::path(file.temporary()).parent_path(), folder.path());
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  EXPECT_TRUE(folder.names().empty());
  {
    AtomicFile file(path);
    file.write_text("three");
    file.write_text("two");
    file.commit();
  }
  EXPECT_EQ(content(path), "two");
  EXPECT_EQ(folder.names(), std::vector<std::string>{"text.csv"});
}

TEST(AtomicFile, RemovesWhatDeadProcessesLeft) {
  const Folder folder;
  const std::string path = folder.path() + "/text.csv";
  const std::string own = AtomicFile(path).temporary();
  const std::string stem = own.substr(0, own.rfind('-') + 1);
  const std::string dead = stem + "999999999", living = stem + std::to_string(::getppid()), foreign = stem + "1x";
  for (const std::string& name : {dead, living, foreign}) write_text(name, "left over");
  EXPECT_TRUE(std::filesystem::exists(dead));
  const AtomicFile file(path);
  EXPECT_FALSE(std::filesystem::exists(dead));  // no system has that many processes
  EXPECT_TRUE(std::filesystem::exists(living));
  EXPECT_TRUE(std::filesystem::exists(foreign));
}

// --- requests as JSON ---

TEST(RequestJson, HoldsWhatDecidesTheBatchAndNothingElse) {
  Request request;
  request.pool.pool = {"b/*.h5", "a.h5"};
  request.pool.names.embeddings = "features";
  request.pool.labelled = {"done.csv"};
  request.strategy = "k_center";
  request.set = {{"first", "max_norm"}};
  request.batch = 12;
  request.keep = 2.5;
  request.seed = std::numeric_limits<std::uint64_t>::max();
  const std::string text = request.to_json();
  const auto json = nlohmann::json::parse(text);
  EXPECT_EQ(json["pool"], (std::vector<std::string>{"b/*.h5", "a.h5"}));
  EXPECT_EQ(json["embeddings"], "features");
  EXPECT_EQ(json["labelled"], std::vector<std::string>{"done.csv"});
  EXPECT_EQ(json["set"]["first"], "max_norm");
  EXPECT_EQ(json["batch"], 12);
  EXPECT_EQ(json["keep"], 2.5);
  EXPECT_TRUE(json["score"].is_null());
  EXPECT_EQ(json["seed"].get<std::uint64_t>(), request.seed);

  request.out = "elsewhere.h5";
  request.pool.threads = 7;
  request.pool.device = "cuda";
  request.pool.memory_gib = 3;
  EXPECT_EQ(request.to_json(), text);
  request.pool.strict_ids = true;
  EXPECT_NE(request.to_json(), text);
}

TEST(RequestJson, ScoreRequest) {
  ScoreRequest request;
  request.strategy = "margin";
  request.out = "scores";
  const auto json = nlohmann::json::parse(request.to_json());
  EXPECT_EQ(json["strategy"], "margin");
  EXPECT_FALSE(json.contains("out"));
}

TEST(Certificate, RatioOfNothingToNothingIsOne) {
  EXPECT_EQ(certificate_ratio(0, 0), 1);
  EXPECT_EQ(certificate_ratio(3, 2), 1.5);
  EXPECT_EQ(certificate_ratio(1, 0), kInfinity);
  EXPECT_TRUE(std::isnan(certificate_ratio(Certificate::kNone, Certificate::kNone)));
}

}  // namespace
}  // namespace seine::test
