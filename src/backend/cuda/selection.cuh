// Selection among keys. Kernels of selection.cu, beside those of CUB. A thread owns a row at a time and strides by the
// grid.
#pragma once

#include "backend/cuda/warp.cuh"
#include "seine/order.hpp"

namespace seine {
namespace {

constexpr double kNoKey = kNoCandidate.value;

// Every so many-th key; that of a row which may not be selected is below all others. A thread owns a key. Bytes per
// key: 17, of cache lines of which nothing else is used.
__global__ void sample_keys(const double* key, const std::uint8_t* selectable, std::int64_t count, std::int64_t stride,
                            double* out) {
  for (std::int64_t i = thread_of_grid(); i < count; i += threads_of_grid())
    out[i] = selectable[i * stride] ? key[i * stride] : kNoKey;
}

// A thread owns every so many-th row. Bytes per row: 9.
__global__ void count_at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor,
                               unsigned long long* count) {
  std::int64_t mine = 0;
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid()) mine += selectable[i] && key[i] >= floor;
  mine = sum_of_warp(mine);
  if (lane_of_warp() == 0 && mine > 0) atomicAdd(count, static_cast<unsigned long long>(mine));
}

}  // namespace
}  // namespace seine
