#include "seine/pool_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <list>
#include <mutex>
#include <numeric>
#include <optional>
#include <utility>

#include "reading/hdf5.hpp"
#include "reading/pool_header.hpp"
#include "reading/raw_file.hpp"
#include "reading/row_checks.hpp"
#include "reading/widening.hpp"
#include "seine/error.hpp"
#include "seine/row_math.hpp"

namespace seine {
namespace {

constexpr std::size_t kOpenFiles = 4;                      // kept open by a rank
constexpr std::size_t kSlabBytes = std::size_t{1} << 20;   // of one call of the library
constexpr std::size_t kPieceBytes = std::size_t{1} << 18;  // of one read by position: checked while still in the cache

std::int64_t stored_bytes(Kind kind) {
  return kind == Kind::f16 ? 2 : kind == Kind::f32 ? 4 : 8;
}

// Of a row as it is read: the library widens integers.
std::int64_t read_row_bytes(const Column& column) {
  return column.per_row() * stored_bytes(column.kind);
}

// Rows of the chunks that are read together: those of one chunk, or of a few small ones.
std::int64_t band_rows(const Column& column) {
  const std::int64_t bytes = std::max<std::int64_t>(column.chunk_rows * read_row_bytes(column), 1);
  return column.chunk_rows * std::max<std::int64_t>(static_cast<std::int64_t>(kPieceBytes) / bytes, 1);
}

Chunks chunks_of(const Column& column) {
  if (column.chunk_bytes == 0) return {};
  Chunks chunks;
  chunks.all = std::min(band_rows(column), column.rows) * read_row_bytes(column);
  chunks.fewest = std::min(chunks.all, std::max(column.chunk_bytes, static_cast<std::int64_t>(kSlabBytes)));
  // A filter turns a chunk into another one. Rows of whole width take the place of the first.
  chunks.inflating = column.narrow_chunks ? 2 * column.chunk_bytes : column.chunk_bytes;
  return chunks;
}

double tolerance_of(Kind kind) {  // of the sum of a distribution
  return kind == Kind::f16 ? 1e-2 : 1e-3;
}

void softmax(double* p, std::int64_t classes) {
  const double largest = *std::max_element(p, p + classes);
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum += p[c] = exp_of(p[c] - largest);
  for (std::int64_t c = 0; c < classes; ++c) p[c] /= sum;
}

}  // namespace

struct PoolFiles::Impl {
  struct OpenFile {
    std::size_t number = 0;
    h5::Id file;
    std::array<h5::Id, kDatasets> datasets;  // closed before the file: the library keeps it open otherwise
  };
  // What one read of one file is about.
  struct Slab {
    std::size_t file;
    const Column& column;
    std::int64_t first, count;  // rows of the file
    std::int64_t offset;        // rows since the start of what was asked for
  };

  std::vector<std::string> paths;
  DatasetNames names;
  std::vector<FileHeader> headers;
  std::vector<std::int64_t> first_rows;
  PoolShape shape;
  std::array<std::optional<Error>, kDatasets> faults;  // of datasets that nobody needs so far
  mutable std::list<OpenFile> open;                    // last used first
  mutable std::mutex library;                          // guards `open` and the library, which has no threads
  mutable RawFiles raw_files;
  // Rows of chunks that were read whole: of each dataset those of one file, as they are read.
  struct Band {
    std::size_t file = 0;
    std::int64_t first = 0, count = 0;
    std::unique_ptr<std::byte[]> rows;
  };
  mutable std::array<Band, kDatasets> bands;
  mutable double kept_share = 0;  // of what may be kept beyond the fewest

  std::string name(std::size_t file, Dataset dataset) const {
    return name_in_file(names, dataset, headers[file].column(dataset).alternative);
  }

  std::size_t file_of(std::int64_t row) const {
    require(row >= 0 && row < shape.rows, "the row lies in the pool");
    return static_cast<std::size_t>(std::upper_bound(first_rows.begin(), first_rows.end(), row) - first_rows.begin() -
                                    1);
  }

  // From headers to the shape of the pool.
  void settle(const Needs& needs);
  void settle_rows(std::size_t file, const Needs& needs);
  void settle_needs(std::size_t file, const Needs& needs);
  void compare(std::size_t file, std::size_t reference, Dataset dataset, const Needs& needs);
  void fault(Dataset dataset, const Needs& needs, const Error& error);
  void describe(const Needs& needs);
  std::string type_of(Dataset dataset) const;

