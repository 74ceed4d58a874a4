// Every value of a row is a function of (seed, row), so shards and ranks only decide who writes it.
//
// A row belongs to one of `clusters` Gaussian clusters, and cluster k to class k mod classes. Its probabilities are
// those of an imperfect model: logits that favour its class by a strength of the row's own, plus noise that all passes
// share and noise of each pass. So every acquisition score has something to tell rows apart by.
#include "seine/synthesis.hpp"

#include <fmt/format.h>
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <vector>

#include "atomic_file.hpp"
#include "reading/hdf5.hpp"
#include "seine/backend.hpp"
#include "seine/error.hpp"
#include "seine/random.hpp"

namespace seine {
namespace {

constexpr double kStrongest = 6;  // largest strength of a row's class, in logits
constexpr double kSharedNoise = 1;
constexpr double kPassNoise = 0.75;
constexpr double kWidest = 1000;  // largest spread: float16 ends at 65504, and no deviate is beyond 7
constexpr std::int64_t kBlockBytes = std::int64_t{4} << 20;
constexpr int kTextDigits = 8;

// --- normal deviates: the inverse of their distribution function by Wichura's rational functions (Algorithm AS 241,
// Applied Statistics 37, 1988), relative error about 1e-16. Box and Muller's way needs sine and cosine, which differ by
// machine. ---

// Highest power first.
template <std::size_t N>
double polynomial(const std::array<double, N>& coefficients, double x) {
  double value = coefficients[0];
  for (std::size_t i = 1; i < N; ++i) value = std::fma(value, x, coefficients[i]);
  return value;
}

constexpr double kCentral = 0.425;

// |q| = |p - 1/2| <= kCentral
double central_deviate(double q) {
  constexpr std::array<double, 8> above{2509.0809287301226727, 33430.575583588128105, 67265.770927008700853,
                                        45921.953931549871457, 13731.693765509461125, 1971.5909503065514427,
                                        133.14166789178437745, 3.387132872796366608};
  constexpr std::array<double, 8> below{
      5226.495278852854561,  28729.085735721942674, 39307.89580009271061,  21213.794301586595867,
      5394.1960214247511077, 687.1870074920579083,  42.313330701600911252, 1};
  const double r = kCentral * kCentral - q * q;
  return q * polynomial(above, r) / polynomial(below, r);
}

// The rest, without its sign. tail: the smaller of p and 1 - p, above 1e-11 (below that other functions take over).
double outer_deviate(double tail) {
  constexpr std::array<double, 8> above{7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177,
                                        1.27045825245236838258,   3.64784832476320460504,   5.7694972214606914055,
                                        4.6303378461565452959,    1.42343711074968357734};
  constexpr std::array<double, 8> below{
      1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
      0.68976733498510000455,    1.6763848301838038494,   2.05319162663775882187,   1};
  const double r = std::sqrt(-log_of(tail)) - 1.6;
  return polynomial(above, r) / polynomial(below, r);
}

// Standard normal deviates number first, first + 1, ... of a purpose: two from each 64 random bits, so `first` is even.
void fill_normal(std::uint64_t seed, Purpose purpose, std::uint64_t first, std::span<double> out) {
  constexpr std::size_t kPairs = 128;
  std::array<double, 2 * kPairs> q, deviates;
  // Three loops over a piece, because the first two have no branches and become vector code.
  for (std::size_t at = 0; at < out.size(); at += q.size()) {
    const std::size_t count = std::min(q.size(), out.size() - at), pairs = (count + 1) / 2;
    for (std::size_t i = 0; i < pairs; ++i) {
      const std::uint64_t bits = random_bits(seed, purpose.key, (first + at) / 2 + i);
      q[2 * i] = (static_cast<double>(static_cast<std::int32_t>(bits)) + 0.5) * 0x1p-32;
      q[2 * i + 1] = (static_cast<double>(static_cast<std::int32_t>(bits >> 32)) + 0.5) * 0x1p-32;
    }
    for (std::size_t i = 0; i < 2 * pairs; ++i) deviates[i] = central_deviate(q[i]);
    for (std::size_t i = 0; i < count; ++i)
      if (std::abs(q[i]) > kCentral) deviates[i] = std::copysign(outer_deviate(0.5 - std::abs(q[i])), q[i]);
    std::copy_n(deviates.begin(), count, out.begin() + static_cast<std::ptrdiff_t>(at));
  }
}

void softmax(std::span<double> logits) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double& value : logits) sum += value = exp_of(value - largest);
  for (double& value : logits) value /= sum;
}

