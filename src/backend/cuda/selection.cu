// Selection among keys. A thread owns a row at a time and strides by the grid.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>

#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/warp.cuh"

namespace seine {
namespace {

// Selection among doubles through integers of the same order; 0 is below them all.
__device__ inline std::uint64_t ordered(double key) {
  const std::uint64_t bits = bits_of_double(key + 0.0);  // -0 becomes 0: they are equal
  return bits >> 63 ? ~bits : bits | 0x8000000000000000ULL;
}

// The key whose `ordered` this is.
double key_of(std::uint64_t order) {
  return double_of_bits(order >> 63 ? order & 0x7fffffffffffffffULL : ~order);
}

__global__ void order_keys(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::uint64_t* out) {
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid())
    out[i] = selectable[i] ? ordered(key[i]) : 0;
}

constexpr std::int64_t kNoRow = kNoCandidate.row;  // behind all rows

// How many rows are above the threshold, and how many are at it.
struct Found {
  unsigned long long above, level;
};

// Rows above the threshold to above[], in any order; of those at it the first `room` that come, to level[].
__global__ void collect(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                        std::int64_t rows, std::uint64_t threshold, Candidate* above, Candidate* level,
                        std::uint64_t room, Found* found) {
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid()) {
    const std::uint64_t mine = selectable[i] ? ordered(key[i]) : 0;
    if (mine > threshold) above[atomicAdd(&found->above, 1ULL)] = {key[i], global_rows[i]};
    if (mine != threshold || mine == 0) continue;
    const std::uint64_t slot = atomicAdd(&found->level, 1ULL);
    if (slot < room) level[slot] = {key[i], global_rows[i]};
  }
}

// A thread owns every so many-th row.
__global__ void count_at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor,
                               unsigned long long* count) {
  unsigned long long mine = 0;
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid()) mine += selectable[i] && key[i] >= floor;
  if (mine > 0) atomicAdd(count, mine);
}

// The global rows at the threshold; behind all rows where a row is not.
__global__ void rows_at(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                        std::int64_t rows, std::uint64_t threshold, std::int64_t* out) {
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid())
    out[i] = selectable[i] && ordered(key[i]) == threshold ? global_rows[i] : kNoRow;
}

// A thread owns a Unit of an item.
template <class Unit>
__global__ void pack(const Unit* from, std::int64_t units, const std::int64_t* positions, std::int64_t count,
                     Unit* to) {
  for (std::int64_t i = thread_of_grid(); i < count * units; i += threads_of_grid())
    to[i] = from[positions[i / units] * units + i % units];
}

}  // namespace

std::vector<Candidate> CudaBackend::top(const double* key, const std::uint8_t* selectable,
                                        const std::int64_t* global_rows, std::int64_t rows, std::int64_t count) {
  count = std::min(count, rows);
  if (count <= 0) return {};
  const std::uint64_t threshold = nth_largest(key, selectable, rows, count);
  Array<Candidate> above(*this, count), level(*this, count);
  Array<Found> counter(*this, 1);
  const Found none{0, 0};
  counter.write({&none, 1});
  launch(collect, blocks(rows, kThreads), key, selectable, global_rows, rows, threshold, above.data(), level.data(),
         static_cast<std::uint64_t>(count), counter.data());
  const Found found = counter.to_host()[0];
  std::vector<Candidate> best(found.above);
  above.read(best);
  const std::size_t room = static_cast<std::size_t>(count) - best.size();
  std::vector<Candidate> ties(std::min<std::size_t>(found.level, room));
  if (!ties.empty()) level.read(ties);
  if (found.level > room) {  // more than are wanted: those of the smallest rows
    const std::vector<std::int64_t> first = smallest_rows_at(key, selectable, global_rows, rows, threshold, room);
    for (std::size_t i = 0; i < room; ++i) ties[i].row = first[i];
  }
  best.insert(best.end(), ties.begin(), ties.end());
  std::sort(best.begin(), best.end(), [](const Candidate& a, const Candidate& b) { return beats(a, b); });
  return best;
}

double CudaBackend::nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) {
  const std::uint64_t nth = count <= rows ? nth_largest(key, selectable, rows, count) : 0;
  return nth == 0 ? kNoCandidate.value : key_of(nth);
}

std::int64_t CudaBackend::at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) {
  const Array<unsigned long long> count = zeros(1);
  launch(count_at_least, blocks(rows, 16 * kThreads), key, selectable, rows, floor, count.data());
  return static_cast<std::int64_t>(count.to_host()[0]);
}

void CudaBackend::gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions,
                         void* host) {
  if (positions.empty() || item_bytes == 0) return;
  const Array<std::int64_t> where(*this, positions);
  const Array<std::byte> items(*this, static_cast<std::int64_t>(item_bytes * positions.size()));
  pack_items(from, item_bytes, where.data(), where.size(), items.data());
  copy_out(host, items.data(), item_bytes * positions.size());
}

void CudaBackend::pack_items(const void* from, std::size_t item_bytes, const std::int64_t* positions,
                             std::int64_t count, void* to) const {
  const auto pack_as = [&](auto unit) {
    using Unit = decltype(unit);
    const auto units = static_cast<std::int64_t>(item_bytes / sizeof(Unit));
    launch(pack<Unit>, blocks(units * count, kThreads), static_cast<const Unit*>(from), units, positions, count,
           static_cast<Unit*>(to));
  };
  if (item_bytes % 4 == 0 && reinterpret_cast<std::uintptr_t>(from) % 4 == 0)
    pack_as(std::uint32_t{});
  else
    pack_as(std::uint8_t{});
}

// `sort(scratch, bytes)` as CUB has it: asks for the bytes first, then sorts.
template <class Sort>
void CudaBackend::sorted(const Sort& sort) {
  std::size_t bytes = 0;
  check(sort(nullptr, bytes));
  const Array<std::byte> scratch(*this, static_cast<std::int64_t>(bytes));
  check(sort(scratch.data(), bytes));
  finish();
}

// The count-th largest of the ordered keys of selectable rows; 0 where there are fewer.
std::uint64_t CudaBackend::nth_largest(const double* key, const std::uint8_t* selectable, std::int64_t rows,
                                       std::int64_t count) {
  const Array<std::uint64_t> keys(*this, rows), other(*this, rows);
  launch(order_keys, blocks(rows, kThreads), key, selectable, rows, keys.data());
  cub::DoubleBuffer<std::uint64_t> buffer(keys.data(), other.data());
  sorted([&](void* scratch, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortKeysDescending(scratch, bytes, buffer, rows, 0, 64, stream_);
  });
  std::uint64_t nth = 0;
  copy_out(&nth, buffer.Current() + count - 1, sizeof nth);
  return nth;
}

std::vector<std::int64_t> CudaBackend::smallest_rows_at(const double* key, const std::uint8_t* selectable,
                                                        const std::int64_t* global_rows, std::int64_t rows,
                                                        std::uint64_t threshold, std::size_t count) {
  const Array<std::int64_t> level(*this, rows), other(*this, rows);
  launch(rows_at, blocks(rows, kThreads), key, selectable, global_rows, rows, threshold, level.data());
  cub::DoubleBuffer<std::int64_t> buffer(level.data(), other.data());
  sorted([&](void* scratch, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortKeys(scratch, bytes, buffer, rows, 0, 64, stream_);
  });
  std::vector<std::int64_t> first(count);
  copy_out(first.data(), buffer.Current(), count * sizeof(std::int64_t));
  return first;
}

}  // namespace seine