  // Reading.
  hid_t dataset(std::size_t file, Dataset which) const;
  template <class Read>
  void read_slabs(Dataset which, std::int64_t first, std::int64_t count, std::size_t row_bytes, Read read) const;
  template <class To>
  void read_floats(const Slab& slab, Dataset which, To* out) const;
  void read_stored(const Slab& slab, Dataset which, void* out) const;
  void read_library(const Slab& slab, Dataset which, std::int64_t first, std::int64_t count, void* out) const;
  const Band& band_with(const Slab& slab, Dataset which, std::int64_t row) const;
  std::vector<std::string> read_texts(const Slab& slab, Dataset which) const;
  void read_singles(const Slab& slab, Dataset which, float* out) const;
  void read_halves(const Slab& slab, std::uint16_t* out) const;
  [[noreturn]] void fail_row(const Slab& slab, Dataset which, std::int64_t row, const std::string& what) const;
  void read_rounded(const Slab& slab, float* out) const;
  template <class Work>
  void for_stretches(Dataset which, std::span<const std::int64_t> rows, std::int64_t row_bytes, const Work& work) const;
  void read_embedding_rows(std::span<const std::int64_t> rows, std::byte* out, Element type) const;
  void check_embeddings(const Slab& slab, const float* rows, const double* unrounded) const;
  void check_norms(const Slab& slab, const float* rows) const;
  void check_distributions(const Slab& slab, double* p) const;
  void check_distributions(const Slab& slab, float* p) const;
  void check_logits(const Slab& slab, double* p) const;
};

namespace {

bool is_needed(Dataset dataset, const Needs& needs) {
  if (dataset == Dataset::embeddings) return needs.embeddings;
  if (dataset == Dataset::probabilities) return needs.probabilities || needs.passes;
  return dataset == Dataset::ids || dataset == Dataset::labels;  // every command reads them where they are
}

// Whether its rows count for the file: not those of large datasets that nobody reads.
bool counts_rows(Dataset dataset, const Needs& needs) {
  const bool large = dataset == Dataset::embeddings || dataset == Dataset::probabilities;
  return !large || is_needed(dataset, needs);
}

}  // namespace

void PoolFiles::Impl::fault(Dataset dataset, const Needs& needs, const Error& error) {
  if (is_needed(dataset, needs)) throw error;
  auto& kept = faults[static_cast<std::size_t>(dataset)];
  if (!kept) kept = error;
}

// In order of the files, so that the first fault is the same for every number of ranks.
void PoolFiles::Impl::settle(const Needs& needs) {
  std::optional<std::size_t> reference;  // the first file with rows: others must look like it
  first_rows.push_back(0);
  for (std::size_t file = 0; file < paths.size(); ++file) {
    const FileHeader& header = headers[file];
    if (!header.fault.empty()) throw Error(header.header.fault_code, header.fault);
    for (Dataset which : kEveryDataset)
      if (!header.fault_of(which).empty())
        fault(which, needs, Error(header.column(which).fault_code, header.fault_of(which)));
    settle_rows(file, needs);
    first_rows.push_back(first_rows.back() + headers[file].rows);
    if (headers[file].rows == 0) continue;
    settle_needs(file, needs);
    if (!reference) reference = file;
    for (Dataset which : kEveryDataset) compare(file, *reference, which, needs);
  }
  if (!reference)
    throw Error(Exit::bad_data,
                fmt::format("{}: the pool is empty: expected at least one row in {} file{}, found none",
                            paths.empty() ? "--pool" : paths[0], paths.size(), paths.size() == 1 ? "" : "s"));
  describe(needs);
}

void PoolFiles::Impl::settle_rows(std::size_t file, const Needs& needs) {
  FileHeader& header = headers[file];
  std::optional<Dataset> counted;
  const auto is_usable = [&](Dataset which) { return header.column(which).present && header.fault_of(which).empty(); };
  for (Dataset which : kEveryDataset)
    if (!counted && is_usable(which) && counts_rows(which, needs)) counted = which;
  for (Dataset which : kEveryDataset)
    if (!counted && is_usable(which)) counted = which;
  for (Dataset which : kEveryDataset)
    if (!counted && header.column(which).present) throw Error(header.column(which).fault_code, header.fault_of(which));
  if (!counted)
    throw Error(Exit::bad_data, fmt::format("{}: expected a dataset \"{}\", found neither it nor another one of a pool",
                                            paths[file], name_in(names, Dataset::embeddings)));
  header.rows = header.column(*counted).rows;
  for (Dataset which : kEveryDataset) {
    if (!is_usable(which) || header.column(which).rows == header.rows) continue;
    const Error error(Exit::bad_data,
                      fmt::format("{}: dataset \"{}\": expected {} rows as in dataset \"{}\", found {}", paths[file],
                                  name(file, which), header.rows, name(file, *counted), header.column(which).rows));
    if (counts_rows(which, needs)) throw error;
    fault(which, needs, error);
  }
}

void PoolFiles::Impl::settle_needs(std::size_t file, const Needs& needs) {
  const FileHeader& header = headers[file];
  if (needs.embeddings && !header.column(Dataset::embeddings).present)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", paths[file], names.embeddings));
  const Column& probabilities = header.column(Dataset::probabilities);
  if (is_needed(Dataset::probabilities, needs) && !probabilities.present)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing, and so is \"{}\"", paths[file],
                                            names.probabilities, names.logits));
  if (needs.passes && probabilities.passes < kFewestPasses)
    throw Error(
        Exit::bad_data,
        fmt::format("{}: dataset \"{}\": expected passes, [N,T,C] with T >= {}, found {}", paths[file],
                    name(file, Dataset::probabilities), kFewestPasses,
                    probabilities.passes == 0 ? fmt::format("[N,C] = [{},{}]", probabilities.rows, probabilities.width)
                                              : fmt::format("[{},1,{}]", probabilities.rows, probabilities.width)));
}

