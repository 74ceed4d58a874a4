#include "reading/file_rows.hpp"

#include <algorithm>
#include <cstring>
#include <functional>

#include "host_rows.hpp"
#include "reading/raw_file.hpp"
#include "seine/error.hpp"
#include "seine/rules.hpp"

namespace seine {
namespace {

void make_unit_rows(std::byte* x, std::size_t rows, std::int64_t dim) {
  std::vector<double> wide;
  for (std::size_t i = 0; i < rows; ++i)
    make_unit(reinterpret_cast<float*>(x) + static_cast<std::int64_t>(i) * dim, dim, wide);
}

class FileRows final : public RowSource {
 public:
  FileRows(PoolFiles files, const RowFormat& format, bool unit)
      : files_(std::move(files)), format_(format), unit_(unit) {}

  void read(std::span<const std::int64_t> rows, std::span<const std::int32_t> labels, std::byte* x,
            float* a) const override {
    if (format_.dim > 0) files_.read_embedding_rows(rows, x, format_.type);
    if (unit_) make_unit_rows(x, rows.size(), format_.dim);
    if (format_.classes > 0) read_residuals(rows, labels, a);
  }

  std::shared_ptr<const RowSource> unit() const override { return std::make_shared<FileRows>(files_, format_, true); }

 private:
  void read_residuals(std::span<const std::int64_t> rows, std::span<const std::int32_t> labels, float* a) const {
    const std::int64_t passes = std::max<std::int64_t>(files_.shape().passes, 1);
    const std::int64_t width = passes * format_.classes;
    std::vector<double> room, row(static_cast<std::size_t>(width));
    files_.visit_probability_rows(rows, room, [&](std::size_t k, const Distributions& one) {
      one.copy(width, row.data());
      residual(row.data(), passes, format_.classes, labels.empty() ? -1 : labels[k],
               a + static_cast<std::int64_t>(k) * format_.classes);
    });
  }

  PoolFiles files_;
  RowFormat format_;
  bool unit_;
};

// The place of a row in a temporary file; -1: it is not there.
using PlaceOf = std::function<std::int64_t(std::int64_t row)>;

class SpilledSource final : public RowSource {
 public:
  SpilledSource(std::shared_ptr<const SpilledRows> spilled, PlaceOf place_of, std::shared_ptr<const RowSource> others,
                bool unit)
      : spilled_(std::move(spilled)), place_of_(std::move(place_of)), others_(std::move(others)), unit_(unit) {}

  void read(std::span<const std::int64_t> rows, std::span<const std::int32_t> labels, std::byte* x,
            float* a) const override {
    const RowFormat& format = spilled_->format();
    std::vector<std::int64_t> places;
    for (const std::int64_t row : rows) places.push_back(place_of_(row));
    for (std::size_t begin = 0, end; begin < rows.size(); begin = end) {
      const bool is_there = places[begin] >= 0;
      for (end = begin + 1; end < rows.size() && (places[end] >= 0) == is_there;) ++end;
      const auto at = static_cast<std::int64_t>(begin);
      std::byte* const to_x = x + at * format.x_bytes();
      float* const to_a = a + at * format.classes;
      if (is_there)
        read_places(std::span(places).subspan(begin, end - begin), to_x, to_a);
      else
        others_->read(rows.subspan(begin, end - begin), labels.empty() ? labels : labels.subspan(begin, end - begin),
                      to_x, to_a);
    }
    if (unit_) make_unit_rows(x, rows.size(), format.dim);
  }

  std::shared_ptr<const RowSource> unit() const override {
    return std::make_shared<SpilledSource>(spilled_, place_of_, others_, true);
  }

