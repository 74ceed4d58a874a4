#include "seine/pool_files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <numeric>
#include <utility>

#include "reading/raw_file.hpp"
#include "reading/row_checks.hpp"
#include "reading/stored_rows.hpp"
#include "reading/widening.hpp"
#include "seine/error.hpp"
#include "seine/row_math.hpp"

namespace seine {
namespace {

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
  explicit Impl(PoolLayout of) : layout(std::move(of)), stored(layout) {}

  const PoolLayout layout;
  const StoredRows stored;

  template <class Read>
  void read_slabs(Dataset which, std::int64_t first, std::int64_t count, std::size_t row_bytes, Read read) const;
  template <class To>
  void read_floats(const Slab& slab, To* out) const;
  void read_singles(const Slab& slab, float* out) const;
  void read_halves(const Slab& slab, std::uint16_t* out) const;
  [[noreturn]] void fail_row(const Slab& slab, std::int64_t row, const std::string& what) const;
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

// Calls `read` with pieces of files that fit the processor's cache.
template <class Read>
void PoolFiles::Impl::read_slabs(Dataset which, std::int64_t first, std::int64_t count, std::size_t row_bytes,
                                 Read read) const {
  require(first >= 0 && count >= 0 && count <= layout.shape().rows - first, "rows to read lie in the pool");
  layout.expect_sound(which);
  if (count == 0) return;
  const std::int64_t end = first + count;
  std::size_t file = layout.file_of(first);
  for (std::int64_t row = first; row < end; ++file) {
    const std::int64_t in_file = row - layout.first_row(file);
    const std::int64_t stop = std::min(end, layout.first_row(file + 1)) - layout.first_row(file);
    const Column& column = layout.column(file, which);
    if (stop > in_file && !column.present)
      throw Error(Exit::bad_data,
                  fmt::format("{}: dataset \"{}\" is missing", layout.path(file), layout.name(file, which)));
    const std::size_t piece = column.offset >= 0 ? kPieceBytes : kSlabBytes;
    const std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>(piece / row_bytes));
    for (std::int64_t at = in_file; at < stop;) {
      const std::int64_t next = std::min(stop, (at / step + 1) * step);
      read(Slab{file, which, column, at, next - at, layout.first_row(file) + at - first});
      at = next;
    }
    row = layout.first_row(file) + stop;
  }
}

// As To, without rounding: To holds every value of what is stored. The library would convert float16 at 0.02 GB/s.
template <class To>
void PoolFiles::Impl::read_floats(const Slab& slab, To* out) const {
  const std::int64_t elements = slab.count * slab.column.per_row();
  require(static_cast<std::int64_t>(sizeof(To)) >= bytes_of(slab.column.kind), "no value is rounded");
  auto* const end = reinterpret_cast<std::byte*>(out + elements);
  stored.read(slab, end - elements * bytes_of(slab.column.kind));
  if (slab.column.kind == Kind::f16) widen_halves(out, elements, slab.column.swapped);
  if constexpr (sizeof(To) > 4)
    if (slab.column.kind == Kind::f32) widen_singles(out, elements);
}

// As float32, rounded where float64 is stored.
void PoolFiles::Impl::read_singles(const Slab& slab, float* out) const {
  if (slab.column.kind != Kind::f64) return read_floats(slab, out);
  std::vector<double> wide(static_cast<std::size_t>(slab.count * slab.column.per_row()));
  stored.read(slab, wide.data());
  std::transform(wide.begin(), wide.end(), out, [](double x) { return static_cast<float>(x); });
}

void PoolFiles::Impl::read_halves(const Slab& slab, std::uint16_t* out) const {
  stored.read(slab, out);
  if (!slab.column.swapped) return;
  for (std::int64_t i = 0; i < slab.count * slab.column.width; ++i)
    out[i] = static_cast<std::uint16_t>(out[i] << 8 | out[i] >> 8);
}

void PoolFiles::Impl::fail_row(const Slab& slab, std::int64_t row, const std::string& what) const {
  throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\", row {}{}", layout.path(slab.file),
                                          layout.name(slab.file, slab.which), slab.first + row, what));
}

// `unrounded`: what was stored, where that was float64; else null.
void PoolFiles::Impl::check_embeddings(const Slab& slab, const float* rows, const double* unrounded) const {
  const std::int64_t width = slab.column.width, elements = slab.count * width;
  const double largest = largest_magnitude(rows, elements);
  if (largest * largest * static_cast<double>(width) < kLargestNorm2) return;
  const std::int64_t at = std::find_if(rows, rows + elements, [](float x) { return !std::isfinite(x); }) - rows;
  if (at == elements) return check_norms(slab, rows);
  const bool overflowed = unrounded && std::isfinite(unrounded[at]);
  fail_row(slab, at / width,
           fmt::format(", column {}: expected a number that is finite{}, found {}", at % width,
                       overflowed ? " in float32" : "", unrounded ? unrounded[at] : static_cast<double>(rows[at])));
}