void PoolFiles::Impl::compare(std::size_t file, std::size_t reference, Dataset which, const Needs& needs) {
  const Column& here = headers[file].column(which);
  const Column& there = headers[reference].column(which);
  const auto differs = [&](std::string_view what, const std::string& expected, const std::string& found) {
    fault(which, needs,
          Error(Exit::bad_data, fmt::format("{}: dataset \"{}\": expected {}{} as in {}, found {}", paths[file],
                                            name(file, which), what, expected, paths[reference], found)));
  };
  if (here.present != there.present)
    differs("", there.present ? "one" : "none", here.present ? "one" : "none");
  else if (here.width != there.width)
    differs(which == Dataset::embeddings ? "D = " : "C = ", std::to_string(there.width), std::to_string(here.width));
  else if (here.passes != there.passes)
    differs("T = ", there.passes == 0 ? "none" : std::to_string(there.passes),
            here.passes == 0 ? "none" : std::to_string(here.passes));
  else if (here.present && (here.kind == Kind::text) != (there.kind == Kind::text))
    differs("", there.kind == Kind::text ? "strings" : "integers", here.kind == Kind::text ? "strings" : "integers");
}

std::string PoolFiles::Impl::type_of(Dataset which) const {
  std::string type;
  for (const FileHeader& header : headers) {
    const Column& column = header.column(which);
    if (!column.present || column.rows == 0) continue;
    if (!type.empty() && type != name_of(column.kind)) return "mixed";
    type = name_of(column.kind);
  }
  return type;
}

void PoolFiles::Impl::describe(const Needs& needs) {
  shape.rows = first_rows.back();
  for (const FileHeader& header : headers) {
    if (header.rows == 0) continue;
    const auto has = [&](Dataset which) { return header.column(which).present; };
    const Column& probabilities = header.column(Dataset::probabilities);
    if (has(Dataset::embeddings) && shape.dim == 0) shape.dim = header.column(Dataset::embeddings).width;
    if (has(Dataset::probabilities) && shape.classes == 0) {
      shape.classes = probabilities.width;
      shape.passes = probabilities.passes;
    }
    shape.logits = shape.logits || (has(Dataset::probabilities) && probabilities.alternative);
    shape.ids = shape.ids || has(Dataset::ids);
    shape.text_ids = shape.text_ids || (has(Dataset::ids) && header.column(Dataset::ids).kind == Kind::text);
    shape.labels = shape.labels || has(Dataset::labels);
    shape.reference_classes = shape.reference_classes || has(Dataset::classes);
    shape.costs = shape.costs || has(Dataset::costs);
    shape.groups = shape.groups || has(Dataset::groups);
  }
  shape.embeddings_type = type_of(Dataset::embeddings);
  shape.probabilities_type = type_of(Dataset::probabilities);
  shape.half_embeddings = shape.embeddings_type == name_of(Kind::f16);
  for (Dataset which : kEveryDataset) {
    Chunks largest;
    for (const FileHeader& header : headers) {
      const Chunks chunks = chunks_of(header.column(which));
      largest.inflating = std::max(largest.inflating, chunks.inflating);
      largest.fewest = std::max(largest.fewest, chunks.fewest);
      largest.all = std::max(largest.all, chunks.all);
    }
    const auto add = [&](Chunks& sum) {
      sum = {std::max(sum.inflating, largest.inflating), sum.fewest + largest.fewest, sum.all + largest.all};
    };
    if (is_needed(which, needs)) add(shape.chunks);
    if (which == Dataset::ids || which == Dataset::labels) add(shape.id_chunks);
  }
}

