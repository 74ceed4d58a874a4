// One value per row. Kernels of rows.cu.
#pragma once

#include "backend/cuda/warp.cuh"

namespace seine {
namespace {

// A warp owns a row. Reads dim * 4 bytes twice (the second time from L1) and writes them; dim fused operations and
// divisions in float64.
__global__ void make_unit_rows(float* x, std::int64_t rows, std::int64_t dim) {
  for (std::int64_t i = warp_of_grid(); i < rows; i += warps_of_grid()) {
    float* row = x + i * dim;
    const double norm2 = squared_norm(row, dim);
    if (!(norm2 > 0)) continue;
    const double norm = sqrt(norm2);
    for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes)
      row[c] = static_cast<float>(static_cast<double>(row[c]) / norm);
  }
}

// A warp owns a row. Reads the row once; dim fused operations in float64.
template <class X>
__global__ void squared_norms_of_rows(const X* x, std::int64_t rows, std::int64_t dim, double* out) {
  for (std::int64_t i = warp_of_grid(); i < rows; i += warps_of_grid()) {
    const double norm2 = squared_norm(x + i * dim, dim);
    if (lane_of_warp() == 0) out[i] = norm2;
  }
}

// Bytes per value: 6.
__global__ void widen_values(const __half* from, std::int64_t count, float* to) {
  for (std::int64_t i = thread_of_grid(); i < count; i += threads_of_grid()) to[i] = __half2float(from[i]);
}

}  // namespace
}  // namespace seine
