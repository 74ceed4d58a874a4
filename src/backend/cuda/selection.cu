// Selection among keys.
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include <algorithm>
#include <cub/device/device_merge_sort.cuh>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_reduce.cuh>
#include <cub/device/device_select.cuh>

#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/selection.cuh"
#include "backend/key_sample.hpp"
#include "best.hpp"

namespace seine {
namespace {

constexpr std::int64_t kNoRow = kNoCandidate.row;

// A row as a candidate; none where it may not be selected or its key is below the floor.
struct Competitor {
  const double* key;
  const std::uint8_t* selectable;
  const std::int64_t* global_rows;
  double floor;

  __device__ Candidate operator()(std::int64_t i) const {
    return selectable[i] && key[i] >= floor ? Candidate{key[i], global_rows[i]} : Candidate{kNoKey, kNoRow};
  }
};
struct Competes {
  __device__ bool operator()(const Candidate& one) const { return one.row != kNoRow; }
};
struct Beats {
  __device__ bool operator()(const Candidate& a, const Candidate& b) const { return beats(a, b); }
};
struct Better {
  __device__ Candidate operator()(const Candidate& a, const Candidate& b) const { return beats(b, a) ? b : a; }
};

// Candidates from the row `first` on.
auto competitors(const Competitor& of, std::int64_t first) {
  return thrust::make_transform_iterator(thrust::counting_iterator<std::int64_t>(first), of);
}

}  // namespace

std::vector<Candidate> CudaBackend::top(const double* key, const std::uint8_t* selectable,
                                        const std::int64_t* global_rows, std::int64_t rows, std::int64_t count) {
  count = std::min(count, rows);
  if (count <= 0) return {};
  std::vector<Candidate> best;
  if (count == 1) {
    best = best_of_slices(key, selectable, global_rows, rows);
  } else {
    // Few rows reach a floor that some of the keys tell; where too few do, a lower one.
    for (std::int64_t wanted = count + count / 4;; wanted *= 4) {
      const double floor = nth(key, selectable, rows, wanted);
      best = reaching(floor, key, selectable, global_rows, rows, count);
      if (static_cast<std::int64_t>(best.size()) >= count || floor == kNoKey) break;
    }
  }
  keep_best(best, count);
  return best;
}

// The best of each slice of the rows. Bytes per row: 17.
std::vector<Candidate> CudaBackend::best_of_slices(const double* key, const std::uint8_t* selectable,
                                                   const std::int64_t* global_rows, std::int64_t rows) {
  const Array<Candidate> best(*this, (rows + kScratchRows - 1) / kScratchRows);
  for (std::int64_t slice = 0; slice < best.size(); ++slice) {
    const std::int64_t first = slice * kScratchRows;
    with_scratch([&](void* scratch, std::size_t& bytes) {
      return cub::DeviceReduce::Reduce(scratch, bytes, competitors({key, selectable, global_rows, kNoKey}, first),
                                       best.data() + slice, std::min(rows - first, kScratchRows), Better{},
                                       Candidate{kNoKey, kNoRow}, stream_);
    });
  }
  std::vector<Candidate> found = best.to_host();
  std::erase_if(found, [](const Candidate& one) { return one.row == kNoRow; });
  return found;
}

// The rows whose keys are at least `floor`; of each slice the `count` best. Bytes per row: 9, and of those that reach
// the floor 16 as often as they are sorted.
std::vector<Candidate> CudaBackend::reaching(double floor, const double* key, const std::uint8_t* selectable,
                                             const std::int64_t* global_rows, std::int64_t rows, std::int64_t count) {
  const Array<Candidate> found(*this, std::min(rows, kScratchRows));
  const Array<std::int64_t> length(*this, 1);
  std::vector<Candidate> all;
  for (std::int64_t first = 0; first < rows; first += kScratchRows) {
    with_scratch([&](void* scratch, std::size_t& bytes) {
      return cub::DeviceSelect::If(scratch, bytes, competitors({key, selectable, global_rows, floor}, first),
                                   found.data(), length.data(), std::min(rows - first, kScratchRows), Competes{},
                                   stream_);
    });
    const std::int64_t many = length.to_host()[0], kept = std::min(many, count);
    if (many > count)
      with_scratch([&](void* scratch, std::size_t& bytes) {
        return cub::DeviceMergeSort::SortKeys(scratch, bytes, found.data(), many, Beats{}, stream_);
      });
    all.resize(all.size() + static_cast<std::size_t>(kept));
    found.read(std::span(all).last(static_cast<std::size_t>(kept)));
  }
  return all;
}

double CudaBackend::nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) {
  const KeySample sample(rows, count);
  if (sample.place > sample.size) return kNoKey;
  const Array<double> keys(*this, sample.size), other(*this, sample.size);
  launch(sample_keys, blocks(sample.size, kThreads), key, selectable, sample.size, sample.stride, keys.data());
  // Bytes per key, at most: 16 for each digit of its 64 bits, from the caches: less than 2 kExactRows keys, whose
  // launches are what takes time.
  cub::DoubleBuffer<double> buffer(keys.data(), other.data());
  with_scratch([&](void* scratch, std::size_t& bytes) {
    return cub::DeviceRadixSort::SortKeysDescending(scratch, bytes, buffer, sample.size, 0, 64, stream_);
  });
  double nth = 0;
  copy_out(&nth, buffer.Current() + sample.place - 1, sizeof nth);
  return nth;
}

std::int64_t CudaBackend::at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) {
  const Array<unsigned long long> count = zeros(1);
  launch(count_at_least, blocks(rows, 16 * kThreads), key, selectable, rows, floor, count.data());
  return static_cast<std::int64_t>(count.to_host()[0]);
}

}  // namespace seine
