// Which rows and vectors of a warp meet: all of them, or those of which a matrix product does not say that nothing
// comes of it (filter_bound.hpp). A kernel asks for the next few until there are no more; a lane is told the number of
// its own row or vector in the tile, the last one where there are fewer than a tile has.
//
// A look at a product takes its 4 bytes and, for a distance, some five operations in float64, for a similarity two in
// float32, where a pair that meets takes 2 or 3 per component.
#pragma once

#include <concepts>

#include "backend/cuda/filter_bound.hpp"
#include "backend/cuda/warp.cuh"
#include "seine/backend.hpp"

namespace seine {
namespace {

// Picks, in order, for the rows of a warp; those before `first` were met earlier.
template <class Chosen>
concept ChosenPicks = requires(Chosen chosen, std::int64_t& at, std::int64_t& pick, std::int64_t number,
                               bool (&matters)(std::int64_t pick, double distance2), const float* y) {
  // Whether rows may be outer products.
  { Chosen::kAlsoOuter } -> std::convertible_to<bool>;
  { chosen.first } -> std::convertible_to<std::int64_t>;
  // choose(at, count, place, matters, pick): how many of the picks [at, count) the rows meet next, and of this lane its
  // own; `at` moves behind them, and behind those that none of the rows will meet. `place`: the number of the lane's
  // row in the launch. matters(pick, distance2): whether that row would notice a pick that is no nearer.
  { chosen.choose(at, number, number, matters, pick) } -> std::same_as<int>;
  // Of those that were chosen at `at`, of which a lane has its own `pick`: number p, and the vectors of all.
  { Chosen::number(number, pick, 0) } -> std::same_as<std::int64_t>;
  { Chosen::vectors(y, number, number, pick, number) } -> std::same_as<TileVectors<float>>;
};

// Rows of a band for a group of candidates.
template <class Chosen>
concept ChosenRows = requires(Chosen chosen, std::int64_t& first, std::int64_t& row, std::int64_t number,
                              const Band& band, const float* ground) {
  // Neighbours that it decides on together; a stride passes over a multiple of them.
  { Chosen::kStep } -> std::convertible_to<std::int64_t>;
  // choose(first, stride, band, candidate, row): how many rows the candidates meet next, and of this lane its own;
  // `first` moves on by strides. `candidate`: that of this lane.
  { chosen.choose(first, number, band, number, row) } -> std::same_as<int>;
  // Of those that were chosen at `first`, of which a lane has its own `row`.
  { Chosen::rows(ground, band, number, row, number) } -> std::same_as<TileRows<float>>;
};

struct EveryPick {
  static constexpr bool kAlsoOuter = true;
  std::int64_t first = 0;

  template <class Matters>
  __device__ int choose(std::int64_t& at, std::int64_t count, std::int64_t, const Matters&, std::int64_t& pick) {
    const int many = static_cast<int>(count - at < kTilePicks ? count - at : kTilePicks);
    pick = at + (lane_of_warp() % kTilePicks < many ? lane_of_warp() % kTilePicks : many - 1);
    at += many;
    return many;
  }
  static __device__ std::int64_t number(std::int64_t at, std::int64_t, int p) { return at + p; }
  template <class Y>
  static __device__ TileVectors<Y> vectors(const Y* y, std::int64_t count, std::int64_t at, std::int64_t,
                                           std::int64_t dim) {
    return neighbours<kTilePicks>(y + at * dim, count - at, dim);
  }
};

struct EveryRow {
  static constexpr std::int64_t kStep = kWarpRows;