// --- reading ---

hid_t PoolFiles::Impl::dataset(std::size_t file, Dataset which) const {
  const auto at = std::find_if(open.begin(), open.end(), [&](const OpenFile& kept) { return kept.number == file; });
  if (at != open.end()) {
    open.splice(open.begin(), open, at);
  } else {
    if (open.size() == kOpenFiles) open.pop_back();
    open.emplace_front();
    open.front().number = file;
    open.front().file = h5::open_file(paths[file]);
  }
  h5::Id& id = open.front().datasets[static_cast<std::size_t>(which)];
  if (!id) {
    const Column& column = headers[file].column(which);
    // What is read whole is kept here, in rows; the library only has to find one chunk that is stored as it is worth
    // reading whole. Texts stay with the library.
    std::optional<std::size_t> cache_bytes;
    if (column.kind != Kind::text)
      cache_bytes = column.narrow_chunks ? static_cast<std::size_t>(column.chunk_bytes) : 0;
    id = h5::open_dataset(open.front().file.get(), name(file, which), paths[file], cache_bytes);
  }
  return id.get();
}

// Calls `read` with pieces of files that fit the processor's cache.
template <class Read>
void PoolFiles::Impl::read_slabs(Dataset which, std::int64_t first, std::int64_t count, std::size_t row_bytes,
                                 Read read) const {
  require(first >= 0 && count >= 0 && count <= shape.rows - first, "rows to read lie in the pool");
  if (const auto& kept = faults[static_cast<std::size_t>(which)]) throw *kept;
  const std::int64_t end = first + count;
  auto file =
      static_cast<std::size_t>(std::upper_bound(first_rows.begin(), first_rows.end(), first) - first_rows.begin() - 1);
  for (std::int64_t row = first; row < end; ++file) {
    const std::int64_t in_file = row - first_rows[file];
    const std::int64_t stop = std::min(end, first_rows[file + 1]) - first_rows[file];
    const Column& column = headers[file].column(which);
    if (stop > in_file && !column.present)
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", paths[file], name(file, which)));
    const std::size_t piece = column.offset >= 0 ? kPieceBytes : kSlabBytes;
    const std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>(piece / row_bytes));
    for (std::int64_t at = in_file; at < stop;) {
      const std::int64_t next = std::min(stop, (at / step + 1) * step);
      read(Slab{file, column, at, next - at, first_rows[file] + at - first});
      at = next;
    }
    row = first_rows[file] + stop;
  }
}

// Numbers as they are stored, but in this machine's byte order where they are not float16.
void PoolFiles::Impl::read_stored(const Slab& slab, Dataset which, void* out) const {
  const Column& column = slab.column;
  const std::int64_t row_bytes = read_row_bytes(column);
  if (column.offset >= 0) {
    RawFile file = raw_files.take(slab.file, paths[slab.file]);
    file.read(column.offset + slab.first * row_bytes, static_cast<std::size_t>(slab.count * row_bytes), out,
              paths[slab.file], name(slab.file, which));
    raw_files.give(slab.file, std::move(file));
    return;
  }
  const std::lock_guard lock(library);
  if (column.chunk_bytes == 0) return read_library(slab, which, slab.first, slab.count, out);
  for (std::int64_t at = slab.first, count; at < slab.first + slab.count; at += count) {
    const Band& band = band_with(slab, which, at);
    count = std::min(slab.first + slab.count, band.first + band.count) - at;
    std::memcpy(static_cast<std::byte*>(out) + (at - slab.first) * row_bytes,
                band.rows.get() + (at - band.first) * row_bytes, static_cast<std::size_t>(count * row_bytes));
  }
}

// The rows around `row` of a file whose chunks are read whole: as many as may be kept, up to all of these chunks.
const PoolFiles::Impl::Band& PoolFiles::Impl::band_with(const Slab& slab, Dataset which, std::int64_t row) const {
  Band& band = bands[static_cast<std::size_t>(which)];
  if (band.file == slab.file && row >= band.first && row < band.first + band.count) return band;
  band = {};  // before the next is inflated
  const Column& column = slab.column;
  const Chunks chunks = chunks_of(column);
  const std::int64_t row_bytes = read_row_bytes(column), whole = band_rows(column), start = row / whole * whole;
  const auto beyond = static_cast<std::int64_t>(kept_share * static_cast<double>(chunks.all - chunks.fewest));
  const std::int64_t rows = std::clamp<std::int64_t>((chunks.fewest + beyond) / row_bytes, 1, whole);
  const std::int64_t first = start + (row - start) / rows * rows;
  const std::int64_t count = std::min({rows, start + whole - first, column.rows - first});
  auto read = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(count * row_bytes));
  read_library(slab, which, first, count, read.get());
  band = {slab.file, first, count, std::move(read)};
  return band;
}

