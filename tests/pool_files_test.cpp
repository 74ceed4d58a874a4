#include "seine/pool_files.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "errors.hpp"
#include "host_rows.hpp"
#include "pools.hpp"
#include "reading/fence.hpp"
#include "reading/hdf5.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_paths.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

using Shape = std::vector<hsize_t>;
constexpr Needs kEmbeddings{.embeddings = true};
constexpr Needs kProbabilities{.probabilities = true};
constexpr Needs kPasses{.probabilities = true, .passes = true};

// Collective: rank 0 works, nobody goes on before.
template <class Work>
void on_root(Work&& work) {
  world().agree([&] {
    if (world().is_root()) work();
  });
}

void put(const h5::Id& file, const std::string& name, hid_t type, const Shape& shape,
         const std::vector<double>& values) {
  const h5::Id dataset = h5::create_dataset(file.get(), name, type, shape, "test");
  if (!values.empty()) h5::write_rows(dataset.get(), H5T_NATIVE_DOUBLE, 0, shape[0], values.data(), "test");
}

std::vector<double> numbers(std::size_t count) {  // exact in float16
  std::vector<double> values(count);
  for (std::size_t i = 0; i < count; ++i) values[i] = (static_cast<double>(i * 37 % 101) - 50) / 8;
  return values;
}

std::vector<double> halves(std::int64_t rows, std::int64_t classes) {  // distributions
  std::vector<double> p(static_cast<std::size_t>(rows * classes), 0);
  for (std::int64_t i = 0; i < rows; ++i) p[i * classes + i % classes] += 0.5, p[i * classes] += 0.5;
  return p;
}

PoolFiles open_pool(const std::vector<std::string>& paths, const Needs& needs, const DatasetNames& names = {}) {
  return PoolFiles(world(), paths, names, needs);
}

std::vector<float> embeddings_of(const PoolFiles& files, std::int64_t first, std::int64_t count) {
  std::vector<float> out(static_cast<std::size_t>(count * files.shape().dim));
  files.read_embeddings(first, count, out);
  return out;
}

std::vector<double> probabilities_of(const PoolFiles& files, std::int64_t first, std::int64_t count) {
  const PoolShape& shape = files.shape();
  std::vector<double> out(static_cast<std::size_t>(count * shape.classes * std::max<std::int64_t>(shape.passes, 1)));
  files.read_probabilities(first, count, out);
  return out;
}

h5::Id big_endian_half() {
  h5::Id type = h5::half_type();
  H5Tset_order(type.get(), H5T_ORDER_BE);
  return type;
}

h5::Id bfloat16() {
  h5::Id type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  H5Tset_fields(type.get(), 15, 7, 8, 0, 7);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), 127);
  return type;
}

TEST(ExpandPoolPaths, SortsNaturallyByFullPath) {
  const SharedFolder folder(world());
  const auto in = [&](const std::string& name) { return folder.path() + "/" + name; };
  on_root([&] {
    for (const char* name : {"part-10.h5", "part-2.h5", "part-1.h5", "other.h5"}) write_text(in(name), "x");
    write_text(in("list.txt"), "# order is kept\r\n" + in("part-10.h5") + "\n\n  " + in("part-1.h5") + "\r\n");
    write_text(in("nothing.txt"), "# no path\n");
    write_text(in("broken.txt"), in("part-1.h5") + "\n" + in("gone.h5") + "\n");
  });
  const std::vector<std::string> glob{in("part-*.h5"), in("other.h5")};
  EXPECT_EQ(expand_pool_paths(glob), (std::vector{in("other.h5"), in("part-1.h5"), in("part-2.h5"), in("part-10.h5")}));
  const std::vector<std::string> list{in("list.txt")};
  EXPECT_EQ(expand_pool_paths(list), (std::vector{in("part-10.h5"), in("part-1.h5")}));
  const auto fails = [&](const std::string& path, Exit code) {
    expect_error(code, folder.path(), [&] { expand_pool_paths(std::vector{in(path)}); });
  };
  fails("gone-*.h5", Exit::no_input);
  fails("gone.h5", Exit::no_input);
  fails("gone.txt", Exit::no_input);
  fails("broken.txt", Exit::no_input);
  fails("nothing.txt", Exit::bad_data);
}

TEST(PoolPaths, AreThoseThatRankZeroSees) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/part.h5", gone = folder.path() + "/gone.h5";
  on_root([&] { write_text(path, "x"); });
  const std::vector<std::string> given{world().is_root() ? path : gone};
  EXPECT_EQ(pool_paths(world(), given), std::vector{path});
  expect_error(Exit::no_input, gone, [&] { pool_paths(world(), std::vector{world().is_root() ? gone : path}); });
}

TEST(PoolFiles, ReadsEveryFloatType) {
  const SharedFolder folder(world());
  constexpr std::int64_t rows = 21, dim = 3, classes = 4;
  const std::vector<double> x = numbers(rows * dim), p = halves(rows, classes);
  const h5::Id half = h5::half_type(), swapped_half = big_endian_half();
  const std::vector<std::pair<hid_t, std::string>> types{{half.get(), "float16"},     {swapped_half.get(), "float16"},
                                                         {H5T_IEEE_F32LE, "float32"}, {H5T_IEEE_F32BE, "float32"},
                                                         {H5T_IEEE_F64LE, "float64"}, {H5T_IEEE_F64BE, "float64"}};
  for (const auto& [type, name] : types) {
    const std::string path = folder.path() + "/pool.h5";
    on_root([&, stored = type] {
      const h5::Id file = h5::create_file(path);
      put(file, "embeddings", stored, {rows, dim}, x);
      put(file, "probabilities", stored, {rows, 1, classes}, p);
    });
    const PoolFiles files = open_pool({path}, {.embeddings = true, .probabilities = true});
    EXPECT_EQ(files.shape().embeddings_type, name);
    EXPECT_EQ(files.shape().probabilities_type, name);
    EXPECT_EQ(files.shape().half_embeddings, name == "float16");
    EXPECT_EQ(files.shape().passes, 1);
    EXPECT_EQ(embeddings_of(files, 0, rows), std::vector<float>(x.begin(), x.end())) << name;
    EXPECT_EQ(probabilities_of(files, 0, rows), p) << name;
    EXPECT_EQ(embeddings_of(files, 20, 1), std::vector<float>(x.end() - dim, x.end())) << name;
    world().barrier();  // before the file is written again
  }
}

