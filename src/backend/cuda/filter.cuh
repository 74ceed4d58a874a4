// Which rows and vectors of a warp meet: all of them, or those of which a matrix product does not say that nothing
// comes of it (filter_bound.hpp). A kernel asks for the next few until there are no more; a lane is told the number of
// its own row or vector in the tile, the last one where there are fewer than a tile has.
//
// A look at a product takes its 4 bytes and about one operation in float64, where a pair takes 2 or 3 per component.
#pragma once

#include "backend/cuda/filter_bound.hpp"
#include "backend/cuda/warp.cuh"
#include "seine/backend.hpp"

namespace seine {
namespace {

constexpr int kLookedAt = kLanes;  // at a time, so that a lane asks for several products at once

// Bit p: a lane of vector p says so.
__device__ inline std::uint32_t said_of_vectors(bool mine) {
  std::uint32_t lanes = __ballot_sync(kWholeWarp, mine);
  for (int half = kLanes / 2; half >= kTilePicks; half /= 2) lanes |= lanes >> half;
  return lanes & ((1u << kTilePicks) - 1);
}

// Bit r: a lane of row r says so.
__device__ inline std::uint32_t said_of_rows(bool mine) {
  const std::uint32_t lanes = __ballot_sync(kWholeWarp, mine), lanes_of_row = (1u << kTilePicks) - 1;
  std::uint32_t rows = 0;
#pragma unroll
  for (int r = 0; r < kWarpRows; ++r) rows |= ((lanes >> (r * kTilePicks) & lanes_of_row) != 0 ? 1u : 0u) << r;
  return rows;
}

// Picks from `first` on, in order.
struct EveryPick {
  static constexpr bool kAlsoOuter = true;  // rows may be outer products
  std::int64_t first = 0;

  // How many of the picks [at, count) the rows meet next; `at` moves behind them, and behind those that none of the
  // rows will meet.
  template <class Matters>
  __device__ int choose(std::int64_t& at, std::int64_t count, std::int64_t, const Matters&, std::int64_t& pick) {
    const int many = static_cast<int>(count - at < kTilePicks ? count - at : kTilePicks);
    pick = at + (lane_of_warp() % kTilePicks < many ? lane_of_warp() % kTilePicks : many - 1);
    at += many;
    return many;
  }
  // Of those that were chosen at `at`: number p, and their vectors.
  static __device__ std::int64_t number(std::int64_t at, std::int64_t, int p) { return at + p; }
  template <class Y>
  static __device__ TileVectors<Y> vectors(const Y* y, std::int64_t count, std::int64_t at, std::int64_t,
                                           std::int64_t dim) {
    return neighbours<kTilePicks>(y + at * dim, count - at, dim);
  }
};

// The same without picks that are too far from all rows of the tile.
struct NearPicks {
  static constexpr bool kAlsoOuter = false;
  std::int64_t first, width;  // whose products are known
  const float* products;      // [rows of the launch, width]
  const double *row_norms2, *pick_norms2;
  DistanceBound bound;
  std::uint32_t maybe = 0;  // of the picks that were looked at last: which of them the rows have yet to meet

  // `matters(pick, distance2)`: whether the row of this lane would notice a pick that is no nearer than that.
  template <class Matters>
  __device__ int choose(std::int64_t& at, std::int64_t count, std::int64_t row, const Matters& matters,
                        std::int64_t& pick) {
    int many = 0;
    while (at < count && many < kTilePicks) {
      const std::int64_t begin = at - (at - first) % kLookedAt;
      if (maybe == 0) maybe = look(begin, count, row, matters);
      for (; maybe != 0 && many < kTilePicks; maybe &= maybe - 1, ++many)
        if (lane_of_warp() % kTilePicks >= many) pick = begin + __ffs(static_cast<int>(maybe)) - 1;
      at = begin + (maybe != 0 ? __ffs(static_cast<int>(maybe)) - 1 : kLookedAt);
    }
    at = at < count ? at : count;
    return many;
  }
  static __device__ std::int64_t number(std::int64_t, std::int64_t pick, int p) {
    return __shfl_sync(kWholeWarp, pick, p, kTilePicks);
  }
  template <class Y>
  static __device__ TileVectors<Y> vectors(const Y* y, std::int64_t, std::int64_t, std::int64_t pick,
                                           std::int64_t dim) {
    return vectors_of_lanes(y, pick, dim);
  }

