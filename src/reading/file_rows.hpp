// The vectors of a pool's rows out of files: what a RowStore reads again.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "reading/spill_file.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"
#include "seine/row_store.hpp"

namespace seine {

// Rows of the format out of the pool's files; unit: divided by their 2-norms. Residuals are those of BADGE.
std::shared_ptr<const RowSource> file_rows(const PoolFiles& files, const RowFormat& format, bool unit);

// Where rows lie in a temporary file: all x, then all a, in the order of their places.
class SpilledRows {
 public:
  // Error 73 where no such file can be had.
  SpilledRows(const RowFormat& format, std::int64_t rows)
      : format_(format), rows_(rows), file_(rows * format.row_bytes()) {}

  void write(std::int64_t place, std::int64_t count, const std::byte* x, const float* a) const;
  void read(std::int64_t place, std::int64_t count, std::byte* x, float* a) const;
  const RowFormat& format() const { return format_; }

 private:
  std::int64_t a_offset() const { return rows_ * format_.x_bytes(); }

  RowFormat format_;
  std::int64_t rows_;
  SpillFile file_;
};

// Rows that were written there, `own` and in their order, as they are; other rows come from `others`.
std::shared_ptr<const RowSource> spilled_rows(std::shared_ptr<const SpilledRows> spilled, const Ownership& own,
                                              std::shared_ptr<const RowSource> others, bool unit);

}  // namespace seine