void PoolFiles::Impl::read_library(const Slab& slab, Dataset which, std::int64_t first, std::int64_t count,
                                   void* out) const {
  const Column& column = slab.column;
  const hid_t from = dataset(slab.file, which);
  const h5::Id half(column.kind == Kind::f16 ? H5Dget_type(from) : H5I_INVALID_HID, H5Tclose);
  const hid_t type = column.kind == Kind::f16           ? half.get()
                     : column.kind == Kind::f32         ? H5T_NATIVE_FLOAT
                     : column.kind == Kind::f64         ? H5T_NATIVE_DOUBLE
                     : column.kind == Kind::unsigned_64 ? H5T_NATIVE_UINT64
                                                        : H5T_NATIVE_INT64;
  h5::read_rows(from, type, static_cast<std::uint64_t>(first), static_cast<std::uint64_t>(count), out, paths[slab.file],
                name(slab.file, which));
}

// As To, without rounding: To holds every value of what is stored. The library would convert float16 at 0.02 GB/s.
template <class To>
void PoolFiles::Impl::read_floats(const Slab& slab, Dataset which, To* out) const {
  const std::int64_t elements = slab.count * slab.column.per_row();
  require(static_cast<std::int64_t>(sizeof(To)) >= stored_bytes(slab.column.kind), "no value is rounded");
  auto* const end = reinterpret_cast<std::byte*>(out + elements);
  read_stored(slab, which, end - elements * stored_bytes(slab.column.kind));
  if (slab.column.kind == Kind::f16) widen_halves(out, elements, slab.column.swapped);
  if constexpr (sizeof(To) > 4)
    if (slab.column.kind == Kind::f32) widen_singles(out, elements);
}

std::vector<std::string> PoolFiles::Impl::read_texts(const Slab& slab, Dataset which) const {
  const std::lock_guard lock(library);
  return h5::read_text_rows(dataset(slab.file, which), static_cast<std::uint64_t>(slab.first),
                            static_cast<std::uint64_t>(slab.count), paths[slab.file], name(slab.file, which));
}

// As float32, rounded where float64 is stored.
void PoolFiles::Impl::read_singles(const Slab& slab, Dataset which, float* out) const {
  if (slab.column.kind != Kind::f64) return read_floats(slab, which, out);
  std::vector<double> stored(static_cast<std::size_t>(slab.count * slab.column.per_row()));
  read_stored(slab, which, stored.data());
  std::transform(stored.begin(), stored.end(), out, [](double x) { return static_cast<float>(x); });
}

void PoolFiles::Impl::read_halves(const Slab& slab, std::uint16_t* out) const {
  read_stored(slab, Dataset::embeddings, out);
  if (!slab.column.swapped) return;
  for (std::int64_t i = 0; i < slab.count * slab.column.width; ++i)
    out[i] = static_cast<std::uint16_t>(out[i] << 8 | out[i] >> 8);
}

void PoolFiles::Impl::fail_row(const Slab& slab, Dataset which, std::int64_t row, const std::string& what) const {
  throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\", row {}{}", paths[slab.file], name(slab.file, which),
                                          slab.first + row, what));
}

// `unrounded`: what was stored, where that was float64; else null.
void PoolFiles::Impl::check_embeddings(const Slab& slab, const float* rows, const double* unrounded) const {
  const std::int64_t width = slab.column.width, elements = slab.count * width;
  const double largest = largest_magnitude(rows, elements);
  if (largest * largest * static_cast<double>(width) < kLargestNorm2) return;
  const std::int64_t at = std::find_if(rows, rows + elements, [](float x) { return !std::isfinite(x); }) - rows;
  if (at == elements) return check_norms(slab, rows);
  const bool overflowed = unrounded && std::isfinite(unrounded[at]);
  fail_row(slab, Dataset::embeddings, at / width,
           fmt::format(", column {}: expected a number that is finite{}, found {}", at % width,
                       overflowed ? " in float32" : "", unrounded ? unrounded[at] : static_cast<double>(rows[at])));
}

void PoolFiles::Impl::check_norms(const Slab& slab, const float* rows) const {
  for (std::int64_t row = 0; row < slab.count; ++row, rows += slab.column.width) {
    const double norm2 =
        std::accumulate(rows, rows + slab.column.width, 0.0, [](double sum, double x) { return sum + x * x; });
    if (norm2 < kLargestNorm2) continue;
    fail_row(slab, Dataset::embeddings, row,
             fmt::format(": expected a squared norm below {:g}, found {:g}", kLargestNorm2, norm2));
  }
}