// --- rows ---

std::uint64_t even(std::size_t count) {
  return count + count % 2;
}

class Rows {
 public:
  explicit Rows(const SynthesisRequest& request)
      : request_(request),
        centres_(static_cast<std::size_t>(request.clusters * request.dim)),
        shared_(static_cast<std::size_t>(request.classes)) {
    for (std::int64_t k = 0; k < request.clusters; ++k) {
      const std::span<double> centre = centre_of(k);
      fill("synthesis centre", k, centre);
      // Two centres then differ by 1 per component (root mean square): the unit of `spread`.
      for (double& component : centre) component *= std::sqrt(0.5);
    }
  }

  std::int64_t class_of(std::int64_t row) const { return cluster_of(row) % request_.classes; }

  std::int64_t label_of(std::int64_t row) const {
    return draw("synthesis labelled", row) < request_.labelled ? class_of(row) : -1;
  }

  // Not the row number, so that whoever takes the one for the other is found out.
  static std::int64_t number_of(std::int64_t row) { return 7 * row + 1000; }
  static std::string word_of(std::int64_t row) { return fmt::format("s{:0{}}", row, kTextDigits); }

  void embedding_of(std::int64_t row, std::span<double> out) {
    fill("synthesis embedding", row, out);
    const std::span<const double> centre = centre_of(cluster_of(row));
    for (std::size_t c = 0; c < out.size(); ++c) out[c] = std::fma(request_.spread, out[c], centre[c]);
  }

  // out: [max(passes, 1), classes]
  void probabilities_of(std::int64_t row, std::span<double> out) {
    const std::size_t classes = shared_.size();
    const auto favoured = static_cast<std::size_t>(class_of(row));
    const double strength = kStrongest * draw("synthesis strength", row);
    const double disagreement = kPassNoise * draw("synthesis disagreement", row);
    fill("synthesis model", row, shared_);
    fill("synthesis pass", row, out);
    for (std::size_t first = 0; first < out.size(); first += classes) {
      const std::span<double> pass = out.subspan(first, classes);
      for (std::size_t c = 0; c < classes; ++c) pass[c] = kSharedNoise * shared_[c] + disagreement * pass[c];
      pass[favoured] += strength;
      softmax(pass);
    }
  }

 private:
  double draw(const char* purpose, std::int64_t row) const {
    return uniform(request_.seed, Purpose(purpose), static_cast<std::uint64_t>(row));
  }
  void fill(const char* purpose, std::int64_t item, std::span<double> out) const {
    fill_normal(request_.seed, Purpose(purpose), static_cast<std::uint64_t>(item) * even(out.size()), out);
  }
  std::int64_t cluster_of(std::int64_t row) const {
    return static_cast<std::int64_t>(draw("synthesis cluster", row) * static_cast<double>(request_.clusters));
  }
  std::span<double> centre_of(std::int64_t cluster) {
    const auto dim = static_cast<std::size_t>(request_.dim);
    return std::span(centres_).subspan(static_cast<std::size_t>(cluster) * dim, dim);
  }

  const SynthesisRequest& request_;
  std::vector<double> centres_;  // [clusters, dim]
  std::vector<double> shared_;   // noise of one row's logits
};

// --- files ---

Element element_of(const std::string& dtype) {
  return dtype == "f16" ? Element::f16 : dtype == "f32" ? Element::f32 : Element::f64;
}

h5::Id file_type_of(Element type) {
  if (type == Element::f16) return h5::half_type();
  return h5::Id(H5Tcopy(type == Element::f32 ? H5T_IEEE_F32LE : H5T_IEEE_F64LE), H5Tclose);
}

h5::Id word_type(std::size_t size) {
  h5::Id type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), size);
  H5Tset_strpad(type.get(), H5T_STR_NULLPAD);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

void store(std::span<const double> values, Element type, std::byte* out) {
  for (const double value : values) {
    const auto single = static_cast<float>(value);
    const std::uint16_t half = _cvtss_sh(single, _MM_FROUND_TO_NEAREST_INT);
    const void* const from = type == Element::f16   ? static_cast<const void*>(&half)
                             : type == Element::f32 ? static_cast<const void*>(&single)
                                                    : &value;
    std::memcpy(out, from, element_bytes(type));
    out += element_bytes(type);
  }
}

