#include "pools.hpp"

#include <hdf5.h>
#include <immintrin.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "seine/random.hpp"

namespace seine::test {
namespace {

void check(bool holds, const std::string& what) {
  if (!holds) throw std::runtime_error("test pool: " + what);
}

std::uint16_t half_of(double value) {
  return static_cast<std::uint16_t>(_cvtss_sh(static_cast<float>(value), _MM_FROUND_TO_NEAREST_INT));
}

// An HDF5 handle.
class Handle {
 public:
  Handle(hid_t id, herr_t (*close)(hid_t), const char* what) : id_(id), close_(close) { check(id >= 0, what); }
  ~Handle() { close_(id_); }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  operator hid_t() const { return id_; }

 private:
  hid_t id_;
  herr_t (*close_)(hid_t);
};

hid_t half_type() {
  const hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  check(H5Tset_fields(type, 15, 10, 5, 0, 10) >= 0 && H5Tset_size(type, 2) >= 0 && H5Tset_ebias(type, 15) >= 0,
        "float16");
  return type;
}

void write_dataset(hid_t file, const char* name, const std::vector<hsize_t>& shape, hid_t type, const void* data,
                   const Storage& storage) {
  const Handle space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose, "space");
  const Handle plan(H5Pcreate(H5P_DATASET_CREATE), H5Pclose, "plan");
  if (storage.chunk_rows > 0 && shape[0] > 0) {
    std::vector<hsize_t> chunk = shape;
    chunk[0] = std::min<hsize_t>(chunk[0], static_cast<hsize_t>(storage.chunk_rows));
    check(H5Pset_chunk(plan, static_cast<int>(chunk.size()), chunk.data()) >= 0, "chunk");
    if (storage.gzip > 0) check(H5Pset_deflate(plan, static_cast<unsigned>(storage.gzip)) >= 0, "gzip");
  }
  const Handle set(H5Dcreate2(file, name, type, space, H5P_DEFAULT, plan, H5P_DEFAULT), H5Dclose, name);
  if (shape[0] > 0) check(H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0, name);
}

void write_reals(hid_t file, const char* name, const std::vector<hsize_t>& shape, const double* values, Dtype dtype,
                 const Storage& storage) {
  std::size_t count = 1;
  for (const hsize_t n : shape) count *= n;
  if (dtype == Dtype::f64) {
    write_dataset(file, name, shape, H5T_IEEE_F64LE, values, storage);
  } else if (dtype == Dtype::f32) {
    std::vector<float> out(count);
    for (std::size_t i = 0; i < count; ++i) out[i] = static_cast<float>(values[i]);
    write_dataset(file, name, shape, H5T_IEEE_F32LE, out.data(), storage);
  } else {
    std::vector<std::uint16_t> out(count);
    for (std::size_t i = 0; i < count; ++i) out[i] = half_of(values[i]);
    const Handle type(half_type(), H5Tclose, "float16");
    write_dataset(file, name, shape, type, out.data(), storage);
  }
}

void write_words(hid_t file, hsize_t count, const std::string* words, const Storage& storage) {
  const Handle type(H5Tcopy(H5T_C_S1), H5Tclose, "text");
  check(H5Tset_cset(type, H5T_CSET_UTF8) >= 0, "UTF-8");
  if (storage.fixed_text) {
    std::size_t length = 1;
    for (hsize_t i = 0; i < count; ++i) length = std::max(length, words[i].size());
    check(H5Tset_size(type, length) >= 0 && H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0, "text length");
    std::vector<char> out(length * static_cast<std::size_t>(count) + 1, '\0');
    for (hsize_t i = 0; i < count; ++i) std::copy(words[i].begin(), words[i].end(), out.begin() + i * length);
    write_dataset(file, "ids", {count}, type, out.data(), storage);
  } else {
    check(H5Tset_size(type, H5T_VARIABLE) >= 0, "text length");
    std::vector<const char*> out;
    for (hsize_t i = 0; i < count; ++i) out.push_back(words[i].c_str());
    write_dataset(file, "ids", {count}, type, out.data(), storage);
  }
}

double draw(std::uint64_t seed, const char* what, std::int64_t index) {
  return uniform(seed, Purpose(what), static_cast<std::uint64_t>(index));
}

// About normal, from sums only.
double bell(std::uint64_t seed, const char* what, std::int64_t index) {
  double sum = -2;
  for (int i = 0; i < 4; ++i) sum += draw(seed, what, 4 * index + i);
  return sum * 1.7;
}

std::vector<std::string> list_file(const std::string& path, const TestPool& pool, const std::vector<std::int64_t>& rows,
                                   bool write) {
  if (rows.empty()) return {};
  std::string text;
  for (const std::int64_t row : rows) text += pool.id(row) + "\n";
  if (write) write_text(path, text);
  return {path};
}

std::vector<std::string> shard_paths(const Storage& storage, const std::string& folder) {
  std::vector<std::string> paths;
  for (std::size_t s = 0; s < std::max<std::size_t>(1, storage.shard_rows.size()); ++s)
    paths.push_back(folder + "/" + storage.name + "-" + std::to_string(s) + ".h5");
  return paths;
}

PoolRequest scenario_request(const Scenario& scenario, const std::string& folder, bool write) {
  PoolRequest request;
  request.device = "cpu";
  request.threads = 1;
  request.pool = write ? write_pool(scenario.pool, scenario.storage, folder) : shard_paths(scenario.storage, folder);
  request.labelled = list_file(folder + "/labelled.txt", scenario.pool, scenario.lists.labelled, write);
  request.pending = list_file(folder + "/pending.txt", scenario.pool, scenario.lists.pending, write);
  request.exclude = list_file(folder + "/exclude.txt", scenario.pool, scenario.lists.excluded, write);
  request.candidates = list_file(folder + "/candidates.txt", scenario.pool, scenario.lists.candidates, write);
  if (scenario.labelled_pool) {
    Storage storage;
    storage.name = "outside";
    request.labelled_pool = write ? write_pool(*scenario.labelled_pool, storage, folder) : shard_paths(storage, folder);
  }
  if (scenario.ignore_labels) request.names.labels = "none";
  if (scenario.storage.embeddings != "train") request.names.embeddings = scenario.storage.embeddings;
  request.names.probabilities = scenario.storage.probabilities;
  return request;
}

}  // namespace