TEST(PoolFiles, ReadsRangesOverShardsOfWhichSomeAreEmpty) {
  const SharedFolder folder(world());
  const std::vector<std::int64_t> shards{0, 3, 0, 5, 1, 0};
  std::vector<std::string> paths;
  std::vector<float> all;
  for (std::size_t file = 0; file < shards.size(); ++file) paths.push_back(folder.path() + "/" + std::to_string(file));
  for (int i = 0; i < 18; ++i) all.push_back(static_cast<float>(i));
  on_root([&] {
    std::vector<double> rest(all.begin(), all.end());
    for (std::size_t i = 0; i < shards.size(); ++i) {
      const auto rows = static_cast<hsize_t>(shards[i]);
      const h5::Id file = h5::create_file(paths[i]);
      const Shape shape{rows, rows == 0 ? hsize_t{7} : hsize_t{2}};  // an empty shard may have any D
      put(file, "embeddings", rows == 0 ? H5T_IEEE_F64LE : H5T_IEEE_F32LE, shape,
          std::vector<double>(rest.begin(), rest.begin() + 2 * shards[i]));
      rest.erase(rest.begin(), rest.begin() + 2 * shards[i]);
    }
  });
  const PoolFiles files = open_pool(paths, kEmbeddings);
  EXPECT_EQ(files.shape().rows, 9);
  EXPECT_EQ(files.shape().embeddings_type, "float32");
  EXPECT_EQ(files.first_row_of(4), 8);
  EXPECT_EQ(files.where(7), paths[3] + " row 4");
  EXPECT_EQ(files.where(8, Dataset::embeddings), paths[4] + ": dataset \"embeddings\", row 0");
  for (std::int64_t first = 0; first <= 9; ++first)
    for (std::int64_t count = 0; first + count <= 9; ++count)
      EXPECT_EQ(embeddings_of(files, first, count),
                std::vector<float>(all.begin() + 2 * first, all.begin() + 2 * (first + count)));
}

// Chunks that do not divide the shape, in both dimensions.
TEST(PoolFiles, ReadsCompressedChunks) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  const std::vector<double> x = numbers(1000 * 5);
  on_root([&] {
    const h5::Id file = h5::create_file(path);
    const Shape shape{1000, 5}, chunk{33, 2};
    const h5::Id space(H5Screate_simple(2, shape.data(), nullptr), H5Sclose);
    const h5::Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    H5Pset_chunk(properties.get(), 2, chunk.data());
    H5Pset_shuffle(properties.get());
    H5Pset_deflate(properties.get(), 4);
    const h5::Id dataset(H5Dcreate2(file.get(), "embeddings", h5::half_type().get(), space.get(), H5P_DEFAULT,
                                    properties.get(), H5P_DEFAULT),
                         H5Dclose);
    h5::write_rows(dataset.get(), H5T_NATIVE_DOUBLE, 0, 1000, x.data(), "test");
  });
  const PoolFiles files = open_pool({path}, kEmbeddings);
  EXPECT_EQ(embeddings_of(files, 0, 1000), std::vector<float>(x.begin(), x.end()));
  EXPECT_EQ(embeddings_of(files, 400, 99), std::vector<float>(x.begin() + 2000, x.begin() + 2495));
}

// Of chunks that can only be read whole: so many bytes while one is inflated, and of rows that are kept; and the rows
// are the same however many are kept.
TEST(PoolFiles, CountsChunksThatAreReadWhole) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  constexpr hsize_t rows = 60000, dim = 8;
  const std::vector<double> x = numbers(rows * dim);
  struct Case {
    Shape chunk;
    bool gzip;
    Chunks want;
  };
  const std::vector<Case> cases{
      {{rows, 4}, true, {2 * 960000, 1 << 20, 1920000}},   // a band of two chunks of 960,000 bytes
      {{rows, 4}, false, {2 * 960000, 1 << 20, 1920000}},  // as dear to read row by row
      {{20000, dim}, true, {640000, 640000, 640000}},      // of whole width: rows take the place of one chunk
      {{100, dim}, true, {3200, 81 * 3200, 81 * 3200}},    // as many small ones as make 256 KiB
      {{20000, dim}, false, {0, 0, 0}},                    // rows can be read alone
  };
  for (const Case& one : cases) {
    on_root([&] {
      const h5::Id file = h5::create_file(path);
      const Shape shape{rows, dim};
      const h5::Id space(H5Screate_simple(2, shape.data(), nullptr), H5Sclose);
      const h5::Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
      H5Pset_chunk(properties.get(), 2, one.chunk.data());
      if (one.gzip) H5Pset_deflate(properties.get(), 1);
      const h5::Id dataset(
          H5Dcreate2(file.get(), "embeddings", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
          H5Dclose);
      h5::write_rows(dataset.get(), H5T_NATIVE_DOUBLE, 0, rows, x.data(), "test");
    });
    const PoolFiles files = open_pool({path}, kEmbeddings);
    const Chunks& chunks = files.shape().chunks;
    EXPECT_EQ(chunks.inflating, one.want.inflating) << one.chunk[0];
    EXPECT_EQ(chunks.fewest, one.want.fewest) << one.chunk[0];
    EXPECT_EQ(chunks.all, one.want.all) << one.chunk[0];
    EXPECT_FALSE(files.reads_rows_alone(Dataset::embeddings));
    for (const std::int64_t kept : {std::int64_t{0}, (chunks.fewest + chunks.all) / 2, chunks.all}) {
      files.keep_chunks(kept);
      for (const std::int64_t first : {0, 31000, 32768, 59990})
        EXPECT_EQ(embeddings_of(files, first, 10),
                  std::vector<float>(x.begin() + first * 8, x.begin() + (first + 10) * 8));
      EXPECT_EQ(embeddings_of(files, 0, rows), std::vector<float>(x.begin(), x.end()));
    }
    world().barrier();
  }
}