  __device__ int choose(std::int64_t& first, std::int64_t stride, const Band& band, std::int64_t, std::int64_t& row) {
    const int many = static_cast<int>(band.count - first < kWarpRows ? band.count - first : kWarpRows);
    row = first + (lane_of_warp() / kTilePicks < many ? lane_of_warp() / kTilePicks : many - 1);
    first += stride;
    return many;
  }
  static __device__ TileRows<float> rows(const float* ground, const Band& band, std::int64_t first, std::int64_t,
                                         std::int64_t dim) {
    return neighbours(ground + first * dim, band.count - first, dim);
  }
};

// Neighbours are looked at kLanes at a time, so that a lane asks for several products at once; those that may matter to
// one of the others of the tile wait here, until they leave in order, `kTile` at a time.
template <int kTile>
class Waiting {
 public:
  // How many leave of [begin, end), and the number of this lane's own, that of place `own` in the tile; `begin` moves
  // on by strides where none is left. product(n), may_matter(n, product): of neighbour n and what this lane has of the
  // others.
  template <class ProductOf, class MayMatter>
  __device__ int leave(std::int64_t& begin, std::int64_t stride, std::int64_t end, int own, std::int64_t& number,
                       const ProductOf& product, const MayMatter& may_matter) {
    int many = 0;
    while (begin < end && many < kTile) {
      if (left_ == 0) left_ = look(begin, end, own, product, may_matter);
      for (; left_ != 0 && many < kTile; left_ &= left_ - 1, ++many)
        if (own >= many) number = next(begin);
      if (left_ == 0) begin += stride;
    }
    return many;
  }
  // The first from `begin` on that has not left.
  __device__ std::int64_t next(std::int64_t begin) const {
    return left_ == 0 ? begin : begin + __ffs(static_cast<int>(left_)) - 1;
  }

 private:
  template <class ProductOf, class MayMatter>
  static __device__ std::uint32_t look(std::int64_t begin, std::int64_t end, int own, const ProductOf& product,
                                       const MayMatter& may_matter) {
    constexpr int kLooks = kLanes / kTile;
    const int last = static_cast<int>(end - begin < kLanes ? end - begin : kLanes) - 1;
    int at[kLooks];  // the last one again where there are fewer: no branch keeps a load from being asked for
    float products[kLooks];
#pragma unroll
    for (int k = 0; k < kLooks; ++k) {
      at[k] = own + k * kTile < last ? own + k * kTile : last;
      products[k] = product(begin + at[k]);
    }
    std::uint32_t mine = 0;
#pragma unroll
    for (int k = 0; k < kLooks; ++k) mine |= (may_matter(begin + at[k], products[k]) ? 1u : 0u) << at[k];
    return union_of_warp(mine);
  }

  std::uint32_t left_ = 0;  // bit i: neighbour begin + i
};

// Without picks that are too far from all rows of the tile.
struct NearPicks {
  static constexpr bool kAlsoOuter = false;
  std::int64_t first, width;  // whose products are known
  const float* products;      // [rows of the launch, width]
  const double *row_norms2, *pick_norms2;
  DistanceBound bound;
  Waiting<kTilePicks> waiting = {};

  template <class Matters>
  __device__ int choose(std::int64_t& at, std::int64_t count, std::int64_t place, const Matters& matters,
                        std::int64_t& pick) {
    std::int64_t begin = at - (at - first) % kLanes;
    const int many = waiting.leave(
        begin, kLanes, count, lane_of_warp() % kTilePicks, pick,
        [&](std::int64_t p) { return products[place * width + p - first]; },
        [&](std::int64_t p, float product) {
          return matters(p, bound(row_norms2[place], pick_norms2[p - first], product));
        });
    at = waiting.next(begin) < count ? waiting.next(begin) : count;
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
};

// Without rows to which none of the candidates adds.
struct NearRows {
  static constexpr std::int64_t kStep = kLanes;
  std::int64_t width;     // candidates
  const float* products;  // [rows of the band, width]
  float slack;            // see similarity_slack
  Waiting<kWarpRows> waiting = {};

  __device__ int choose(std::int64_t& first, std::int64_t stride, const Band& band, std::int64_t candidate,
                        std::int64_t& row) {
    const float* of_candidate = products + (candidate < width ? candidate : width - 1);
    return waiting.leave(
        first, stride, band.count, lane_of_warp() / kTilePicks, row,
        [&](std::int64_t r) { return of_candidate[r * width]; },
        [&](std::int64_t r, float product) { return !(product + slack <= band.above[r]); });
  }
  static __device__ TileRows<float> rows(const float* ground, const Band&, std::int64_t, std::int64_t row,
                                         std::int64_t dim) {
    return rows_of_lanes(ground, row, dim);
  }
};

}  // namespace
}  // namespace seine
