#include "seine/synthesis.hpp"

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

#include "errors.hpp"
#include "pools.hpp"
#include "reading/hdf5.hpp"
#include "seine/error.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

SynthesisRequest small_request(const std::string& out) {
  SynthesisRequest request;
  request.rows = 1003;
  request.dim = 7;
  request.classes = 3;
  request.passes = 2;
  request.clusters = 5;
  request.labelled = 0.25;
  request.shards = 4;
  request.seed = 11;
  request.out = out;
  return request;
}

std::vector<std::string> shards_in(const std::string& folder) {
  std::set<std::string> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.insert(entry.path().string());
  return {paths.begin(), paths.end()};
}

std::vector<hsize_t> shape_in(const std::string& path, const std::string& name) {
  const h5::Id file = h5::open_file(path);
  return h5::shape_of(h5::open_dataset(file.get(), name, path).get());
}

// All rows of all shards; a `type` that is not the file's is a conversion by the library.
template <class T>
std::vector<T> column(const std::string& folder, const std::string& name, hid_t type) {
  std::vector<T> values;
  for (const std::string& path : shards_in(folder)) {
    const h5::Id file = h5::open_file(path);
    const h5::Id dataset = h5::open_dataset(file.get(), name, path);
    std::size_t size = 1;
    for (const hsize_t extent : h5::shape_of(dataset.get())) size *= extent;
    const std::size_t before = values.size();
    values.resize(before + size);
    h5::read_rows(dataset.get(), type, 0, h5::shape_of(dataset.get())[0], values.data() + before, path, name);
  }
  return values;
}

std::vector<std::string> words(const std::string& folder) {
  std::vector<std::string> all;
  for (const std::string& path : shards_in(folder)) {
    const h5::Id file = h5::open_file(path);
    const h5::Id dataset = h5::open_dataset(file.get(), "ids", path);
    for (const std::string& word : h5::read_text_rows(dataset.get(), 0, h5::shape_of(dataset.get())[0], path, "ids"))
      all.push_back(word);
  }
  return all;
}

Exit code_of(const SynthesisRequest& request) {
  return error_of([&] { synthesise(request, world(), Console()); }).code();
}

TEST(Synthesis, SameRowsForAnyShardsAndRanks) {
  const SharedFolder together(world()), alone(world());
  SynthesisRequest request = small_request(together.path());
  synthesise(request, world(), Console());
  request.shards = 7;
  request.out = alone.path();
  if (world().is_root()) synthesise(request, Comm::self(), Console());
  world().barrier();
  EXPECT_EQ(shards_in(together.path()).size(), 4U);
  EXPECT_EQ(shards_in(alone.path()).size(), 7U);
  for (const char* name : {"embeddings", "probabilities"})
    EXPECT_EQ(column<float>(together.path(), name, H5T_NATIVE_FLOAT),
              column<float>(alone.path(), name, H5T_NATIVE_FLOAT));
  for (const char* name : {"ids", "labels", "classes"})
    EXPECT_EQ(column<std::int64_t>(together.path(), name, H5T_NATIVE_INT64),
              column<std::int64_t>(alone.path(), name, H5T_NATIVE_INT64));
}

TEST(Synthesis, RowsAreFixedForEver) {
  const SharedFolder folder(world());
  SynthesisRequest request = small_request(folder.path());
  request.dtype = "f64";
  synthesise(request, world(), Console());
  const std::vector<double> x = column<double>(folder.path(), "embeddings", H5T_NATIVE_DOUBLE);
  const std::vector<double> p = column<double>(folder.path(), "probabilities", H5T_NATIVE_DOUBLE);
  EXPECT_EQ(x.at(0), 0x1.f0fa535ec37f5p-1);
  EXPECT_EQ(x.at(7020), -0x1.4b142f3b1f32ap+1);
  EXPECT_EQ(p.at(0), 0x1.108eeca028dd6p-5);
  EXPECT_EQ(p.at(6017), 0x1.4e03ba2096008p-3);
}

TEST(Synthesis, ShapesAndValuesAreThoseOfAPool) {
  for (const char* dtype : {"f16", "f32", "f64"}) {
    const SharedFolder folder(world());
    SynthesisRequest request = small_request(folder.path());
    request.dtype = dtype;
    synthesise(request, world(), Console());

    const std::string first = shards_in(folder.path()).front();
    EXPECT_EQ(std::filesystem::path(first).filename(), "part-00000.h5");
    EXPECT_EQ(shape_in(first, "embeddings"), (std::vector<hsize_t>{251, 7}));
    EXPECT_EQ(shape_in(first, "probabilities"), (std::vector<hsize_t>{251, 2, 3}));
    const h5::Id file = h5::open_file(first);
    const h5::Id type(H5Dget_type(h5::open_dataset(file.get(), "embeddings", first).get()), H5Tclose);
    EXPECT_EQ(H5Tget_size(type.get()), std::string(dtype) == "f16" ? 2U : std::string(dtype) == "f32" ? 4U : 8U);
    EXPECT_EQ(h5::is_half(type.get()), std::string(dtype) == "f16");

    double largest = 0;
    for (const double value : column<double>(folder.path(), "embeddings", H5T_NATIVE_DOUBLE)) {
      ASSERT_TRUE(std::isfinite(value));
      largest = std::max(largest, std::abs(value));
    }
    EXPECT_TRUE(largest > 2 && largest < 8) << largest;
    const std::vector<double> p = column<double>(folder.path(), "probabilities", H5T_NATIVE_DOUBLE);
    for (std::size_t i = 0; i < p.size(); i += 3) {
      EXPECT_GE(std::min({p[i], p[i + 1], p[i + 2]}), 0);
      EXPECT_NEAR(p[i] + p[i + 1] + p[i + 2], 1, std::string(dtype) == "f16" ? 1e-3 : 1e-6);
    }
  }
}

