// Inside a warp, which is the canonical row kernel: lane j of 32 sums the components j, j + 32, ..., and `fold` adds
// the lanes as row_math.hpp does, so results have the bits of the CPU.
#pragma once

#include <cuda_fp16.h>

#include "backend/cuda/geometry.hpp"
#include "seine/row_math.hpp"

namespace seine {

inline constexpr unsigned kWholeWarp = 0xffffffffu;

__device__ inline int lane_of_warp() {
  return static_cast<int>(threadIdx.x) % kLanes;
}
__device__ inline std::int64_t warp_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
}
__device__ inline std::int64_t warps_of_grid() {
  return static_cast<std::int64_t>(gridDim.x) * kWarps;
}
__device__ inline std::int64_t thread_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t threads_of_grid() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

template <class T>
__device__ inline T widen(float value) {
  return static_cast<T>(value);
}
template <class T>
__device__ inline T widen(double value) {
  return value;
}
template <class T>
__device__ inline T widen(__half value) {
  return static_cast<T>(__half2float(value));
}

// fold_lanes of row_math.hpp for N (1, 2, .. 32) sums at once, spread over the warp: lane j gets sum j / (32 / N).
// While more than one sum is left, the two halves of the lanes exchange half of the sums; each lane adds what the tree
// adds.
template <int kHalf = kLanes / 2, int N, class T>
__device__ inline T fold(const T (&sum)[N]) {
  if constexpr (N > 1) {
    const bool upper = lane_of_warp() & kHalf;
    T kept[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const T mine = upper ? sum[i + N / 2] : sum[i];
      kept[i] = mine + __shfl_xor_sync(kWholeWarp, upper ? sum[i] : sum[i + N / 2], kHalf);
    }
    return fold<kHalf / 2>(kept);
  } else {
    T folded = sum[0];
#pragma unroll
    for (int half = kHalf; half > 0; half /= 2) folded += __shfl_xor_sync(kWholeWarp, folded, half);
    return folded;
  }
}

// What one component adds to a lane: the terms of canonical_dot and canonical_distance2.
struct Product {
  template <class T>
  static __device__ T add(T x, T y, T sum) {
    return fused(x, y, sum);
  }
};
struct SquaredDifference {
  template <class T>
  static __device__ T add(T x, T y, T sum) {
    const T difference = x - y;
    return fused(difference, difference, sum);
  }
};

// A warp meets kWarpRows rows with kTilePicks vectors at a time, so that a loaded value is used several times; lane j
// gets the result of row j / kTilePicks and vector j % kTilePicks. Rows come from memory, vectors mostly from L1.
template <class X, int kMany = kWarpRows>
struct TileRows {
  const X* row[kMany];
};
template <class Y>
using TileVectors = TileRows<Y, kTilePicks>;

// Neighbours; where there are fewer than a tile has, the last one is repeated.
template <int kMany = kWarpRows, class X>
__device__ inline TileRows<X, kMany> neighbours(const X* first, std::int64_t rows, std::int64_t dim) {
  TileRows<X, kMany> tile;
#pragma unroll
  for (int r = 0; r < kMany; ++r) tile.row[r] = first + (r < rows ? r : rows - 1) * dim;
  return tile;
}

// The rows whose numbers the lanes have, those of a row the same.
template <class X>
__device__ inline TileRows<X> rows_of_lanes(const X* x, std::int64_t number, std::int64_t dim) {
  TileRows<X> tile;
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) tile.row[r] = x + __shfl_sync(kWholeWarp, number, r * kTilePicks) * dim;
  return tile;
}

// The same for vectors, whose numbers the first lanes have.
template <class Y>
__device__ inline TileVectors<Y> vectors_of_lanes(const Y* y, std::int64_t number, std::int64_t dim) {
  TileVectors<Y> tile;
#pragma unroll
  for (int p = 0; p < kTilePicks; ++p) tile.row[p] = y + __shfl_sync(kWholeWarp, number, p) * dim;
  return tile;
}

template <class Term, class X, class Y>
__device__ inline Y tile(const TileRows<X>& x, const TileVectors<Y>& y, std::int64_t dim) {
  Y sum[kLanes] = {};
  for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes) {
    Y value[kWarpRows];
#pragma unroll
    for (int r = 0; r < kWarpRows; ++r) value[r] = widen<Y>(x.row[r][c]);
#pragma unroll
    for (int p = 0; p < kTilePicks; ++p) {
      const Y other = y.row[p][c];
#pragma unroll
      for (int r = 0; r < kWarpRows; ++r) sum[r * kTilePicks + p] = Term::add(value[r], other, sum[r * kTilePicks + p]);
    }
  }
  return fold(sum);
}

// The same for every lane: the sum over the lanes. Of integers, whose sum has no order.
__device__ inline std::int64_t sum_of_warp(std::int64_t mine) {
  for (int other = kLanes / 2; other > 0; other /= 2) mine += __shfl_xor_sync(kWholeWarp, mine, other);
  return mine;
}

__device__ inline std::int64_t largest_of_warp(std::int64_t mine) {
  for (int other = kLanes / 2; other > 0; other /= 2) {
    const std::int64_t theirs = __shfl_xor_sync(kWholeWarp, mine, other);
    mine = theirs > mine ? theirs : mine;
  }
  return mine;
}

// Bits that a lane has.
__device__ inline std::uint32_t union_of_warp(std::uint32_t mine) {
  for (int other = kLanes / 2; other > 0; other /= 2) mine |= __shfl_xor_sync(kWholeWarp, mine, other);
  return mine;
}

// Canonical inner product of a row with itself, in float64; every lane gets it.
template <class X>
__device__ inline double squared_norm(const X* x, std::int64_t dim) {
  double sum[1] = {};
  for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes) {
    const double value = widen<double>(x[c]);
    sum[0] = fused(value, value, sum[0]);
  }
  return fold(sum);
}

}  // namespace seine