// How a dataset may lie in its file: by position where it can be, else through the library.
struct Layout {
  hid_t type;
  hsize_t chunk_rows = 0;  // 0: contiguous
  bool gzip = false;
};

void put_as(const h5::Id& file, const std::string& name, const Layout& layout, const Shape& shape,
            const std::vector<double>& values) {
  const h5::Id space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  const h5::Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  Shape chunk = shape;
  chunk[0] = layout.chunk_rows;
  if (layout.chunk_rows > 0) H5Pset_chunk(properties.get(), static_cast<int>(chunk.size()), chunk.data());
  if (layout.gzip) H5Pset_deflate(properties.get(), 1);
  const h5::Id dataset(
      H5Dcreate2(file.get(), name.c_str(), layout.type, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
  h5::write_rows(dataset.get(), H5T_NATIVE_DOUBLE, 0, shape[0], values.data(), "test");
}

std::vector<float> rows_by_position(const PoolFiles& files, const std::vector<std::int64_t>& rows, Element type) {
  std::vector<float> out(rows.size() * static_cast<std::size_t>(files.shape().dim));
  if (type == Element::f32) {
    files.read_embedding_rows(rows, reinterpret_cast<std::byte*>(out.data()), type);
  } else {
    std::vector<std::uint16_t> halves_of_rows(out.size());
    files.read_embedding_rows(rows, reinterpret_cast<std::byte*>(halves_of_rows.data()), type);
    widen(halves_of_rows.data(), static_cast<std::int64_t>(out.size()), out.data());
  }
  return out;
}

// Several files, each as it may lie: rows at the ends of files and chunks, neighbours, near and far ones.
TEST(PoolFiles, ReadsSingleRowsByPosition) {
  const SharedFolder folder(world());
  constexpr std::int64_t dim = 7, rows = 3 * 900;
  const std::vector<double> x = numbers(rows * dim);
  const h5::Id half = h5::half_type(), swapped_half = big_endian_half();
  const std::vector<std::vector<Layout>> pools{
      {{H5T_IEEE_F32LE}, {H5T_IEEE_F32LE}, {H5T_IEEE_F32LE}},
      {{H5T_IEEE_F32LE, 100}, {H5T_IEEE_F32BE}, {H5T_IEEE_F32LE, 64, true}},
      {{half.get()}, {H5T_IEEE_F64LE}, {H5T_IEEE_F64BE, 33, true}},
      {{half.get()}, {swapped_half.get()}, {half.get(), 50, true}},
  };
  std::vector<std::string> paths;
  for (int i = 0; i < 3; ++i) paths.push_back(folder.path() + "/" + std::to_string(i));
  for (const std::vector<Layout>& pool : pools) {
    on_root([&] {
      for (std::size_t i = 0; i < 3; ++i)
        put_as(h5::create_file(paths[i]), "embeddings", pool[i], {900, dim},
               std::vector<double>(x.begin() + i * 900 * dim, x.begin() + (i + 1) * 900 * dim));
    });
    const PoolFiles files = open_pool(paths, kEmbeddings);
    std::vector<std::vector<std::int64_t>> wanted{{}, {0}, {899, 900}, {0, 1, 2, 500, 501, 899, 900, 901, 1799, 1800}};
    wanted.emplace_back(rows);
    std::iota(wanted.back().begin(), wanted.back().end(), 0);
    for (int step : {2, 3, 17, 640}) {
      wanted.emplace_back();
      for (std::int64_t row = step - 1; row < rows; row += step) wanted.back().push_back(row);
    }
    for (const auto& some : wanted) {
      std::vector<float> expected;
      for (const std::int64_t row : some)
        expected.insert(expected.end(), x.begin() + row * dim, x.begin() + (row + 1) * dim);
      EXPECT_EQ(rows_by_position(files, some, Element::f32), expected);
      if (!files.shape().half_embeddings) continue;
      EXPECT_EQ(rows_by_position(files, some, Element::f16), expected);
    }
    world().barrier();
  }
}

// Whatever happens to a file after its header was read, it ends with a word.
TEST(PoolFiles, FilesThatChangeWhileTheyAreRead) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  on_root([&] {
    const h5::Id file = h5::create_file(path);
    put(file, "embeddings", H5T_IEEE_F32LE, {5000, 4}, numbers(20000));
    put(file, "probabilities", H5T_IEEE_F32LE, {5000, 2}, std::vector<double>(10000, 0.5));
  });
  const PoolFiles files = open_pool({path}, {.embeddings = true, .probabilities = true});
  world().barrier();
  on_root([&] { std::filesystem::resize_file(path, 40000); });
  const std::vector<std::int64_t> near{0, 1}, far{1, 4000};
  rows_by_position(files, near, Element::f32);
  expect_error(Exit::bad_data, path + ": dataset \"embeddings\": cannot be read: truncated file",
               [&] { rows_by_position(files, far, Element::f32); });
  expect_error(Exit::bad_data, path + ": dataset \"embeddings\": cannot be read: truncated file",
               [&] { embeddings_of(files, 0, 5000); });
  expect_error(Exit::bad_data, path + ": dataset \"probabilities\": cannot be read: truncated file",
               [&] { probabilities_of(files, 4000, 10); });
  world().barrier();
  const PoolFiles unread = [&] {
    on_root([&] {
      const h5::Id file = h5::create_file(path);
      put(file, "embeddings", H5T_IEEE_F32LE, {5000, 4}, numbers(20000));
    });
    return open_pool({path}, kEmbeddings);
  }();
  world().barrier();
  on_root([&] { std::filesystem::remove(path); });
  expect_error(Exit::no_input, path + ": no such file", [&] { rows_by_position(unread, near, Element::f32); });
}

std::size_t no_filter(unsigned, std::size_t, const unsigned*, std::size_t, std::size_t*, void**) {
  return 0;
}

// One chunk of eight ones, compressed by hand: four literal bytes, then a copy of 28 bytes from 4 back.
void write_lzf(const std::string& path, const std::vector<unsigned char>& chunk) {
  const h5::Id file = h5::create_file(path);
  const Shape shape{4, 2}, origin{0, 0};
  const h5::Id space(H5Screate_simple(2, shape.data(), nullptr), H5Sclose);
  const h5::Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_chunk(properties.get(), 2, shape.data());
  const unsigned values[] = {4, 0x0105, 32};
  H5Pset_filter(properties.get(), 32000, H5Z_FLAG_OPTIONAL, 3, values);
  const h5::Id dataset(
      H5Dcreate2(file.get(), "embeddings", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
      H5Dclose);
  H5Dwrite_chunk(dataset.get(), H5P_DEFAULT, 0, origin.data(), chunk.size(), chunk.data());
}

TEST(PoolFiles, ReadsTheLightCompressionOfH5py) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5", damaged = folder.path() + "/damaged.h5";
  on_root([&] {
    const H5Z_class2_t claimed{H5Z_CLASS_T_VERS, 32000, 1, 1, "lzf", nullptr, nullptr, no_filter};  // so that it writes
    H5Zregister(&claimed);
    write_lzf(path, {3, 0x00, 0x00, 0x80, 0x3f, 0xe0, 19, 3});
    write_lzf(damaged, {3, 0x00, 0x00, 0x80, 0x3f, 0xe0, 19, 5});  // from before the start
    H5Zunregister(32000);
  });
  EXPECT_EQ(embeddings_of(open_pool({path}, kEmbeddings), 0, 4), std::vector<float>(8, 1.0f));
  expect_error(Exit::bad_data, "dataset \"embeddings\"",
               [&] { embeddings_of(open_pool({damaged}, kEmbeddings), 0, 4); });
}

TEST(PoolFiles, NamesTheRowOfABadEmbedding) {
  const SharedFolder folder(world());
  const std::string single = folder.path() + "/single.h5", wide = folder.path() + "/wide.h5";
  std::vector<double> x = numbers(300 * 4);
  on_root([&] {
    const h5::Id file = h5::create_file(single);
    x[17 * 4 + 2] = std::numeric_limits<double>::infinity();
    put(file, "embeddings", H5T_IEEE_F32LE, {300, 4}, x);
    const h5::Id other = h5::create_file(wide);
    x[17 * 4 + 2] = -1e300;
    put(other, "embeddings", H5T_IEEE_F64LE, {300, 4}, x);
  });
  const PoolFiles files = open_pool({single, wide}, kEmbeddings);
  EXPECT_EQ(files.shape().embeddings_type, "mixed");
  EXPECT_NO_THROW(embeddings_of(files, 0, 17));
  EXPECT_NO_THROW(embeddings_of(files, 18, 299));
  expect_error(Exit::bad_data,
               single +
                   ": dataset \"embeddings\", row 17, column 2: expected a number that is finite, "
                   "found inf",
               [&] { embeddings_of(files, 0, 600); });
  expect_error(Exit::bad_data,
               wide +
                   ": dataset \"embeddings\", row 17, column 2: expected a number that is finite in "
                   "float32, found -1e+300",
               [&] { embeddings_of(files, 300, 300); });
}

// Of two rows below the limit the squared distance is finite in float32, even where they are opposite.
TEST(PoolFiles, NamesTheRowOfAnEmbeddingTooLong) {
  const SharedFolder folder(world());
  const std::string longest = folder.path() + "/longest.h5", longer = folder.path() + "/longer.h5";
  on_root([&] {
    std::vector<double> x(300 * 4, 4.6e18);  // 8.464e37
    put(h5::create_file(longest), "embeddings", H5T_IEEE_F32LE, {300, 4}, x);
    x[17 * 4 + 2] = -4.7e18;
    put(h5::create_file(longer), "embeddings", H5T_IEEE_F32LE, {300, 4}, x);
  });
  const PoolFiles files = open_pool({longest, longer}, kEmbeddings);
  EXPECT_NO_THROW(embeddings_of(files, 0, 317));
  expect_error(Exit::bad_data,
               longer + ": dataset \"embeddings\", row 17: expected a squared norm below 8.5e+37, found 8.557e+37",
               [&] { embeddings_of(files, 0, 600); });
}

// A pool of 20 distributions of which the one of row 17 is given.
void write_row_17(const std::string& path, const std::vector<double>& row, hid_t type) {
  const h5::Id file = h5::create_file(path);
  std::vector<double> p = halves(20, 4);
  std::copy(row.begin(), row.end(), p.begin() + 17 * 4);
  put(file, "probabilities", type, {20, 4}, p);
}

TEST(PoolFiles, ChecksDistributions) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  const h5::Id half = h5::half_type();
  const double nan = std::numeric_limits<double>::quiet_NaN();
  struct Case {
    std::vector<double> row;
    hid_t type;
    std::string fault;  // empty: none
  };
  const std::vector<Case> cases{
      {{0.5, 0.5, 0.25, 0}, H5T_IEEE_F32LE, "expected a sum of 1 within 0.001, found 1.25"},
      {{0.5, 0.5, 0.0009, 0}, H5T_IEEE_F64LE, ""},
      {{0.5, 0.5, 0.0011, 0}, H5T_IEEE_F64LE, "expected a sum of 1 within 0.001, found 1.0011"},
      {{0.5, 0.5, 0.0078125, 0}, half.get(), ""},
      {{0.5, 0.5, 0.03125, 0}, half.get(), "expected a sum of 1 within 0.01, found 1.03125"},
      {{0.5, 0.5, -1e-6, 0}, H5T_IEEE_F64LE, ""},
      {{0.5, 0.5, -2e-6, 0}, H5T_IEEE_F64LE, "class 2: expected a finite number that is at least -1e-06, found -2e-06"},
      {{0.5, nan, 0.5, 0}, H5T_IEEE_F32LE, "class 1: expected a finite number that is at least -1e-06, found nan"},
      {{0, 0, 0, HUGE_VAL}, H5T_IEEE_F32LE, "found inf"},
  };
  for (const Case& one : cases) {
    on_root([&] { write_row_17(path, one.row, one.type); });
    const PoolFiles files = open_pool({path}, kProbabilities);
    if (one.fault.empty()) {
      const std::vector<double> p = probabilities_of(files, 17, 1);
      EXPECT_EQ(p[2], std::max(0.0, one.row[2]));
      EXPECT_EQ(std::signbit(p[2]), false);
    } else {
      expect_error(Exit::bad_data, one.fault, [&] { probabilities_of(files, 3, 17); });
      expect_error(Exit::bad_data, path + ": dataset \"probabilities\", row 17",
                   [&] { probabilities_of(files, 0, 20); });
    }
    world().barrier();
  }
}