// A dataset of every shard, and how the bytes of a row come about.
struct Column {
  std::string name;
  h5::Id type;
  std::vector<hsize_t> row_shape;
  std::function<void(std::int64_t row, std::byte* out)> make;

  std::size_t row_bytes() const {
    std::size_t bytes = H5Tget_size(type.get());
    for (const hsize_t extent : row_shape) bytes *= extent;
    return bytes;
  }
};

template <class Make>  // (row, std::span<double>)
Column float_column(const char* name, Element type, std::vector<hsize_t> row_shape, Make make) {
  std::size_t size = 1;
  for (const hsize_t extent : row_shape) size *= extent;
  return {name, file_type_of(type), std::move(row_shape),
          [make, type, values = std::vector<double>(size)](std::int64_t row, std::byte* out) mutable {
            make(row, std::span(values));
            store(values, type, out);
          }};
}

template <class Make>  // row -> std::int64_t
Column integer_column(const char* name, Make make) {
  return {name, h5::Id(H5Tcopy(H5T_STD_I64LE), H5Tclose), {}, [make](std::int64_t row, std::byte* out) {
            const std::int64_t value = make(row);
            std::memcpy(out, &value, sizeof value);
          }};
}

Column word_column(const char* name, std::int64_t rows) {
  const std::size_t width = Rows::word_of(rows - 1).size();  // of all shards alike
  return {name, word_type(width), {}, [width](std::int64_t row, std::byte* out) {
            const std::string word = Rows::word_of(row);
            std::memset(out, 0, width);
            std::memcpy(out, word.data(), word.size());
          }};
}

std::vector<Column> columns_of(const SynthesisRequest& request, Rows& rows) {
  const Element type = element_of(request.dtype);
  const auto classes = static_cast<hsize_t>(request.classes), passes = static_cast<hsize_t>(request.passes);
  std::vector<Column> columns;
  columns.push_back(float_column("embeddings", type, {static_cast<hsize_t>(request.dim)},
                                 [&rows](std::int64_t row, std::span<double> out) { rows.embedding_of(row, out); }));
  columns.push_back(float_column(
      "probabilities", type, passes > 0 ? std::vector<hsize_t>{passes, classes} : std::vector<hsize_t>{classes},
      [&rows](std::int64_t row, std::span<double> out) { rows.probabilities_of(row, out); }));
  columns.push_back(integer_column("classes", [&rows](std::int64_t row) { return rows.class_of(row); }));
  if (request.labelled > 0)
    columns.push_back(integer_column("labels", [&rows](std::int64_t row) { return rows.label_of(row); }));
  if (request.ids == "int") columns.push_back(integer_column("ids", Rows::number_of));
  if (request.ids == "string") columns.push_back(word_column("ids", request.rows));
  return columns;
}

struct Range {
  std::int64_t first, count;
};

// Shards are contiguous and differ by at most one row.
Range rows_of_shard(const SynthesisRequest& request, int shard) {
  const std::int64_t share = request.rows / request.shards, longer = request.rows % request.shards;
  return {shard * share + std::min<std::int64_t>(shard, longer), share + (shard < longer ? 1 : 0)};
}

std::string path_of(const SynthesisRequest& request, int shard) {
  return (std::filesystem::path(request.out) / fmt::format("part-{:05}.h5", shard)).string();
}

// A shard that is being written, block by block.
class Shard {
 public:
  Shard(const std::string& path, const std::vector<Column>& columns, Range rows)
      : path_(path), columns_(columns), rows_(rows), output_(path), file_(h5::create_file(output_.temporary())) {
    for (const Column& column : columns_) {
      std::vector<hsize_t> shape{static_cast<hsize_t>(rows.count)};
      shape.insert(shape.end(), column.row_shape.begin(), column.row_shape.end());
      datasets_.push_back(h5::create_dataset(file_.get(), column.name, column.type.get(), shape, path_));
    }
  }

  bool is_complete() const { return written_ == rows_.count; }

  void write(std::int64_t count) {
    count = std::min(count, rows_.count - written_);
    for (std::size_t c = 0; c < columns_.size(); ++c) {
      const std::size_t row_bytes = columns_[c].row_bytes();
      block_.resize(static_cast<std::size_t>(count) * row_bytes);
      for (std::int64_t i = 0; i < count; ++i)
        columns_[c].make(rows_.first + written_ + i, block_.data() + static_cast<std::size_t>(i) * row_bytes);
      h5::write_rows(datasets_[c].get(), columns_[c].type.get(), static_cast<std::uint64_t>(written_),
                     static_cast<std::uint64_t>(count), block_.data(), path_);
    }
    written_ += count;
  }

