// Sums over rows, in fixed point. Kernels of moments.cu.
#pragma once

#include "backend/cuda/warp.cuh"
#include "seine/order.hpp"

namespace seine {
namespace {

// A warp owns a row. Reads the row once; dim fused operations in float64.
__global__ void products_of_rows(const float* x, std::int64_t rows, std::int64_t dim, const double* vector,
                                 double* out) {
  for (std::int64_t i = warp_of_grid(); i < rows; i += warps_of_grid()) {
    double sum[1] = {};
    for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes)
      sum[0] = fused(static_cast<double>(x[i * dim + c]), vector[c], sum[0]);
    const double product = fold(sum);
    if (lane_of_warp() == 0) out[i] = product;
  }
}

// A thread owns a component of every gridDim.y-th row. Bytes per row: dim * 4 once, 8 of its factor from the caches;
// flops: 3 per component, in float64.
__global__ void add_weighted_sum(const float* x, std::int64_t rows, std::int64_t dim, const double* factor,
                                 FixedPoint fixed, unsigned long long* sums) {
  const std::int64_t c = thread_of_grid();
  if (c >= dim) return;
  std::int64_t sum = 0;
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y)
    sum += fixed.of(factor[i] * static_cast<double>(x[i * dim + c]));
  atomicAdd(&sums[c], static_cast<unsigned long long>(sum));
}

// A block owns kGramSide x kGramSide pairs of components and every gridDim.z-th group; a thread one pair, whose
// products it sums in the order of the rows. Bytes per row and block: 2 * kGramSide * 4; flops per row and pair: 2, in
// float64.
__global__ void __launch_bounds__(kGramSide* kGramSide)
    add_gram(const float* x, std::int64_t dim, const std::int64_t* groups, std::int64_t count, FixedPoint fixed,
             unsigned long long* sums) {
  if (blockIdx.x > blockIdx.y) return;  // the other triangle
  __shared__ float left[kGramSide][kGramSide], right[kGramSide][kGramSide];
  const int i = static_cast<int>(threadIdx.y), j = static_cast<int>(threadIdx.x);
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.y) * kGramSide, d = blockIdx.x * std::int64_t{kGramSide};
  std::int64_t sum = 0;
  for (std::int64_t g = blockIdx.z; g < count; g += gridDim.z) {
    double product = 0;
    for (std::int64_t first = groups[g]; first < groups[g + 1]; first += kGramSide) {
      const std::int64_t many = groups[g + 1] - first < kGramSide ? groups[g + 1] - first : kGramSide;
      const float* row = x + (first + i) * dim;
      left[i][j] = i < many && c + j < dim ? row[c + j] : 0;
      right[i][j] = i < many && d + j < dim ? row[d + j] : 0;
      __syncthreads();
      for (int r = 0; r < many; ++r)
        product = fused(static_cast<double>(left[r][i]), static_cast<double>(right[r][j]), product);
      __syncthreads();
    }
    sum += fixed.of(product);
  }
  if (c + i < dim && d + j <= c + i) atomicAdd(&sums[(c + i) * dim + d + j], static_cast<unsigned long long>(sum));
}

}  // namespace
}  // namespace seine