TEST(PoolFiles, TurnsLogitsIntoProbabilities) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  std::vector<double> logits(6 * 2 * 3, 0);
  logits[0] = 1e30;  // e^1e30 would overflow
  logits[3] = std::log(2.0);
  on_root([&] {
    const h5::Id file = h5::create_file(path);
    put(file, "logits", H5T_IEEE_F64LE, {6, 2, 3}, logits);
    logits[30] = std::numeric_limits<double>::quiet_NaN();
    put(file, "other", H5T_IEEE_F64LE, {6, 2, 3}, logits);
  });
  const PoolFiles files = open_pool({path}, kPasses);
  EXPECT_TRUE(files.shape().logits);
  EXPECT_EQ(files.shape().passes, 2);
  const std::vector<double> p = probabilities_of(files, 0, 1);
  EXPECT_EQ((std::vector<double>(p.begin(), p.begin() + 3)), (std::vector<double>{1, 0, 0}));
  EXPECT_NEAR(p[3], 0.5, 1e-15);
  EXPECT_NEAR(p[4], 0.25, 1e-15);
  DatasetNames names;
  names.logits = "other";
  const PoolFiles faulty = open_pool({path}, kPasses, names);
  expect_error(Exit::bad_data, path + ": dataset \"other\", row 5", [&] { probabilities_of(faulty, 0, 6); });
}