void PoolFiles::Impl::read_rounded(const Slab& slab, float* out) const {
  std::vector<double> stored(static_cast<std::size_t>(slab.count * slab.column.width));
  read_floats(slab, Dataset::embeddings, stored.data());
  std::transform(stored.begin(), stored.end(), out, [](double x) { return static_cast<float>(x); });
  check_embeddings(slab, out, stored.data());
}

void PoolFiles::read_embeddings(std::int64_t first, std::int64_t count, std::span<float> out,
                                const Visit& visit) const {
  const std::int64_t dim = impl_->shape.dim;
  require(static_cast<std::int64_t>(out.size()) == count * dim, "room for the embeddings asked for");
  impl_->read_slabs(Dataset::embeddings, first, count, static_cast<std::size_t>(dim) * sizeof(float),
                    [&](const Impl::Slab& slab) {
                      float* rows = out.data() + slab.offset * dim;
                      if (slab.column.kind == Kind::f64) {
                        impl_->read_rounded(slab, rows);
                      } else {
                        impl_->read_floats(slab, Dataset::embeddings, rows);
                        impl_->check_embeddings(slab, rows, nullptr);
                      }
                      if (visit) visit(first + slab.offset, slab.count);
                    });
}

void PoolFiles::read_embedding_rows(std::span<const std::int64_t> rows, std::byte* out, Element type) const {
  if (rows.empty()) return;
  impl_->read_embedding_rows(rows, out, type);
}

// Calls work(begin, end) for stretches of rows, ascending, of one file each. Rows between which there is little are
// read together: in one piece, or in one chunk, which is inflated whole.
template <class Work>
void PoolFiles::Impl::for_stretches(Dataset which, std::span<const std::int64_t> rows, std::int64_t row_bytes,
                                    const Work& work) const {
  require(std::adjacent_find(rows.begin(), rows.end(), std::greater_equal<>()) == rows.end(),
          "rows to read are ascending");
  const std::int64_t most = std::max<std::int64_t>(1, static_cast<std::int64_t>(kSlabBytes) / row_bytes);
  for (std::size_t begin = 0, end; begin < rows.size(); begin = end) {
    const std::size_t file = file_of(rows[begin]);
    const std::int64_t chunk = headers[file].column(which).chunk_rows, start = first_rows[file];
    const auto goes_with = [&](std::size_t k) {  // the rows before it
      if (rows[k] >= first_rows[file + 1] || rows[k] - rows[begin] >= most) return false;
      if (chunk > 0 && (rows[k] - start) / chunk == (rows[k - 1] - start) / chunk) return true;
      return (rows[k] - rows[k - 1] - 1) * row_bytes <= kGapBytes;
    };
    for (end = begin + 1; end < rows.size() && goes_with(end);) ++end;
    work(begin, end);
  }
}

void PoolFiles::Impl::read_embedding_rows(std::span<const std::int64_t> rows, std::byte* out, Element type) const {
  require(type == Element::f32 || (type == Element::f16 && shape.half_embeddings), "a type to read embeddings in");
  if (const auto& kept = faults[static_cast<std::size_t>(Dataset::embeddings)]) throw *kept;
  const std::size_t row_bytes = static_cast<std::size_t>(shape.dim) * element_bytes(type);
  std::vector<float> buffer;
  const auto read = [&](const Slab& slab, void* to) {
    if (type == Element::f16) return read_halves(slab, static_cast<std::uint16_t*>(to));
    read_singles(slab, Dataset::embeddings, static_cast<float*>(to));
  };
  for_stretches(Dataset::embeddings, rows, static_cast<std::int64_t>(row_bytes), [&](std::size_t i, std::size_t end) {
    const std::size_t file = file_of(rows[i]);
    const std::int64_t count = rows[end - 1] - rows[i] + 1;
    const Slab slab{file, headers[file].column(Dataset::embeddings), rows[i] - first_rows[file], count, 0};
    std::byte* to = out + i * row_bytes;
    if (count == static_cast<std::int64_t>(end - i)) {
      read(slab, to);
    } else {
      buffer.resize(static_cast<std::size_t>(count * shape.dim));
      read(slab, buffer.data());
      const auto* from = reinterpret_cast<const std::byte*>(buffer.data());
      for (std::size_t k = i; k < end; ++k, to += row_bytes)
        std::memcpy(to, from + static_cast<std::size_t>(rows[k] - rows[i]) * row_bytes, row_bytes);
    }
  });
}

