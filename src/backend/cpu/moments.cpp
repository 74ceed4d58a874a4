// Sums over rows, in fixed point.
#include <algorithm>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/row_kernel.hpp"
#include "backend/cpu/tiles.hpp"
#include "seine/stop.hpp"

namespace seine {

void CpuBackend::weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                              std::int64_t* sums) {
  SumsOfThreads all(workers_.threads(), x.dim);
  share_tiles(workers_, rows, kRowsOfThread, [&](std::int64_t first, std::int64_t last, int thread) {
    double* mine = all.of(thread);
    for (std::int64_t i = first; i < last; ++i) {
      const float* row = static_cast<const float*>(x.data) + i * x.dim;
      for (std::int64_t c = 0; c < x.dim; ++c) mine[c] += fixed.rounded(factor[i] * static_cast<double>(row[c]));
    }
  });
  all.add_to(sums);
}

void CpuBackend::products(const Field& x, std::int64_t rows, const double* vector, double* out) {
  for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
    const RowPointers tile = pointers(static_cast<const float*>(x.data) + first * x.dim, last - first, x.dim);
    row_kernels().wide_dots(tile.data(), last - first, vector, 1, x.dim, out + first);
  });
}

void CpuBackend::gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) {
  const auto* values = static_cast<const float*>(x.data);
  const std::int64_t dim = x.dim;
  // A thread owns rows of the matrix, so no two threads add to the same sum.
  workers_.share(dim, [&](std::int64_t c, int) {
    if (stop_signal() != 0) return;
    std::vector<double> products(static_cast<std::size_t>(c) + 1);
    for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
      std::fill(products.begin(), products.end(), 0.0);
      for (std::int64_t i = groups[g]; i < groups[g + 1]; ++i) {
        const float* row = values + i * dim;
        const double xc = row[c];
        for (std::int64_t d = 0; d <= c; ++d)
          products[static_cast<std::size_t>(d)] =
              fma(xc, static_cast<double>(row[d]), products[static_cast<std::size_t>(d)]);
      }
      for (std::int64_t d = 0; d <= c; ++d) sums[c * dim + d] += fixed.of(products[static_cast<std::size_t>(d)]);
    }
  });
}

}  // namespace seine