// What is wrong with headers: each case writes a.h5 and b.h5, which are the pool.
struct HeaderCase {
  std::string what;
  std::function<void(const h5::Id& a, const h5::Id& b)> write;
  Needs needs;
  std::string fault;  // empty: none
  DatasetNames names = {};
};

DatasetNames renamed(std::string DatasetNames::*which, const std::string& name) {
  DatasetNames names;
  names.*which = name;
  return names;
}

std::vector<HeaderCase> header_cases() {
  const auto f32 = [](const h5::Id& file, const std::string& name, const Shape& shape) {
    put(file, name, H5T_IEEE_F32LE, shape, {});
  };
  const auto i32 = [](const h5::Id& file, const std::string& name, const Shape& shape) {
    put(file, name, H5T_STD_I32LE, shape, {});
  };
  return {
      {"missing",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {4, 2}), i32(b, "ids", {4});
       },
       kEmbeddings, "b.h5: dataset \"embeddings\" is missing"},
      {"nothing",
       [=](auto& a, auto&) {
         f32(a, "embeddings", {4, 2});
       },
       kEmbeddings, "b.h5: expected a dataset"},
      {"rank 1", [=](auto& a, auto&) { f32(a, "embeddings", {4}); }, kEmbeddings,
       "a.h5: dataset \"embeddings\": expected"},
      {"integers",
       [=](auto& a, auto&) {
         i32(a, "embeddings", {4, 2});
       },
       kEmbeddings, "found [4,2] of int32"},
      {"bfloat16",
       [=](auto& a, auto&) {
         put(a, "embeddings", bfloat16().get(), {4, 2}, {});
       },
       kEmbeddings, "found [4,2] of a 16-bit float that is not IEEE"},
      {"no columns",
       [=](auto& a, auto&) {
         f32(a, "embeddings", {4, 0});
       },
       kEmbeddings, "found [4,0]"},
      {"a group", [=](auto& a, auto&) { h5::create_group(a.get(), "embeddings", "test"); }, kEmbeddings,
       "expected a dataset, found a group"},
      {"D",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {4, 2}), f32(b, "embeddings", {4, 3});
       },
       kEmbeddings, "b.h5: dataset \"embeddings\": expected D = 2 as in "},
      {"C",
       [=](auto& a, auto& b) {
         f32(a, "probabilities", {4, 2}), f32(b, "probabilities", {4, 3});
       },
       kProbabilities, "expected C = 2 as in "},
      {"T",
       [=](auto& a, auto& b) {
         f32(a, "probabilities", {4, 3, 2}), f32(b, "probabilities", {4, 2});
       },
       kProbabilities, "expected T = 3 as in "},
      {"one class",
       [=](auto& a, auto&) {
         f32(a, "probabilities", {4, 1});
       },
       kProbabilities, "C >= 2"},
      {"no passes",
       [=](auto& a, auto& b) {
         f32(a, "probabilities", {4, 3}), f32(b, "probabilities", {4, 3});
       },
       kPasses, "a.h5: dataset \"probabilities\": expected passes, [N,T,C] with T >= 2, found [N,C] = [4,3]"},
      {"one pass",
       [=](auto& a, auto& b) {
         f32(a, "logits", {4, 1, 3}), f32(b, "logits", {4, 1, 3});
       },
       kPasses, "a.h5: dataset \"logits\": expected passes, [N,T,C] with T >= 2, found [4,1,3]"},
      {"rows",
       [=](auto& a, auto&) {
         f32(a, "embeddings", {4, 2}), i32(a, "ids", {5});
       },
       kEmbeddings, "a.h5: dataset \"ids\": expected 4 rows as in dataset \"embeddings\", found 5"},
      {"empty",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {0, 2}), f32(b, "embeddings", {0, 2});
       },
       kEmbeddings, "the pool is empty"},
      {"ids in one",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {4, 2}), f32(b, "embeddings", {4, 2}), i32(b, "ids", {4});
       },
       kEmbeddings, "b.h5: dataset \"ids\": expected none as in "},
      {"labels of floats",
       [=](auto& a, auto&) {
         f32(a, "embeddings", {4, 2}), f32(a, "labels", {4});
       },
       kEmbeddings, "a.h5: dataset \"labels\": expected [N] of integers"},
      {"labels ignored",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {4, 2}), f32(a, "labels", {4}), f32(b, "embeddings", {4, 2});
       },
       kEmbeddings, "", renamed(&DatasetNames::labels, "none")},
      {"chosen name",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {4, 2}), i32(a, "cost", {4}), f32(b, "embeddings", {4, 2});
       },
       kEmbeddings, "b.h5: dataset \"cost\" is missing", renamed(&DatasetNames::groups, "cost")},
      {"train",
       [=](auto& a, auto& b) {
         f32(a, "train", {4, 2}), f32(b, "train", {4, 2});
       },
       kEmbeddings, ""},
      {"not train",
       [=](auto& a, auto&) {
         f32(a, "train", {4, 2}), i32(a, "ids", {4});
       },
       kEmbeddings, "a.h5: dataset \"x\" is missing", renamed(&DatasetNames::embeddings, "x")},
      {"not needed",
       [=](auto& a, auto& b) {
         i32(a, "embeddings", {4}), f32(a, "probabilities", {5, 2}), f32(b, "probabilities", {5, 2});
       },
       kProbabilities, ""},
      {"costs nobody reads",
       [=](auto& a, auto& b) {
         f32(a, "embeddings", {4, 2}), i32(a, "costs", {4}), f32(b, "embeddings", {4, 2});
       },
       kEmbeddings, ""},
  };
}