void PoolFiles::Impl::check_distributions(const Slab& slab, double* p) const {
  const std::int64_t classes = slab.column.width, passes = std::max<std::int64_t>(slab.column.passes, 1);
  const double tolerance = tolerance_of(slab.column.kind);
  for (std::int64_t i = 0; i < slab.count * passes; ++i) {
    double* one = p + i * classes;
    const double sum = settle_distribution(one, classes);
    if (std::fabs(sum - 1) <= tolerance) continue;
    const std::string pass = slab.column.passes > 0 ? fmt::format(", pass {}", i % passes) : "";
    const double* bad =
        std::find_if(one, one + classes, [](double x) { return !std::isfinite(x) || x < kSmallestProbability; });
    if (bad == one + classes)
      fail_row(slab, Dataset::probabilities, i / passes,
               fmt::format("{}: expected a sum of 1 within {}, found {}", pass, tolerance, sum));
    fail_row(slab, Dataset::probabilities, i / passes,
             fmt::format("{}, class {}: expected a finite number that is at least {}, found {}", pass, bad - one,
                         kSmallestProbability, *bad));
  }
}

// Nearly always there is nothing to raise and no sum near the tolerance, and float32 can tell.
void PoolFiles::Impl::check_distributions(const Slab& slab, float* p) const {
  const std::int64_t classes = slab.column.width, rows = slab.count * std::max<std::int64_t>(slab.column.passes, 1);
  const double tolerance = tolerance_of(slab.column.kind);
  if (are_distributions(p, rows, classes, tolerance)) return;
  std::vector<double> wide(p, p + rows * classes);
  check_distributions(slab, wide.data());
  std::transform(wide.begin(), wide.end(), p, [](double x) { return static_cast<float>(x); });
}

void PoolFiles::Impl::check_logits(const Slab& slab, double* p) const {
  const std::int64_t classes = slab.column.width, per_row = slab.column.per_row(), elements = slab.count * per_row;
  if (!all_finite(p, elements)) {
    const std::int64_t at = std::find_if(p, p + elements, [](double x) { return !std::isfinite(x); }) - p;
    fail_row(slab, Dataset::probabilities, at / per_row, fmt::format(": expected finite numbers, found {}", p[at]));
  }
  for (std::int64_t i = 0; i < elements; i += classes) softmax(p + i, classes);
}

void PoolFiles::visit_probabilities(std::int64_t first, std::int64_t count, std::vector<double>& room,
                                    const std::function<void(const Distributions&)>& visit) const {
  const std::int64_t per_row = impl_->shape.classes * std::max<std::int64_t>(impl_->shape.passes, 1);
  impl_->read_slabs(Dataset::probabilities, first, count, static_cast<std::size_t>(per_row) * sizeof(float),
                    [&](const Impl::Slab& slab) {
                      const auto values = static_cast<std::size_t>(slab.count * per_row);
                      Distributions rows{first + slab.offset, slab.count};
                      if (slab.column.alternative || slab.column.kind == Kind::f64) {
                        if (room.size() < values) room.resize(values);
                        impl_->read_floats(slab, Dataset::probabilities, room.data());
                        if (slab.column.alternative)
                          impl_->check_logits(slab, room.data());
                        else
                          impl_->check_distributions(slab, room.data());
                        rows.wide = room.data();
                      } else {
                        if (room.size() < (values + 1) / 2) room.resize((values + 1) / 2);
                        auto* p = reinterpret_cast<float*>(room.data());
                        impl_->read_floats(slab, Dataset::probabilities, p);
                        impl_->check_distributions(slab, p);
                        rows.narrow = p;
                      }
                      visit(rows);
                    });
}

void PoolFiles::read_probabilities(std::int64_t first, std::int64_t count, std::span<double> out) const {
  const std::int64_t per_row = impl_->shape.classes * std::max<std::int64_t>(impl_->shape.passes, 1);
  require(static_cast<std::int64_t>(out.size()) == count * per_row, "room for the probabilities asked for");
  std::vector<double> room;
  visit_probabilities(first, count, room, [&](const Distributions& rows) {
    rows.copy(per_row, out.data() + (rows.first - first) * per_row);
  });
}

