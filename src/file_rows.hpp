// The vectors of a pool's rows out of its files: what a RowStore reads again.
#pragma once

#include <memory>

#include "seine/pool_files.hpp"
#include "seine/row_store.hpp"

namespace seine {

// Rows of the format out of these files; unit: divided by their 2-norms. Residuals are those of BADGE.
std::shared_ptr<const RowSource> file_rows(const PoolFiles& files, const RowFormat& format, bool unit);

}  // namespace seine