std::string TestPool::id(std::int64_t row) const {
  if (!words.empty()) return words[row];
  return std::to_string(numbers.empty() ? row : numbers[row]);
}

void round_to(TestPool& pool, Dtype x, Dtype p) {
  const auto round = [](std::vector<double>& values, Dtype type) {
    for (double& value : values) {
      if (type == Dtype::f32) value = static_cast<float>(value);
      if (type == Dtype::f16) value = _cvtsh_ss(half_of(value));
    }
  };
  round(pool.x, x);
  round(pool.p, p);
}

std::vector<std::int64_t> even_shards(std::int64_t rows, int shards) {
  std::vector<std::int64_t> sizes;
  for (int s = 0; s < shards; ++s) sizes.push_back(rows * (s + 1) / shards - rows * s / shards);
  return sizes;
}

std::vector<std::int64_t> uneven_shards(std::int64_t rows, int shards) {
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(shards), 0);
  std::int64_t left = rows;
  for (int s = 0; s < shards - 1; ++s) {
    if (shards > 2 && s == 1) continue;  // the empty one
    sizes[s] = std::min(left, 1 + left * (s % 3 + 1) / 5);
    left -= sizes[s];
  }
  sizes[shards - 1] += left;
  return sizes;
}

void write_text(const std::string& path, const std::string& text) {
  std::FILE* file = std::fopen(path.c_str(), "wb");
  check(file != nullptr, path);
  const bool whole = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  check((std::fclose(file) == 0) && whole, path);
}

std::string content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  bytes << file.rdbuf();  // which says nothing where a process has ended meanwhile, whose file in /proc this is
  return bytes.str();
}

void wait_for_file(const std::string& path, double limit_seconds) {
  constexpr double kTick = 0.005;
  for (double waited = 0; waited < limit_seconds && !std::filesystem::exists(path); waited += kTick)
    std::this_thread::sleep_for(std::chrono::duration<double>(kTick));
}