void PoolFiles::visit_probability_rows(std::span<const std::int64_t> rows, std::vector<double>& room,
                                       const std::function<void(std::size_t, const Distributions&)>& visit) const {
  const std::int64_t per_row = impl_->shape.classes * std::max<std::int64_t>(impl_->shape.passes, 1);
  impl_->for_stretches(Dataset::probabilities, rows, per_row * static_cast<std::int64_t>(sizeof(float)),
                       [&](std::size_t begin, std::size_t end) {
                         const std::int64_t count = rows[end - 1] - rows[begin] + 1;
                         visit_probabilities(rows[begin], count, room, [&](const Distributions& some) {
                           for (; begin < end && rows[begin] < some.first + some.count; ++begin)
                             visit(begin, some.part(rows[begin] - some.first, 1, per_row));
                         });
                       });
}

std::vector<std::int64_t> PoolFiles::read_integers(Dataset dataset, std::int64_t first, std::int64_t count) const {
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  impl_->read_slabs(dataset, first, count, sizeof(std::int64_t), [&](const Impl::Slab& slab) {
    std::int64_t* rows = values.data() + slab.offset;
    const bool is_unsigned = slab.column.kind == Kind::unsigned_64;
    impl_->read_stored(slab, dataset, rows);
    if (!is_unsigned) return;
    const std::int64_t at = std::find_if(rows, rows + slab.count, [](std::int64_t x) { return x < 0; }) - rows;
    if (at < slab.count)
      impl_->fail_row(
          slab, dataset, at,
          fmt::format(": expected an integer that fits int64, found {}", static_cast<std::uint64_t>(rows[at])));
  });
  return values;
}

std::vector<std::string> PoolFiles::read_text_ids(std::int64_t first, std::int64_t count) const {
  std::vector<std::string> texts;
  texts.reserve(static_cast<std::size_t>(count));
  constexpr std::size_t typical_bytes = 64;
  impl_->read_slabs(Dataset::ids, first, count, typical_bytes, [&](const Impl::Slab& slab) {
    std::vector<std::string> rows = impl_->read_texts(slab, Dataset::ids);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!is_utf8(rows[i]))
        impl_->fail_row(slab, Dataset::ids, static_cast<std::int64_t>(i), ": expected UTF-8, found other bytes");
      texts.push_back(std::move(rows[i]));
    }
  });
  return texts;
}

std::vector<double> PoolFiles::read_costs(std::int64_t first, std::int64_t count) const {
  std::vector<double> costs(static_cast<std::size_t>(count));
  impl_->read_slabs(Dataset::costs, first, count, sizeof(double), [&](const Impl::Slab& slab) {
    double* rows = costs.data() + slab.offset;
    impl_->read_floats(slab, Dataset::costs, rows);
    for (std::int64_t i = 0; i < slab.count; ++i)
      if (!(rows[i] > 0) || !std::isfinite(rows[i]))
        impl_->fail_row(slab, Dataset::costs, i, fmt::format(": expected a finite cost > 0, found {}", rows[i]));
  });
  return costs;
}

// --- the interface ---

PoolFiles::PoolFiles(const Comm& comm, std::vector<std::string> paths, const DatasetNames& names, const Needs& needs)
    : impl_(std::make_shared<Impl>()) {
  impl_->paths = std::move(paths);
  impl_->names = names;
  impl_->headers = read_headers(comm, impl_->paths, names);
  comm.agree([&] { impl_->settle(needs); });
}

const PoolShape& PoolFiles::shape() const {
  return impl_->shape;
}
const std::vector<std::string>& PoolFiles::paths() const {
  return impl_->paths;
}
std::int64_t PoolFiles::first_row_of(std::size_t file) const {
  return impl_->first_rows[file];
}

bool PoolFiles::reads_rows_alone(Dataset dataset) const {
  return std::all_of(impl_->headers.begin(), impl_->headers.end(),
                     [&](const FileHeader& header) { return header.rows == 0 || header.column(dataset).offset >= 0; });
}

void PoolFiles::keep_chunks(std::int64_t bytes) const {
  const Chunks& chunks = impl_->shape.chunks;
  const auto beyond = static_cast<double>(chunks.all - chunks.fewest);
  const std::lock_guard lock(impl_->library);
  impl_->kept_share = beyond > 0 ? std::clamp(static_cast<double>(bytes - chunks.fewest) / beyond, 0.0, 1.0) : 0;
  impl_->bands = {};
  impl_->open.clear();
  h5::release_memory();
}

std::string PoolFiles::where(std::int64_t row) const {
  const std::size_t file = impl_->file_of(row);
  return fmt::format("{} row {}", impl_->paths[file], row - impl_->first_rows[file]);
}
std::string PoolFiles::where(std::int64_t row, Dataset dataset) const {
  const std::size_t file = impl_->file_of(row);
  return fmt::format("{}: dataset \"{}\", row {}", impl_->paths[file], impl_->name(file, dataset),
                     row - impl_->first_rows[file]);
}

}  // namespace seine