TEST(PoolFiles, ChecksHeaders) {
  for (const HeaderCase& one : header_cases()) {
    SCOPED_TRACE(one.what);
    const SharedFolder folder(world());
    const std::vector<std::string> paths{folder.path() + "/a.h5", folder.path() + "/b.h5"};
    on_root([&] {
      const h5::Id a = h5::create_file(paths[0]), b = h5::create_file(paths[1]);
      one.write(a, b);
    });
    if (one.fault.empty())
      EXPECT_NO_THROW(open_pool(paths, one.needs, one.names));
    else
      expect_error(Exit::bad_data, one.fault, [&] { open_pool(paths, one.needs, one.names); });
  }
}

TEST(PoolFiles, FaultsOfOptionalDatasetsComeWithReading) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  on_root([&] {
    const h5::Id file = h5::create_file(path);
    put(file, "embeddings", H5T_IEEE_F32LE, {3, 2}, numbers(6));
    put(file, "classes", H5T_IEEE_F32LE, {3}, numbers(3));
    put(file, "costs", H5T_IEEE_F64LE, {3}, {1, 0, 2});
  });
  const PoolFiles files = open_pool({path}, kEmbeddings);
  expect_error(Exit::bad_data, "dataset \"classes\": expected [N] of integers",
               [&] { files.read_integers(Dataset::classes, 0, 1); });
  expect_error(Exit::bad_data, path + ": dataset \"costs\", row 1: expected a finite cost > 0, found 0",
               [&] { files.read_costs(0, 3); });
  EXPECT_EQ(files.read_costs(2, 1), std::vector<double>{2});
  expect_error(Exit::bad_data, "dataset \"groups\" is missing", [&] { files.read_integers(Dataset::groups, 0, 1); });
}

// Several files are at fault: the first one counts, whichever rank reads it.
TEST(PoolFiles, NamesFilesThatCannotBeRead) {
  const SharedFolder folder(world());
  const auto in = [&](const std::string& name) { return folder.path() + "/" + name; };
  on_root([&] {
    {
      const h5::Id file = h5::create_file(in("good.h5"));
      put(file, "embeddings", H5T_IEEE_F32LE, {500, 2}, numbers(1000));
    }
    std::filesystem::copy(in("good.h5"), in("truncated.h5"));
    std::filesystem::resize_file(in("truncated.h5"), 1500);
    write_text(in("text.h5"), "no HDF5 at all");
    write_text(in("zero.h5"), "");
    std::filesystem::create_directory(in("folder.h5"));
  });
  const auto fails = [&](std::vector<std::string> names, Exit code, const std::string& text) {
    for (std::string& name : names) name = in(name);
    expect_error(code, text, [&] { open_pool(names, kEmbeddings); });
  };
  fails({"good.h5", "good.h5", "truncated.h5", "gone.h5"}, Exit::bad_data, "truncated.h5: damaged HDF5 file");
  fails({"good.h5", "text.h5", "zero.h5"}, Exit::bad_data, "text.h5: expected an HDF5 file");
  fails({"zero.h5", "text.h5"}, Exit::bad_data, "zero.h5: expected an HDF5 file, found an empty file");
  fails({"good.h5", "gone.h5", "text.h5"}, Exit::no_input, "gone.h5: no such file");
  fails({"folder.h5"}, Exit::no_input, "found a directory");
}