std::vector<std::string> write_pool(const TestPool& pool, const Storage& storage, const std::string& folder) {
  std::vector<std::int64_t> sizes = storage.shard_rows;
  if (sizes.empty()) sizes = {pool.rows};
  std::vector<std::string> paths = shard_paths(storage, folder);
  std::int64_t first = 0;
  for (std::size_t s = 0; s < sizes.size(); ++s) {
    const Handle file(H5Fcreate(paths[s].c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), H5Fclose, paths[s].c_str());
    const auto n = static_cast<hsize_t>(sizes[s]);
    const auto dim = static_cast<hsize_t>(pool.dim), classes = static_cast<hsize_t>(pool.classes);
    const auto passes = static_cast<hsize_t>(pool.passes);
    if (pool.dim > 0)
      write_reals(file, storage.embeddings.c_str(), {n, dim}, pool.x.data() + first * pool.dim, storage.x, storage);
    if (pool.classes > 0) {
      const std::int64_t per_row = std::max<std::int64_t>(pool.passes, 1) * pool.classes;
      const std::vector<hsize_t> shape =
          pool.passes > 0 ? std::vector<hsize_t>{n, passes, classes} : std::vector<hsize_t>{n, classes};
      write_reals(file, pool.logits ? "logits" : storage.probabilities.c_str(), shape, pool.p.data() + first * per_row,
                  storage.p, storage);
    }
    if (!pool.labels.empty()) write_dataset(file, "labels", {n}, H5T_NATIVE_INT64, pool.labels.data() + first, storage);
    if (!pool.reference_classes.empty())
      write_dataset(file, "classes", {n}, H5T_NATIVE_INT64, pool.reference_classes.data() + first, storage);
    if (!pool.numbers.empty()) {
      if (storage.narrow_ids) {
        std::vector<std::int32_t> narrow;
        for (hsize_t i = 0; i < n; ++i) narrow.push_back(static_cast<std::int32_t>(pool.numbers[first + i]));
        write_dataset(file, "ids", {n}, H5T_NATIVE_INT32, narrow.data(), storage);
      } else {
        write_dataset(file, "ids", {n}, H5T_NATIVE_INT64, pool.numbers.data() + first, storage);
      }
    }
    if (!pool.words.empty()) write_words(file, n, pool.words.data() + first, storage);
    first += sizes[s];
  }
  check(first == pool.rows, "shards do not add up");
  return paths;
}

TestPool random_pool(std::int64_t rows, std::int64_t dim, std::int64_t classes, std::int64_t passes,
                     std::uint64_t seed) {
  TestPool pool{.rows = rows, .dim = dim, .classes = classes, .passes = passes};
  const std::int64_t clusters = 7;
  for (std::int64_t i = 0; i < rows; ++i) {
    const auto cluster = static_cast<std::int64_t>(draw(seed, "test cluster", i) * clusters);
    for (std::int64_t d = 0; d < dim; ++d)
      pool.x.push_back(1.5 * bell(seed, "test centre", cluster * dim + d) + bell(seed, "test row", i * dim + d));
  }
  for (std::int64_t i = 0; i < rows * std::max<std::int64_t>(passes, 1) && classes > 0; ++i) {
    std::vector<double> p;
    double sum = 0;
    for (std::int64_t c = 0; c < classes; ++c) {
      const double u = draw(seed, "test probability", i * classes + c);
      p.push_back(0.01 + u * u * u * u);
      sum += p.back();
    }
    for (const double value : p) pool.p.push_back(value / sum);
  }
  round_to(pool, Dtype::f32, Dtype::f32);
  return pool;
}

TestPool grid_pool(std::int64_t rows, std::int64_t dim, std::int64_t classes, std::int64_t passes, std::uint64_t seed) {
  TestPool pool{.rows = rows, .dim = dim, .classes = classes, .passes = passes};
  for (std::int64_t i = 0; i < rows; ++i) {
    const bool zero = draw(seed, "test zero", i) < 0.1;
    for (std::int64_t d = 0; d < dim; ++d) {
      const double value = static_cast<double>(static_cast<int>(draw(seed, "test grid", i * dim + d) * 4)) - 1;
      pool.x.push_back(zero ? 0 : value);
    }
  }
  for (std::int64_t i = 0; i < rows * std::max<std::int64_t>(passes, 1) && classes > 0; ++i) {
    std::vector<double> p(static_cast<std::size_t>(classes), 0.0);
    const bool sure = draw(seed, "test sure", i) < 0.2;
    for (int eighth = 0; eighth < 8; ++eighth) {
      const std::int64_t which = sure ? i * 8 : i * 8 + eighth;
      p[static_cast<std::size_t>(draw(seed, "test eighth", which) * static_cast<double>(classes))] += 0.125;
    }
    pool.p.insert(pool.p.end(), p.begin(), p.end());
  }
  return pool;
}

