// Small pools with every awkward shape: in memory, as the oracle sees them, and as real HDF5 files.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "seine/comm.hpp"
#include "seine/request.hpp"

namespace seine::test {

enum class Dtype { f16, f32, f64 };

// The content of a pool, as stored. Values must be exact in the type they are stored in: see round_to.
struct TestPool {
  std::int64_t rows = 0, dim = 0, classes = 0, passes = 0;        // classes 0: no probabilities; passes 0: [N,C]
  std::vector<double> x = {};                                     // [rows, dim]
  std::vector<double> p = {};                                     // [rows, max(passes, 1), classes]
  bool logits = false;                                            // p is stored as `logits`
  std::vector<std::int64_t> labels = {}, reference_classes = {};  // empty: no such dataset
  std::vector<std::int64_t> numbers = {};                         // integer ids
  std::vector<std::string> words = {};                            // text ids

  std::string id(std::int64_t row) const;
};

struct Storage {
  std::vector<std::int64_t> shard_rows = {};  // empty: one file; zeros are empty files
  Dtype x = Dtype::f32, p = Dtype::f32;
  std::int64_t chunk_rows = 0;  // 0: contiguous
  int gzip = 0;                 // level, with chunks
  bool fixed_text = false;      // text ids of fixed length
  bool narrow_ids = false;      // int32 ids
  std::string name = "part";
  std::string embeddings = "embeddings", probabilities = "probabilities";  // dataset names
};

// Rounds the values to what these types can hold.
void round_to(TestPool& pool, Dtype x, Dtype p);

std::vector<std::int64_t> even_shards(std::int64_t rows, int shards);
std::vector<std::int64_t> uneven_shards(std::int64_t rows, int shards);  // one of them empty where shards > 2

// Writes the pool into `folder`; the paths, in order.
std::vector<std::string> write_pool(const TestPool& pool, const Storage& storage, const std::string& folder);
void write_text(const std::string& path, const std::string& text);
std::string content(const std::string& path);  // of a file; empty where there is none
// Until this file is there. Asleep: ranks at a barrier would take the processor from those that work.
void wait_for_file(const std::string& path, double limit_seconds = 600);

// --- Pools. Deterministic on every machine: only integers, sums and products of draws. ---

// Overlapping clusters without near-ties; probabilities where classes > 0, by passes where passes > 0.
TestPool random_pool(std::int64_t rows, std::int64_t dim, std::int64_t classes, std::int64_t passes,
                     std::uint64_t seed);
// Small integers: many duplicates and exact ties, some zero rows; probabilities are multiples of 1/8, some one-hot.
TestPool grid_pool(std::int64_t rows, std::int64_t dim, std::int64_t classes, std::int64_t passes, std::uint64_t seed);
// x = these values in one dimension.
TestPool line_pool(const std::vector<double>& x);
void add_number_ids(TestPool& pool);  // not in order, some negative
void add_word_ids(TestPool& pool);    // UTF-8, of different lengths, with commas and quotes

// --- Who may be returned ---

struct Lists {  // rows
  std::vector<std::int64_t> labelled = {}, pending = {}, excluded = {}, candidates = {};
};

struct Scenario {
  TestPool pool = {};
  Storage storage = {};
  Lists lists = {};
  std::optional<TestPool> labelled_pool = {};
  bool ignore_labels = false;  // --labels none
};

// Writes the files of the scenario below `folder` and the request that reads them.
PoolRequest write_scenario(const Scenario& scenario, const std::string& folder);
// The same, as the oracle sees it.
View view_of(const Scenario& scenario);

// A temporary folder, removed in the end.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> names() const;  // of the files in it, sorted

 private:
  std::string path_;
};

// The same for all ranks of `comm`; made and removed by rank 0. Construction and destruction are collective.
class SharedFolder {
 public:
  explicit SharedFolder(const Comm& comm);
  ~SharedFolder();
  SharedFolder(const SharedFolder&) = delete;
  SharedFolder& operator=(const SharedFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  const Comm& comm_;
  std::optional<Folder> owner_;
  std::string path_;
};

// Collective: rank 0 writes, everybody gets the request.
PoolRequest share_scenario(const Comm& comm, const Scenario& scenario, const SharedFolder& folder);

}  // namespace seine::test
