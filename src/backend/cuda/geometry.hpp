// How the loops of the CUDA backend are spread over a device: what a block owns, and how many blocks there are. Plain
// functions, which need neither nvcc nor a GPU.
#pragma once

#include <algorithm>
#include <cstdint>

#include "seine/bytes.hpp"
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
// Rows that lie apart are packed in so many bytes.
inline constexpr std::int64_t kPackedBytes = 64 << 20;

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

// Of gains; add_gains says what a block owns. A warp looks at `step` neighbouring rows.
inline constexpr int kGainGroups = 4;
inline constexpr int kGainStripes = kWarps / kGainGroups;
constexpr Grid gain_grid(std::int64_t candidates, std::int64_t rows, int multiprocessors, std::int64_t step) {
  constexpr std::int64_t candidates_of_block = kGainGroups * kTilePicks;
  const std::int64_t rows_of_block = kGainStripes * step;
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

// Matrix products that only say which pairs need not meet: of so many picks at a time, so that rows that fall below the
// floor drop out soon, and of so many rows that their copies and products take 128 MiB at most.
inline constexpr std::int64_t kFilterPicks = 256;
constexpr std::int64_t filter_rows(std::int64_t copied_bytes, std::int64_t vectors) {
  const std::int64_t bytes = std::max<std::int64_t>(copied_bytes, vectors * std::int64_t{sizeof(float)});
  return std::max<std::int64_t>(64 * kMiB / bytes, 1);
}

// Whether that is less work, even if it spares every other pair only. In units of a component of a pair in the
// canonical kernel, two instructions: 0.07 ps of an H100, whose TF32 products take a sixteenth of it (400 Tflop/s),
// while 4 bytes written and read again take 32 (3 TB/s), and a component of a row 48, to be packed and read: 12 bytes,
// where facility location, which packs nothing, reads 4: there this asks for a little more than it has to.
// Launches, and that the host has to wait for one, take 40 microseconds.
constexpr bool filter_pays(std::int64_t rows, std::int64_t vectors, std::int64_t dim) {
  const double n = static_cast<double>(rows), d = static_cast<double>(dim), pairs = n * static_cast<double>(vectors);
  return 2 * (pairs * (d / 16 + 32) + n * d * 48 + 0.5e9) < pairs * d;
}

}  // namespace seine
