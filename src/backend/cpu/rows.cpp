// One value per row, and rows as float32.
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/tiles.hpp"
#include "host_rows.hpp"

namespace seine {

void CpuBackend::unit_rows(float* x, std::int64_t rows, std::int64_t dim) {
  for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
    std::vector<double> wide;
    for (std::int64_t i = first; i < last; ++i) make_unit(x + i * dim, dim, wide);
  });
}

void CpuBackend::squared_norms(const Field& x, std::int64_t rows, double* out) {
  for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> scratch;
    std::vector<double> wide;
    const float* values = wide_rows(x.from(first), last - first, scratch);
    for (std::int64_t i = first; i < last; ++i) out[i] = squared_norm(values + (i - first) * x.dim, x.dim, wide);
  });
}

const float* CpuBackend::wide_rows(const Field& x, std::int64_t rows, std::vector<float>& values) {
  if (x.type == Element::f32) return static_cast<const float*>(x.data);
  values.resize(static_cast<std::size_t>(rows * x.dim));
  widen(x.data, rows * x.dim, values.data());
  return values.data();
}

}  // namespace seine
