#include "file_rows.hpp"

#include <algorithm>

#include "backend/row_kernel.hpp"
#include "seine/rules.hpp"

namespace seine {
namespace {

class FileRows final : public RowSource {
 public:
  FileRows(PoolFiles files, const RowFormat& format, bool unit)
      : files_(std::move(files)), format_(format), unit_(unit) {}

  void read(std::span<const std::int64_t> rows, std::span<const std::int32_t> labels, std::byte* x,
            float* a) const override {
    if (format_.dim > 0) files_.read_embedding_rows(rows, x, format_.type);
    if (unit_) {
      std::vector<double> wide;
      for (std::size_t i = 0; i < rows.size(); ++i)
        make_unit(reinterpret_cast<float*>(x) + static_cast<std::int64_t>(i) * format_.dim, format_.dim, wide);
    }
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

}  // namespace

std::shared_ptr<const RowSource> file_rows(const PoolFiles& files, const RowFormat& format, bool unit) {
  return std::make_shared<FileRows>(files, format, unit);
}

}  // namespace seine