TEST(Synthesis, ClassesLabelsAndIds) {
  const SharedFolder folder(world());
  synthesise(small_request(folder.path()), world(), Console());
  const auto classes = column<std::int64_t>(folder.path(), "classes", H5T_NATIVE_INT64);
  const auto labels = column<std::int64_t>(folder.path(), "labels", H5T_NATIVE_INT64);
  const auto ids = column<std::int64_t>(folder.path(), "ids", H5T_NATIVE_INT64);
  const auto p = column<float>(folder.path(), "probabilities", H5T_NATIVE_FLOAT);
  ASSERT_EQ(classes.size(), 1003U);
  EXPECT_EQ(std::set(classes.begin(), classes.end()), (std::set<std::int64_t>{0, 1, 2}));
  EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), ids.size());
  int labelled = 0, right = 0;
  for (std::size_t i = 0; i < classes.size(); ++i) {
    EXPECT_TRUE(labels[i] == -1 || labels[i] == classes[i]);
    labelled += labels[i] >= 0;
    const auto predicted = std::max_element(p.begin() + 6 * i, p.begin() + 6 * i + 3) - (p.begin() + 6 * i);
    right += predicted == classes[i];
  }
  EXPECT_NEAR(labelled, 250, 60);
  EXPECT_NEAR(right, 800, 150);  // a model that is mostly right, and not sure
}

TEST(Synthesis, OptionalDatasets) {
  const SharedFolder without(world()), text(world());
  SynthesisRequest request = small_request(without.path());
  request.ids = "none";
  request.labelled = 0;
  request.passes = 0;
  synthesise(request, world(), Console());
  const std::string first = shards_in(without.path()).front();
  const h5::Id file = h5::open_file(first);
  EXPECT_FALSE(h5::exists(file.get(), "ids"));
  EXPECT_FALSE(h5::exists(file.get(), "labels"));
  EXPECT_EQ(shape_in(first, "probabilities"), (std::vector<hsize_t>{251, 3}));

  request.out = text.path();
  request.ids = "string";
  synthesise(request, world(), Console());
  const std::vector<std::string> ids = words(text.path());
  ASSERT_EQ(ids.size(), 1003U);
  EXPECT_EQ(ids[0], "s00000000");
  EXPECT_EQ(ids[1002], "s00001002");
}

TEST(Synthesis, OneRowPerShardAndMoreRanksThanShards) {
  const SharedFolder folder(world());
  SynthesisRequest request = small_request(folder.path() + "/made/on/the/way");
  request.rows = request.shards = 2;
  synthesise(request, world(), Console());
  EXPECT_EQ(column<float>(request.out, "embeddings", H5T_NATIVE_FLOAT).size(), 14U);
  world().barrier();
}

TEST(Synthesis, RefusesBadRequests) {
  const SharedFolder folder(world());
  const auto code_with = [&](auto&& change) {
    SynthesisRequest request = small_request(folder.path());
    change(request);
    return code_of(request);
  };
  EXPECT_EQ(code_with([](auto& r) { r.rows = 0; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.dim = 0; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.classes = 1; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.passes = -1; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.clusters = 0; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.spread = std::nan(""); }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.labelled = 1.5; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.dtype = "bf16"; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.ids = "uuid"; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.shards = 0; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.shards = 1004; }), Exit::usage);
  EXPECT_EQ(code_with([](auto& r) { r.out = "/proc/nothing/here"; }), Exit::cannot_create);
  EXPECT_TRUE(shards_in(folder.path()).empty());
}

// The shard belongs to one rank only; all must end, and no temporary may stay.
TEST(Synthesis, OneShardThatCannotBeWrittenEndsAll) {
  const SharedFolder folder(world());
  const std::string blocked = folder.path() + "/part-00001.h5";
  if (world().is_root()) std::filesystem::create_directory(blocked);
  world().barrier();
  EXPECT_EQ(code_of(small_request(folder.path())), Exit::cannot_create);
  world().barrier();
  for (const std::string& path : shards_in(folder.path())) EXPECT_EQ(path.find(".part-000"), std::string::npos) << path;
  world().barrier();
}

TEST(Synthesis, FullDiskEndsAll) {
  const SharedFolder folder(world());
  int failure = 0;
  if (world().is_root() && ::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=1m") != 0) failure = errno;
  failure = world().broadcast(failure);
  if (failure != 0) GTEST_SKIP() << "no small file system can be mounted here: " << std::strerror(failure);
  SynthesisRequest request = small_request(folder.path());
  request.rows = 100000;
  EXPECT_EQ(code_of(request), Exit::cannot_create);
  world().barrier();
  for (const std::string& path : shards_in(folder.path())) EXPECT_EQ(path.find(".part-000"), std::string::npos) << path;
  world().barrier();
  const int unmounted = world().is_root() ? ::umount(folder.path().c_str()) : 0;
  EXPECT_EQ(unmounted, 0);
}

}  // namespace
}  // namespace seine::test