void PoolFiles::Impl::check_norms(const Slab& slab, const float* rows) const {
  for (std::int64_t row = 0; row < slab.count; ++row, rows += slab.column.width) {
    const double norm2 =
        std::accumulate(rows, rows + slab.column.width, 0.0, [](double sum, double x) { return sum + x * x; });
    if (norm2 < kLargestNorm2) continue;
    fail_row(slab, row, fmt::format(": expected a squared norm below {:g}, found {:g}", kLargestNorm2, norm2));
  }
}

void PoolFiles::Impl::read_rounded(const Slab& slab, float* out) const {
  std::vector<double> wide(static_cast<std::size_t>(slab.count * slab.column.width));
  read_floats(slab, wide.data());
  std::transform(wide.begin(), wide.end(), out, [](double x) { return static_cast<float>(x); });
  check_embeddings(slab, out, wide.data());
}

void PoolFiles::read_embeddings(std::int64_t first, std::int64_t count, std::span<float> out,
                                const Visit& visit) const {
  const std::int64_t dim = impl_->layout.shape().dim;
  require(static_cast<std::int64_t>(out.size()) == count * dim, "room for the embeddings asked for");
  impl_->read_slabs(Dataset::embeddings, first, count, static_cast<std::size_t>(dim) * sizeof(float),
                    [&](const Slab& slab) {
                      float* rows = out.data() + slab.offset * dim;
                      if (slab.column.kind == Kind::f64) {
                        impl_->read_rounded(slab, rows);
                      } else {
                        impl_->read_floats(slab, rows);
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
    const std::size_t file = layout.file_of(rows[begin]);
    const std::int64_t chunk = layout.column(file, which).chunk_rows, start = layout.first_row(file);
    const auto goes_with = [&](std::size_t k) {  // the rows before it
      if (rows[k] >= layout.first_row(file + 1) || rows[k] - rows[begin] >= most) return false;
      if (chunk > 0 && (rows[k] - start) / chunk == (rows[k - 1] - start) / chunk) return true;
      return (rows[k] - rows[k - 1] - 1) * row_bytes <= kGapBytes;
    };
    for (end = begin + 1; end < rows.size() && goes_with(end);) ++end;
    work(begin, end);
  }
}

void PoolFiles::Impl::read_embedding_rows(std::span<const std::int64_t> rows, std::byte* out, Element type) const {
  require(type == Element::f32 || (type == Element::f16 && layout.shape().half_embeddings),
          "a type to read embeddings in");
  layout.expect_sound(Dataset::embeddings);
  const std::size_t row_bytes = static_cast<std::size_t>(layout.shape().dim) * element_bytes(type);
  std::vector<float> buffer;
  const auto read = [&](const Slab& slab, void* to) {
    if (type == Element::f16) return read_halves(slab, static_cast<std::uint16_t*>(to));
    read_singles(slab, static_cast<float*>(to));
  };
  for_stretches(Dataset::embeddings, rows, static_cast<std::int64_t>(row_bytes), [&](std::size_t i, std::size_t end) {
    const std::size_t file = layout.file_of(rows[i]);
    const std::int64_t count = rows[end - 1] - rows[i] + 1;
    const Slab slab{file, Dataset::embeddings, layout.column(file, Dataset::embeddings),
                    rows[i] - layout.first_row(file), count};
    std::byte* to = out + i * row_bytes;
    if (count == static_cast<std::int64_t>(end - i)) {
      read(slab, to);
    } else {
      buffer.resize(static_cast<std::size_t>(count * layout.shape().dim));
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
      fail_row(slab, i / passes, fmt::format("{}: expected a sum of 1 within {}, found {}", pass, tolerance, sum));
    fail_row(slab, i / passes,
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
    fail_row(slab, at / per_row, fmt::format(": expected finite numbers, found {}", p[at]));
  }
  for (std::int64_t i = 0; i < elements; i += classes) softmax(p + i, classes);
}

void PoolFiles::visit_probabilities(std::int64_t first, std::int64_t count, std::vector<double>& room,
                                    const std::function<void(const Distributions&)>& visit) const {
  const std::int64_t per_row = impl_->layout.shape().classes * std::max<std::int64_t>(impl_->layout.shape().passes, 1);
  impl_->read_slabs(Dataset::probabilities, first, count, static_cast<std::size_t>(per_row) * sizeof(float),
                    [&](const Slab& slab) {
                      const auto values = static_cast<std::size_t>(slab.count * per_row);
                      Distributions rows{first + slab.offset, slab.count};
                      if (slab.column.alternative || slab.column.kind == Kind::f64) {
                        if (room.size() < values) room.resize(values);
                        impl_->read_floats(slab, room.data());
                        if (slab.column.alternative)
                          impl_->check_logits(slab, room.data());
                        else
                          impl_->check_distributions(slab, room.data());
                        rows.wide = room.data();
                      } else {
                        if (room.size() < (values + 1) / 2) room.resize((values + 1) / 2);
                        auto* p = reinterpret_cast<float*>(room.data());
                        impl_->read_floats(slab, p);
                        impl_->check_distributions(slab, p);
                        rows.narrow = p;
                      }
                      visit(rows);
                    });
}

void PoolFiles::read_probabilities(std::int64_t first, std::int64_t count, std::span<double> out) const {
  const std::int64_t per_row = impl_->layout.shape().classes * std::max<std::int64_t>(impl_->layout.shape().passes, 1);
  require(static_cast<std::int64_t>(out.size()) == count * per_row, "room for the probabilities asked for");
  std::vector<double> room;
  visit_probabilities(first, count, room, [&](const Distributions& rows) {
    rows.copy(per_row, out.data() + (rows.first - first) * per_row);
  });
}

void PoolFiles::visit_probability_rows(std::span<const std::int64_t> rows, std::vector<double>& room,
                                       const std::function<void(std::size_t, const Distributions&)>& visit) const {
  const std::int64_t per_row = impl_->layout.shape().classes * std::max<std::int64_t>(impl_->layout.shape().passes, 1);
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
  impl_->read_slabs(dataset, first, count, sizeof(std::int64_t), [&](const Slab& slab) {
    std::int64_t* rows = values.data() + slab.offset;
    const bool is_unsigned = slab.column.kind == Kind::unsigned_64;
    impl_->stored.read(slab, rows);
    if (!is_unsigned) return;
    const std::int64_t at = std::find_if(rows, rows + slab.count, [](std::int64_t x) { return x < 0; }) - rows;
    if (at < slab.count)
      impl_->fail_row(
          slab, at,
          fmt::format(": expected an integer that fits int64, found {}", static_cast<std::uint64_t>(rows[at])));
  });
  return values;
}

std::vector<std::string> PoolFiles::read_text_ids(std::int64_t first, std::int64_t count) const {
  std::vector<std::string> texts;
  texts.reserve(static_cast<std::size_t>(count));
  constexpr std::size_t typical_bytes = 64;
  impl_->read_slabs(Dataset::ids, first, count, typical_bytes, [&](const Slab& slab) {
    std::vector<std::string> rows = impl_->stored.read_texts(slab);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!is_utf8(rows[i])) impl_->fail_row(slab, static_cast<std::int64_t>(i), ": expected UTF-8, found other bytes");
      texts.push_back(std::move(rows[i]));
    }
  });
  return texts;
}

std::vector<double> PoolFiles::read_costs(std::int64_t first, std::int64_t count) const {
  std::vector<double> costs(static_cast<std::size_t>(count));
  impl_->read_slabs(Dataset::costs, first, count, sizeof(double), [&](const Slab& slab) {
    double* rows = costs.data() + slab.offset;
    impl_->read_floats(slab, rows);
    for (std::int64_t i = 0; i < slab.count; ++i)
      if (!(rows[i] > 0) || !std::isfinite(rows[i]))
        impl_->fail_row(slab, i, fmt::format(": expected a finite cost > 0, found {}", rows[i]));
  });
  return costs;
}

// --- the interface ---

PoolFiles::PoolFiles(const Comm& comm, std::vector<std::string> paths, const DatasetNames& names, const Needs& needs) {
  std::vector<FileHeader> headers = read_headers(comm, paths, names);
  impl_ = comm.agree(
      [&] { return std::make_shared<Impl>(PoolLayout(std::move(paths), names, std::move(headers), needs)); });
}

const PoolShape& PoolFiles::shape() const {
  return impl_->layout.shape();
}
const std::vector<std::string>& PoolFiles::paths() const {
  return impl_->layout.paths();
}
std::int64_t PoolFiles::first_row_of(std::size_t file) const {
  return impl_->layout.first_row(file);
}

bool PoolFiles::reads_rows_alone(Dataset dataset) const {
  return impl_->layout.reads_rows_alone(dataset);
}
void PoolFiles::keep_chunks(std::int64_t bytes) const {
  impl_->stored.keep_chunks(bytes);
}

std::string PoolFiles::where(std::int64_t row) const {
  const std::size_t file = impl_->layout.file_of(row);
  return fmt::format("{} row {}", impl_->layout.path(file), row - impl_->layout.first_row(file));
}
std::string PoolFiles::where(std::int64_t row, Dataset dataset) const {
  const std::size_t file = impl_->layout.file_of(row);
  return fmt::format("{}: dataset \"{}\", row {}", impl_->layout.path(file), impl_->layout.name(file, dataset),
                     row - impl_->layout.first_row(file));
}

}  // namespace seine
