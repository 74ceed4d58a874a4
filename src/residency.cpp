#include "seine/residency.hpp"

#include <fstream>
#include <unistd.h>

namespace seine {

RowFormat row_format(const PoolShape& shape, const Wanted& wanted) {
  const bool half = wanted.half_rows && shape.half_embeddings && !wanted.unit_rows;
  return {half ? Element::f16 : Element::f32, wanted.embeddings ? shape.dim : 0, wanted.residuals ? shape.classes : 0};
}

MemoryNeed memory_need(const PoolShape& shape, std::int64_t own_rows, const Wanted& wanted) {
  const RowFormat format = row_format(shape, wanted);
  const std::int64_t row_bytes = format.row_bytes() + (format.classes > 0 ? 16 : 0);
  // Global number twice, role, mask, score, weight and what covered rows leave; and one column on its way.
  constexpr std::int64_t kColumns = 48;
  MemoryNeed need;
  need.state = own_rows * (kColumns + wanted.row_state);
  need.vectors = static_cast<std::int64_t>(static_cast<double>(own_rows * row_bytes) * wanted.copies);
  need.working = (std::int64_t{4} << 20) + (wanted.batch + 512) * (row_bytes + 64);
  return need;
}

std::int64_t resident_bytes() {
  std::int64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages >> pages;
  return pages * sysconf(_SC_PAGESIZE);
}

}  // namespace seine