TestPool line_pool(const std::vector<double>& x) {
  return {.rows = static_cast<std::int64_t>(x.size()), .dim = 1, .x = x};
}

void add_number_ids(TestPool& pool) {
  pool.numbers.clear();
  for (std::int64_t row = 0; row < pool.rows; ++row) pool.numbers.push_back(pool.rows * 3 - 7 * row);
}

void add_word_ids(TestPool& pool) {
  pool.words.clear();
  const char* const shapes[] = {"img", "größe/", "a,b\"c\" ", "x"};
  for (std::int64_t row = 0; row < pool.rows; ++row)
    pool.words.push_back(shapes[row % 4] + std::to_string(row * 37 % 1000) + "-" + std::to_string(row));
}

PoolRequest write_scenario(const Scenario& scenario, const std::string& folder) {
  return scenario_request(scenario, folder, true);
}

PoolRequest share_scenario(const Comm& comm, const Scenario& scenario, const SharedFolder& folder) {
  comm.agree([&] {
    if (comm.is_root()) scenario_request(scenario, folder.path(), true);
  });
  return scenario_request(scenario, folder.path(), false);
}

View view_of(const Scenario& scenario) {
  const TestPool& pool = scenario.pool;
  View view{.rows = pool.rows,
            .dim = pool.dim,
            .classes = pool.classes,
            .passes = std::max<std::int64_t>(pool.passes, 1),
            .part = std::vector<Part>(static_cast<std::size_t>(pool.rows),
                                      scenario.lists.candidates.empty() ? Part::candidate : Part::bystander)};
  const auto append = [&view](const TestPool& from) {
    for (const double value : from.x) view.x.push_back(static_cast<float>(value));
    if (!from.logits) {
      for (const double value : from.p) view.p.push_back(value < 0 ? 0 : value);
    } else {
      for (std::size_t i = 0; i < from.p.size(); i += static_cast<std::size_t>(from.classes)) {
        const double* z = from.p.data() + i;
        const double top = *std::max_element(z, z + from.classes);
        double sum = 0;
        for (std::int64_t c = 0; c < from.classes; ++c) sum += exp_of(z[c] - top);
        for (std::int64_t c = 0; c < from.classes; ++c) view.p.push_back(exp_of(z[c] - top) / sum);
      }
    }
    for (std::int64_t row = 0; row < from.rows; ++row)
      view.y.push_back(from.labels.empty() ? -1 : std::max<std::int64_t>(-1, from.labels[row]));
  };
  append(pool);
  for (const std::int64_t row : scenario.lists.candidates) view.part[row] = Part::candidate;
  for (const std::int64_t row : scenario.lists.excluded) view.part[row] = Part::bystander;
  for (const std::int64_t row : scenario.lists.pending) view.part[row] = Part::covered;
  for (const std::int64_t row : scenario.lists.labelled) view.part[row] = Part::covered;
  for (std::int64_t row = 0; row < pool.rows; ++row)
    if (view.y[row] >= 0 && !scenario.ignore_labels) view.part[row] = Part::covered;
  if (scenario.labelled_pool) {
    append(*scenario.labelled_pool);
    view.part.resize(view.part.size() + static_cast<std::size_t>(scenario.labelled_pool->rows), Part::covered);
  }
  if (scenario.ignore_labels) std::fill(view.y.begin(), view.y.end(), -1);
  return view;
}

Folder::Folder() {
  std::string name = std::filesystem::temp_directory_path() / "seine-test-XXXXXX";
  check(mkdtemp(name.data()) != nullptr, "mkdtemp " + name);
  path_ = name;
}

Folder::~Folder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::string> Folder::names() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

SharedFolder::SharedFolder(const Comm& comm) : comm_(comm) {
  comm_.agree([&] {
    if (comm_.is_root()) path_ = owner_.emplace().path();
  });
  comm_.broadcast(path_);
}

SharedFolder::~SharedFolder() {
  if (std::uncaught_exceptions() == 0) comm_.barrier();  // else the others may not come here
}

}  // namespace seine::test
