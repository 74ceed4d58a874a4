// How the loops of the CUDA backend are spread over a device: what a block owns, and how many blocks there are. Plain
// functions, which need neither nvcc nor a GPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "seine/row_math.hpp"

namespace seine {

inline constexpr int kThreads = 256;  // of a block
inline constexpr int kWarps = kThreads / kLanes;

// Rows and picks that a warp makes meet at a time: one pair for each lane.
inline constexpr int kWarpRows = 4;
inline constexpr int kTilePicks = 8;
static_assert(kWarpRows * kTilePicks == kLanes);

// Rows that scratch memory is taken for at a time.
inline constexpr std::int64_t kScratchRows = 1 << 22;

// Blocks of a launch.
struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

// So many blocks that each has `each` of `count` to do, where kernels stride by the grid: one at least, and no more
// than a launch takes.
constexpr Grid blocks(std::int64_t count, std::int64_t each) {
  return {static_cast<unsigned>(std::clamp<std::int64_t>((count + each - 1) / each, 1, 1 << 20))};
}

// Of picks that are applied to rows: more blocks than are at work at a time, because rows drop out.
constexpr Grid apply_grid(std::int64_t rows, int multiprocessors) {
  constexpr std::int64_t kBlocksEach = 32;
  return {std::min(blocks(rows, kWarps * kWarpRows).x, static_cast<unsigned>(multiprocessors * kBlocksEach))};
}

// Of gains; add_gains says what a block owns.
inline constexpr int kGainGroups = 4;
inline constexpr int kGainStripes = kWarps / kGainGroups;
constexpr Grid gain_grid(std::int64_t candidates, std::int64_t rows, int multiprocessors) {
  constexpr std::int64_t candidates_of_block = kGainGroups * kTilePicks, rows_of_block = kGainStripes * kWarpRows;
  const std::int64_t x = std::max<std::int64_t>((candidates + candidates_of_block - 1) / candidates_of_block, 1);
  const std::int64_t stripes = (rows + rows_of_block - 1) / rows_of_block;
  // Enough blocks to fill the device; more would only add atomics.
  const std::int64_t wanted = std::max<std::int64_t>(multiprocessors * std::int64_t{8} / x, 1);
  return {static_cast<unsigned>(x), static_cast<unsigned>(std::clamp<std::int64_t>(stripes, 1, wanted))};
}

// Of sums of rows: a thread owns a component of every y-th row.
constexpr Grid sum_grid(std::int64_t dim, std::int64_t rows) {
  constexpr std::int64_t kMostStripes = 256, kRowsOfStripe = 256;
  return {blocks(dim, kThreads).x,
          static_cast<unsigned>(std::min<std::int64_t>(blocks(rows, kRowsOfStripe).x, kMostStripes))};
}

// Of second moments: a block owns kGramSide x kGramSide pairs of components and every z-th group of rows.
inline constexpr int kGramSide = 16;
constexpr Grid gram_grid(std::int64_t dim, std::int64_t groups) {
  constexpr std::int64_t kMostStripes = 64;
  const auto side = static_cast<unsigned>((dim + kGramSide - 1) / kGramSide);
  return {side, side, static_cast<unsigned>(std::clamp<std::int64_t>(groups, 1, kMostStripes))};
}

}  // namespace seine