 private:
  // Which of the picks from `begin` on. None that all rows have seen matters to one.
  template <class Matters>
  __device__ std::uint32_t look(std::int64_t begin, std::int64_t count, std::int64_t row,
                                const Matters& matters) const {
    constexpr int kLooks = kLookedAt / kTilePicks;
    const int left = static_cast<int>(count - begin < kLookedAt ? count - begin : kLookedAt);
    const int mine = lane_of_warp() % kTilePicks;
    const float* of_row = products + row * width + (begin - first);
    float product[kLooks];
#pragma unroll
    for (int k = 0; k < kLooks; ++k) product[k] = mine + k * kTilePicks < left ? of_row[mine + k * kTilePicks] : 0;
    std::uint32_t said = 0;
#pragma unroll
    for (int k = 0; k < kLooks; ++k) {
      const std::int64_t pick = begin + mine + k * kTilePicks;
      const bool may =
          mine + k * kTilePicks < left && matters(pick, bound(row_norms2[row], pick_norms2[pick - first], product[k]));
      said |= said_of_vectors(may) << (k * kTilePicks);
    }
    return said;
  }
};

// Ground rows for a group of candidates, in strides.
struct EveryRow {
  static constexpr std::int64_t kStep = kWarpRows;

  // How many rows of the band the candidates meet next; `first` moves on by strides.
  __device__ int choose(std::int64_t& first, std::int64_t stride, const Band& band, std::int64_t, std::int64_t& row) {
    const int many = static_cast<int>(band.count - first < kWarpRows ? band.count - first : kWarpRows);
    row = first + (lane_of_warp() / kTilePicks < many ? lane_of_warp() / kTilePicks : many - 1);
    first += stride;
    return many;
  }
  // Of those that were chosen at `first`.
  static __device__ TileRows<float> rows(const float* ground, const Band& band, std::int64_t first, std::int64_t,
                                         std::int64_t dim) {
    return neighbours(ground + first * dim, band.count - first, dim);
  }
  __device__ void count_met() const {}
};

// The same without rows to which none of the candidates adds.
struct NearRows {
  static constexpr std::int64_t kStep = kLookedAt;

  std::int64_t width;       // candidates
  const float* products;    // [rows of the band, width]
  float slack;              // see similarity_slack
  unsigned long long* met;  // counts rows that met a group
  std::uint32_t maybe = 0;  // of the rows that were looked at last, which the candidates have yet to meet
  std::int64_t chosen = 0;

  __device__ int choose(std::int64_t& first, std::int64_t stride, const Band& band, std::int64_t candidate,
                        std::int64_t& row) {
    int many = 0;
    while (first < band.count && many < kWarpRows) {
      if (maybe == 0) look(first, band, candidate);
      for (; maybe != 0 && many < kWarpRows; maybe &= maybe - 1, ++many)
        if (lane_of_warp() / kTilePicks >= many) row = first + __ffs(static_cast<int>(maybe)) - 1;
      if (maybe == 0) first += stride;
    }
    chosen += many;
    return many;
  }
  static __device__ TileRows<float> rows(const float* ground, const Band&, std::int64_t, std::int64_t row,
                                         std::int64_t dim) {
    return rows_of_lanes(ground, row, dim);
  }
  __device__ void count_met() const {
    if (lane_of_warp() == 0 && chosen > 0) atomicAdd(met, static_cast<unsigned long long>(chosen));
  }

 private:
  __device__ void look(std::int64_t first, const Band& band, std::int64_t candidate) {
    const std::int64_t mine = first + lane_of_warp() / kTilePicks;
    float most[kLookedAt / kWarpRows];
#pragma unroll
    for (int k = 0; k < kLookedAt / kWarpRows; ++k) {
      const std::int64_t row = mine + k * kWarpRows;
      most[k] = row < band.count && candidate < width ? products[row * width + candidate] + slack : 0;
    }
#pragma unroll
    for (int k = 0; k < kLookedAt / kWarpRows; ++k) {
      const std::int64_t row = mine + k * kWarpRows;
      const bool may = row < band.count && candidate < width && !(most[k] <= band.above[row]);
      maybe |= said_of_rows(may) << (k * kWarpRows);
    }
  }
};

}  // namespace
}  // namespace seine
