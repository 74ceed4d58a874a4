// Selection among keys.
#include <algorithm>
#include <functional>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/tiles.hpp"
#include "backend/key_sample.hpp"
#include "best.hpp"

namespace seine {

std::vector<Candidate> CpuBackend::top(const double* key, const std::uint8_t* selectable,
                                       const std::int64_t* global_rows, std::int64_t rows, std::int64_t count) {
  if (count <= 0) return {};
  std::vector<Best> best(static_cast<std::size_t>(workers_.threads()), Best(count));
  constexpr std::int64_t kScanRows = 16384;  // less is not worth waking a thread
  share_tiles(workers_, rows, kScanRows, [&](std::int64_t first, std::int64_t last, int thread) {
    Best& mine = best[static_cast<std::size_t>(thread)];
    for (std::int64_t i = first; i < last; ++i)
      if (selectable[i]) mine.offer({key[i], global_rows[i]});
  });
  std::vector<Candidate> all;
  for (Best& part : best) {
    const std::vector<Candidate> kept_by_thread = part.take();
    all.insert(all.end(), kept_by_thread.begin(), kept_by_thread.end());
  }
  keep_best(all, count);
  return all;
}

double CpuBackend::nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) {
  const KeySample sample(rows, count);
  std::vector<double> keys;
  for (std::int64_t i = 0; i < rows; i += sample.stride)
    if (selectable[i]) keys.push_back(key[i]);
  if (static_cast<std::int64_t>(keys.size()) < sample.place) return kNoCandidate.value;
  const auto at = keys.begin() + (sample.place - 1);
  std::nth_element(keys.begin(), at, keys.end(), std::greater<>());
  return *at;
}

std::int64_t CpuBackend::at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) {
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < rows; ++i) count += (selectable[i] != 0) & (key[i] >= floor);
  return count;
}

}  // namespace seine