TEST(PoolFiles, ReadsIntegersOfAnyForm) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5", large = folder.path() + "/large.h5";
  const h5::Id boolean(H5Tenum_create(H5T_STD_I8LE), H5Tclose);
  on_root([&] {
    const signed char no = 0, yes = 1;
    H5Tenum_insert(boolean.get(), "FALSE", &no);
    H5Tenum_insert(boolean.get(), "TRUE", &yes);
    const h5::Id file = h5::create_file(path);
    put(file, "ids", H5T_STD_I16BE, {3}, {-300, 0, 300});
    put(file, "classes", H5T_STD_U64LE, {3}, {0, 1, 1 << 20});
    put(file, "groups", H5T_STD_U8LE, {3}, {0, 1, 255});
    const h5::Id labels = h5::create_dataset(file.get(), "labels", boolean.get(), Shape{3}, "test");
    const signed char values[] = {1, 0, 1};
    h5::write_rows(labels.get(), boolean.get(), 0, 3, values, "test");
    const h5::Id other = h5::create_file(large);
    const h5::Id ids = h5::create_dataset(other.get(), "ids", H5T_STD_U64LE, Shape{3}, "test");
    const std::uint64_t unsigned_ids[] = {1, 2, 1ULL << 63};
    h5::write_rows(ids.get(), H5T_NATIVE_UINT64, 0, 3, unsigned_ids, "test");
  });
  const PoolFiles files = open_pool({path}, {});
  EXPECT_EQ(files.read_integers(Dataset::ids, 0, 3), (std::vector<std::int64_t>{-300, 0, 300}));
  EXPECT_EQ(files.read_integers(Dataset::classes, 0, 3), (std::vector<std::int64_t>{0, 1, 1 << 20}));
  EXPECT_EQ(files.read_integers(Dataset::groups, 1, 2), (std::vector<std::int64_t>{1, 255}));
  EXPECT_EQ(files.read_integers(Dataset::labels, 0, 3), (std::vector<std::int64_t>{1, 0, 1}));
  const PoolFiles too_large = open_pool({large}, {});
  EXPECT_EQ(too_large.read_integers(Dataset::ids, 0, 2), (std::vector<std::int64_t>{1, 2}));
  expect_error(Exit::bad_data,
               large +
                   ": dataset \"ids\", row 2: expected an integer that fits int64, found "
                   "9223372036854775808",
               [&] { too_large.read_integers(Dataset::ids, 0, 3); });
}

TEST(PoolFiles, ReadsTextIdsOfAnyForm) {
  const SharedFolder folder(world());
  const std::string path = folder.path() + "/pool.h5";
  const std::vector<std::pair<H5T_str_t, std::string>> forms{
      {H5T_STR_NULLTERM, std::string("a\0\0\0\0\0\303\251\0\0\0\0", 12)},
      {H5T_STR_NULLPAD, std::string("a\0\0\0\0\0\303\251\0\0\0\0", 12)},
      {H5T_STR_SPACEPAD, "a     \303\251    "}};
  for (const auto& [padding, stored] : forms) {
    on_root([&, pad = padding, &bytes = stored] {
      const h5::Id type(H5Tcopy(H5T_C_S1), H5Tclose);
      H5Tset_size(type.get(), 6);
      H5Tset_strpad(type.get(), pad);
      const h5::Id file = h5::create_file(path);
      const h5::Id ids = h5::create_dataset(file.get(), "ids", type.get(), Shape{2}, "test");
      h5::write_rows(ids.get(), type.get(), 0, 2, bytes.data(), "test");
    });
    const PoolFiles files = open_pool({path}, {});
    EXPECT_TRUE(files.shape().text_ids);
    EXPECT_EQ(files.read_text_ids(0, 2), (std::vector<std::string>{"a", "\303\251"}));
    world().barrier();
  }
  on_root([&] {
    const h5::Id file = h5::create_file(path);
    const std::vector<std::string> ids{"one", "", "drei \xe2\x82\xac", "\xff"};
    h5::write_dataset(file.get(), "ids", ids, "test");
  });
  const PoolFiles files = open_pool({path}, {});
  EXPECT_EQ(files.read_text_ids(0, 3), (std::vector<std::string>{"one", "", "drei \xe2\x82\xac"}));
  expect_error(Exit::bad_data, path + ": dataset \"ids\", row 3: expected UTF-8", [&] { files.read_text_ids(0, 4); });
}