  void commit() {
    for (h5::Id& dataset : datasets_)
      if (!dataset.close()) throw Error(Exit::cannot_create, "cannot write " + path_);
    h5::close_file(std::move(file_), path_);
    output_.commit();
  }

 private:
  std::string path_;
  const std::vector<Column>& columns_;
  Range rows_;
  std::int64_t written_ = 0;
  AtomicFile output_;
  h5::Id file_;
  std::vector<h5::Id> datasets_;
  std::vector<std::byte> block_;
};

// The shards of one rank, one after the other.
class Writer {
 public:
  Writer(const SynthesisRequest& request, int rank, int ranks)
      : request_(request), ranks_(ranks), next_(rank), rows_(request), columns_(columns_of(request, rows_)) {
    std::size_t row_bytes = 0;
    for (const Column& column : columns_) row_bytes += column.row_bytes();
    block_rows_ = std::max<std::int64_t>(1, kBlockBytes / static_cast<std::int64_t>(row_bytes));
  }

  std::int64_t blocks() const {
    std::int64_t blocks = 0;
    for (int shard = next_; shard < request_.shards; shard += ranks_)
      blocks += (rows_of_shard(request_, shard).count + block_rows_ - 1) / block_rows_;
    return blocks;
  }

  void write_block() {
    if (!shard_) {
      if (next_ >= request_.shards) return;
      shard_.emplace(path_of(request_, next_), columns_, rows_of_shard(request_, next_));
      next_ += ranks_;
    }
    shard_->write(block_rows_);
    if (!shard_->is_complete()) return;
    shard_->commit();
    shard_.reset();
  }

 private:
  const SynthesisRequest& request_;
  int ranks_, next_;
  Rows rows_;
  std::vector<Column> columns_;
  std::int64_t block_rows_ = 1;
  std::optional<Shard> shard_;
};

void check(bool holds, const char* option, const char* expected) {
  if (!holds) throw Error(Exit::usage, fmt::format("--{}: expected {}", option, expected));
}

void check_request(const SynthesisRequest& request) {
  check(request.rows >= 1, "rows", "at least 1");
  check(request.dim >= 1, "dim", "at least 1");
  check(request.classes >= 2, "classes", "at least 2");
  check(request.passes >= 0, "passes", "0 or more");
  check(request.clusters >= 1, "clusters", "at least 1");
  check(request.spread >= 0 && request.spread <= kWidest, "spread", "a number from 0 to 1000");
  check(request.labelled >= 0 && request.labelled <= 1, "labelled", "a share from 0 to 1");
  check(request.dtype == "f16" || request.dtype == "f32" || request.dtype == "f64", "dtype", "f16, f32 or f64");
  check(request.ids == "none" || request.ids == "int" || request.ids == "string", "ids", "none, int or string");
  check(request.shards >= 1 && request.shards <= request.rows, "shards", "from 1 to the number of rows");
  check(!request.out.empty(), "out", "a folder");
}

// Whatever fails while files are written, it is the output that cannot be written.
template <class Work>
void writing(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    throw Error(error.code() == Exit::io ? Exit::cannot_create : error.code(), error.what());
  }
}

}  // namespace

void synthesise(const SynthesisRequest& request, const Comm& comm, const Console& console) {
  check_request(request);
  comm.agree([&] {
    if (comm.is_root()) make_folder(request.out);
  });
  std::optional<Writer> writer;
  comm.agree([&] { writer.emplace(request, comm.rank(), comm.size()); });
  // All ranks go block by block, so that a failure of one ends the others within a block.
  const auto steps = static_cast<std::int64_t>(comm.max(static_cast<double>(writer->blocks())));
  for (std::int64_t step = 0; step < steps; ++step) {
    comm.agree([&] { writing([&] { writer->write_block(); }); });
    if (comm.is_root()) console.progress("write", request.rows * (step + 1) / steps, request.rows);
  }
  if (!comm.is_root()) return;
  const std::string left_over = path_of(request, request.shards);
  std::error_code ignored;
  if (std::filesystem::exists(left_over, ignored))
    console.warn(fmt::format("{} is of another pool, and stays", left_over));
  console.info(
      fmt::format("wrote {} in {} to {}", counted(request.rows, "row"), counted(request.shards, "file"), request.out));
}

}  // namespace seine