  // Written once more, where rows of other ranks are among them: their files are read from end to end, but only once.
  std::shared_ptr<const RowSource> among(std::span<const std::int64_t> rows,
                                         std::span<const std::int32_t> labels) const override {
    if (std::all_of(rows.begin(), rows.end(), [&](std::int64_t row) { return place_of_(row) >= 0; })) return nullptr;
    const RowFormat& format = spilled_->format();
    const auto copy = std::make_shared<SpilledRows>(format, static_cast<std::int64_t>(rows.size()));
    const auto at_once = static_cast<std::size_t>(std::max<std::int64_t>(kMostBytes / format.row_bytes(), 1));
    std::vector<std::byte> x;
    std::vector<float> a;
    for (std::size_t first = 0; first < rows.size(); first += at_once) {
      const std::size_t count = std::min(at_once, rows.size() - first);
      x.resize(count * static_cast<std::size_t>(format.x_bytes()));
      a.resize(count * static_cast<std::size_t>(format.classes));
      others_->read(rows.subspan(first, count), labels.empty() ? labels : labels.subspan(first, count), x.data(),
                    a.data());
      copy->write(static_cast<std::int64_t>(first), static_cast<std::int64_t>(count), x.data(), a.data());
    }
    auto place_of = [known = std::vector<std::int64_t>(rows.begin(), rows.end())](std::int64_t row) {
      const auto at = std::lower_bound(known.begin(), known.end(), row);
      return at != known.end() && *at == row ? at - known.begin() : -1;
    };
    return std::make_shared<SpilledSource>(copy, std::move(place_of), others_, unit_);
  }

 private:
  static constexpr std::int64_t kMostBytes = 1 << 20;  // of one call of the system

  // Ascending. Rows between which there is little are read together.
  void read_places(std::span<const std::int64_t> places, std::byte* x, float* a) const {
    const RowFormat& format = spilled_->format();
    std::vector<std::byte> some_x;
    std::vector<float> some_a;
    const auto x_bytes = static_cast<std::size_t>(format.x_bytes()), classes = static_cast<std::size_t>(format.classes);
    for (std::size_t begin = 0, end; begin < places.size(); begin = end) {
      for (end = begin + 1; end < places.size(); ++end)
        if ((places[end] - places[end - 1] - 1) * format.row_bytes() > kGapBytes ||
            (places[end] - places[begin] + 1) * format.row_bytes() > kMostBytes)
          break;
      const std::int64_t first = places[begin], count = places[end - 1] - first + 1;
      if (count == static_cast<std::int64_t>(end - begin)) {
        spilled_->read(first, count, x + begin * x_bytes, a + begin * classes);
        continue;
      }
      some_x.resize(static_cast<std::size_t>(count) * x_bytes);
      some_a.resize(static_cast<std::size_t>(count) * classes);
      spilled_->read(first, count, some_x.data(), some_a.data());
      for (std::size_t k = begin; k < end; ++k) {
        const auto from = static_cast<std::size_t>(places[k] - first);
        std::memcpy(x + k * x_bytes, some_x.data() + from * x_bytes, x_bytes);
        if (classes > 0) std::memcpy(a + k * classes, some_a.data() + from * classes, classes * sizeof(float));
      }
    }
  }

  std::shared_ptr<const SpilledRows> spilled_;
  PlaceOf place_of_;
  std::shared_ptr<const RowSource> others_;  // not divided by their norms
  bool unit_;
};

}  // namespace

void SpilledRows::write(std::int64_t place, std::int64_t count, const std::byte* x, const float* a) const {
  const std::int64_t a_bytes = format_.row_bytes() - format_.x_bytes();
  file_.write(place * format_.x_bytes(), static_cast<std::size_t>(count * format_.x_bytes()), x);
  file_.write(a_offset() + place * a_bytes, static_cast<std::size_t>(count * a_bytes), a);
}

void SpilledRows::read(std::int64_t place, std::int64_t count, std::byte* x, float* a) const {
  const std::int64_t a_bytes = format_.row_bytes() - format_.x_bytes();
  file_.read(place * format_.x_bytes(), static_cast<std::size_t>(count * format_.x_bytes()), x);
  file_.read(a_offset() + place * a_bytes, static_cast<std::size_t>(count * a_bytes), a);
}

std::shared_ptr<const RowSource> file_rows(const PoolFiles& files, const RowFormat& format, bool unit) {
  return std::make_shared<FileRows>(files, format, unit);
}

std::shared_ptr<const RowSource> spilled_rows(std::shared_ptr<const SpilledRows> spilled, const Ownership& own,
                                              std::shared_ptr<const RowSource> others, bool unit) {
  auto place_of = [own](std::int64_t row) { return own.owns(row) ? own.local(row) : -1; };
  return std::make_shared<SpilledSource>(std::move(spilled), std::move(place_of), std::move(others), unit);
}

}  // namespace seine