// `mapped` of the rows come from the source.
void write_virtual(const std::string& path, const std::string& source, hsize_t mapped, const Shape& shape = {8, 2}) {
  const h5::Id file = h5::create_file(path);
  const Shape part{mapped, shape[1]}, start{0, 0};
  const h5::Id space(H5Screate_simple(2, shape.data(), nullptr), H5Sclose);
  const h5::Id source_space(H5Screate_simple(2, part.data(), nullptr), H5Sclose);
  const h5::Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Sselect_hyperslab(space.get(), H5S_SELECT_SET, start.data(), nullptr, part.data(), nullptr);
  H5Pset_virtual(properties.get(), space.get(), source.c_str(), "embeddings", source_space.get());
  h5::Id(H5Dcreate2(file.get(), "embeddings", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
         H5Dclose);
}

TEST(PoolFiles, AVirtualDatasetNeedsItsSources) {
  const SharedFolder folder(world());
  const auto in = [&](const std::string& name) { return folder.path() + "/" + name; };
  const std::vector<double> x = numbers(16);
  on_root([&] {
    const h5::Id file = h5::create_file(in("source.h5"));
    put(file, "embeddings", H5T_IEEE_F32LE, {8, 2}, x);
    write_virtual(in("whole.h5"), "source.h5", 8);
    write_virtual(in("hole.h5"), "source.h5", 5);
    write_virtual(in("orphan.h5"), "gone.h5", 8);
  });
  EXPECT_EQ(embeddings_of(open_pool({in("whole.h5")}, kEmbeddings), 0, 8), std::vector<float>(x.begin(), x.end()));
  expect_error(Exit::bad_data, "hole.h5: dataset \"embeddings\" is virtual",
               [&] { open_pool({in("hole.h5")}, kEmbeddings); });
  expect_error(Exit::no_input, "gone.h5: no such file", [&] { open_pool({in("orphan.h5")}, kEmbeddings); });
}

// What the file itself holds is less than a 4096th of the rows in each of these.
TEST(PoolFiles, SmallFilesMayHoldMuch) {
  const SharedFolder folder(world());
  const auto in = [&](const std::string& name) { return folder.path() + "/" + name; };
  const Shape large{110000, 64}, moderate{90000, 64}, chunk{30000, 64};
  const auto write = [&](const std::string& name, const Shape& shape, const std::function<void(hid_t)>& choose) {
    const h5::Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
    choose(properties.get());
    const h5::Id file = h5::create_file(in(name)), space(H5Screate_simple(2, shape.data(), nullptr), H5Sclose);
    return h5::Id(
        H5Dcreate2(file.get(), "embeddings", H5T_IEEE_F32LE, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT),
        H5Dclose);
  };
  const std::vector<float> ones(110000 * 64, 1);
  on_root([&] {
    const float fill = 1;
    write("unwritten.h5", moderate, [&](hid_t properties) {
      H5Pset_chunk(properties, 2, chunk.data());
      H5Pset_fill_value(properties, H5T_NATIVE_FLOAT, &fill);
    });
    const h5::Id twice = write("deflated_twice.h5", moderate, [&](hid_t properties) {
      H5Pset_chunk(properties, 2, chunk.data());
      for (int pass = 0; pass < 2; ++pass) H5Pset_deflate(properties, 9);
    });
    h5::write_rows(twice.get(), H5T_NATIVE_FLOAT, 0, moderate[0], ones.data(), "test");
    const std::string raw = in("values.raw");
    const h5::Id outside = write("outside.h5", large, [&](hid_t properties) {
      H5Pset_external(properties, raw.c_str(), 0, ones.size() * sizeof(float));
    });
    h5::write_rows(outside.get(), H5T_NATIVE_FLOAT, 0, large[0], ones.data(), "test");
    const h5::Id source = write("source.h5", large, [](hid_t) {});
    h5::write_rows(source.get(), H5T_NATIVE_FLOAT, 0, large[0], ones.data(), "test");
    write_virtual(in("virtual.h5"), "source.h5", large[0], large);
  });
  for (const char* name : {"unwritten.h5", "deflated_twice.h5", "outside.h5", "virtual.h5"}) {
    const PoolFiles files = open_pool({in(name)}, kEmbeddings);
    EXPECT_GT(files.shape().rows * 64 * 4, 4096 * static_cast<std::int64_t>(std::filesystem::file_size(in(name))))
        << name;
    EXPECT_EQ(embeddings_of(files, 89998, 2), std::vector<float>(128, 1)) << name;
  }
}

// Rows are read by position: those of the linked file, behind its user block.
TEST(PoolFiles, ReadsThroughLinksIntoOtherFiles) {
  const SharedFolder folder(world());
  const std::string target = folder.path() + "/target.h5", linking = folder.path() + "/linking.h5";
  const std::vector<double> x = numbers(16);
  const std::vector<std::string> ids{"one", "two", "", "four", "five", "six", "seven", "eight"};
  on_root([&] {
    const h5::Id properties(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
    H5Pset_userblock(properties.get(), 1024);
    const h5::Id file(H5Fcreate(target.c_str(), H5F_ACC_TRUNC, properties.get(), H5P_DEFAULT), H5Fclose);
    put(file, "embeddings", H5T_IEEE_F32LE, {8, 2}, x);
    h5::write_dataset(file.get(), "ids", ids, "test");
    const h5::Id links = h5::create_file(linking);
    put(links, "before", H5T_IEEE_F32LE, {2000}, std::vector<double>(2000, 1));
    for (const char* name : {"embeddings", "ids"})
      H5Lcreate_external("target.h5", name, links.get(), name, H5P_DEFAULT, H5P_DEFAULT);
  });
  for (const std::string& path : {target, linking}) {
    const PoolFiles files = open_pool({path}, kEmbeddings);
    EXPECT_EQ(embeddings_of(files, 0, 8), std::vector<float>(x.begin(), x.end())) << path;
    EXPECT_EQ(files.read_text_ids(0, 8), ids) << path;
  }
}

TEST(Ownership, DealsEveryRowOnce) {
  for (std::int64_t rows : {0, 1, 255, 256, 257, 5000, 100000, 1000003})
    for (int ranks : {1, 2, 3, 4, 7}) {
      std::vector<int> owners(static_cast<std::size_t>(rows), -1);
      std::int64_t dealt = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        const Ownership own(rows, rank, ranks);
        std::int64_t local = 0;
        for (const Ownership::Run& run : own.runs()) {
          EXPECT_EQ(run.first % Ownership::kTileRows, 0);
          EXPECT_LE(run.count, 65536);
          for (std::int64_t row = run.first; row < run.first + run.count; ++row) {
            ASSERT_EQ(own.owner(row), rank);
            ASSERT_TRUE(own.owns(row));
            ASSERT_EQ(own.local(row), local++);
            ++dealt;
          }
        }
        EXPECT_EQ(own.own(), local);
      }
      EXPECT_EQ(dealt, rows);
    }
}

TEST(Ownership, BlocksHaveABoundInRowsAndBytes) {
  const Ownership own(100000, world());
  for (const std::int64_t row_bytes : {0, 1, 1 << 20, 1 << 30}) {
    const std::int64_t most = row_bytes == 1 << 30 ? 1 : row_bytes == 1 << 20 ? 64 : 4096;
    std::int64_t position = 0, largest = 0;
    for_blocks(own, row_bytes, [&](std::int64_t first, std::int64_t count) {
      EXPECT_TRUE(own.owns(first) && own.owns(first + count - 1));
      EXPECT_EQ(own.local(first), position);
      position += count;
      largest = std::max(largest, count);
    });
    EXPECT_EQ(position, own.own());
    EXPECT_EQ(largest, most);
  }
}

// A child may be born with a lock that nobody gives back.
TEST(Fence, ChildThatSleepsForGoodIsEndedAndAnotherOneTried) {
  const Folder folder;
  try_in_child(folder.path(), [&](const SayNext&) {
    if (content(folder / "first").empty()) {
      write_text(folder / "first", "was here");
      while (true) ::pause();
    }
    write_text(folder / "second", "was here");
  });
  EXPECT_EQ(content(folder / "second"), "was here");
}

}  // namespace
}  // namespace seine::test
