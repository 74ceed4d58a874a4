// Facility location: similarities of ground rows and candidates. Kernels of coverage.cu.
#pragma once

#include "backend/cuda/filter.cuh"
#include "seine/backend.hpp"

namespace seine {
namespace {

// A block owns kGainGroups * kTilePicks candidates and, of the ground rows, a stripe; its warps are kGainGroups groups
// of candidates by kGainStripes tiles of rows, so that a row serves several groups from L1. Integer atomics, once per
// warp and candidate, and once per warp for the pairs that met. Bytes per ground row that meets a block: dim * 4 and 4
// to 16 of its levels and weight; flops per row and candidate that meet: 2 dim, and 9 in float64. Where there are
// lists, a thread also writes the rows that add, each to the next free place.
template <ChosenRows Chosen>
__global__ void __launch_bounds__(kThreads)
    add_gains(const float* ground, Band band, const double* weight, FixedPoint fixed, const float* candidates,
              std::int64_t count, std::int64_t dim, Chosen chosen, unsigned long long* gains, Near* const* lists,
              std::int64_t room, unsigned long long* near, unsigned long long* met) {
  const int lane = lane_of_warp(), warp = static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t group = (static_cast<std::int64_t>(blockIdx.x) * kGainGroups + warp % kGainGroups) * kTilePicks;
  if (group >= count) return;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.y) * kGainStripes * Chosen::kStep;
  std::int64_t first = (static_cast<std::int64_t>(blockIdx.y) * kGainStripes + warp / kGainGroups) * Chosen::kStep;
  const std::int64_t candidate = group + lane % kTilePicks;
  std::int64_t sum = 0, rows_met = 0;
  while (first < band.count) {
    const std::int64_t here = first;
    std::int64_t row = first;
    const int many = chosen.choose(first, stride, band, candidate, row);
    if (many == 0) break;
    rows_met += many;
    const float dot = tile<Product>(Chosen::rows(ground, band, here, row, dim),
                                    neighbours<kTilePicks>(candidates + group * dim, count - group, dim), dim);
    if (lane / kTilePicks >= many || candidate >= count) continue;
    const float similarity = clipped_cosine(dot);
    sum += static_cast<std::int64_t>(
        gain_between(band.above[row], band.below ? band.below[row] : 1, similarity, weight ? weight[row] : 1, fixed));
    if (!lists || !(similarity > band.above[row])) continue;
    const auto at = static_cast<std::int64_t>(atomicAdd(&near[candidate], 1ULL));
    if (at < room) lists[candidate][at] = {static_cast<std::int32_t>(band.first + row), similarity};
  }
  if (candidate < count) atomicAdd(&gains[candidate], static_cast<unsigned long long>(sum));
  const std::int64_t candidates_of_group = count - group < kTilePicks ? count - group : kTilePicks;
  if (lane == 0) atomicAdd(met, static_cast<unsigned long long>(rows_met * candidates_of_group));
}

// A warp owns a list. Bytes per entry: 8, and 4 of coverage from anywhere (12 with weights); flops: 9 in float64.
__global__ void add_listed_gains(Near* const* lists, const std::int64_t* lengths, std::int64_t count, const float* best,
                                 const double* weight, FixedPoint fixed, unsigned long long* gains) {
  for (std::int64_t j = warp_of_grid(); j < count; j += warps_of_grid()) {
    std::int64_t sum = 0;
    for (std::int64_t k = lane_of_warp(); k < lengths[j]; k += kLanes) {
      const Near near = lists[j][k];
      sum += static_cast<std::int64_t>(
          gain_between(best[near.row], 1, near.similarity, weight ? weight[near.row] : 1, fixed));
    }
    sum = sum_of_warp(sum);
    if (lane_of_warp() == 0) gains[j] = static_cast<unsigned long long>(sum);
  }
}

// A thread owns an entry; a row is in a list once. Bytes per entry: 8, and 8 of coverage from anywhere.
__global__ void raise_listed_rows(const Near* list, std::int64_t length, float* best) {
  for (std::int64_t k = thread_of_grid(); k < length; k += threads_of_grid())
    best[list[k].row] = fmaxf(best[list[k].row], list[k].similarity);
}

// A warp owns kWarpRows ground rows for all picks. Bytes and flops as apply_picks.
__global__ void __launch_bounds__(kThreads) raise_rows(const float* ground, std::int64_t rows, const float* picks,
                                                       std::int64_t count, std::int64_t dim, float* best) {
  const int lane = lane_of_warp();
  for (std::int64_t first = warp_of_grid() * kWarpRows; first < rows; first += warps_of_grid() * kWarpRows) {
    const TileRows<float> tile_rows = neighbours(ground + first * dim, rows - first, dim);
    float top = 0;  // no similarity is below
    for (std::int64_t at = 0; at < count; at += kTilePicks) {
      const float dot = tile<Product>(tile_rows, neighbours<kTilePicks>(picks + at * dim, count - at, dim), dim);
      top = fmaxf(top, clipped_cosine(dot));
    }
    for (int other = kTilePicks / 2; other > 0; other /= 2) top = fmaxf(top, __shfl_xor_sync(kWholeWarp, top, other));
    const std::int64_t row = first + lane / kTilePicks;
    if (row < rows && lane % kTilePicks == 0) best[row] = fmaxf(best[row], top);
  }
}

}  // namespace
}  // namespace seine
