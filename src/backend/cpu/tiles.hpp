// How the CPU backend cuts its loops: tiles of rows, the unit of threads, that meet picks in chunks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "seine/stop.hpp"
#include "workers.hpp"

namespace seine {

inline constexpr std::int64_t kRowsOfThread = 256;  // that it takes at a time
// Picks that meet the rows of a tile together: few, so that they stay in the first-level cache.
inline constexpr std::int64_t kPickChunk = 8;

using RowPointers = std::vector<const float*>;

inline RowPointers pointers(const float* rows, std::int64_t count, std::int64_t dim) {
  RowPointers out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(rows + i * dim);
  return out;
}

// How many rows of `row_bytes` each make about `bytes`.
inline std::int64_t rows_in(std::int64_t bytes, std::int64_t row_bytes, std::int64_t least, std::int64_t most) {
  return std::clamp(bytes / std::max<std::int64_t>(row_bytes, 1), least, most);
}

// Calls work(first, last, thread) for tiles of [0, rows).
template <class Work>
void share_tiles(Workers& workers, std::int64_t rows, std::int64_t tile, const Work& work) {
  workers.share((rows + tile - 1) / std::max<std::int64_t>(tile, 1),
                [&](std::int64_t t, int thread) { work(t * tile, std::min(rows, (t + 1) * tile), thread); });
}
// Calls work(first, last) likewise, but for those that are left when a signal comes.
template <class Work>
void for_tiles(Workers& workers, std::int64_t rows, std::int64_t tile, const Work& work) {
  share_tiles(workers, rows, tile, [&](std::int64_t first, std::int64_t last, int) {
    if (stop_signal() == 0) work(first, last);
  });
}
template <class Work>
void for_tiles(Workers& workers, std::int64_t rows, const Work& work) {
  for_tiles(workers, rows, kRowsOfThread, work);
}

}  // namespace seine
