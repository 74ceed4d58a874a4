// The CUDA backend, a plug-in (plugin.hpp). Formulas are those of rules.hpp and row_math.hpp; what is here is who
// computes what.
//
// A warp is the canonical row kernel: lane j of 32 sums the components j, j + 32, ..., and `fold` adds the lanes as
// row_math.hpp does, so results have the bits of the CPU. Floats are never added across warps; integers may be, by
// atomics, because their sums have no order. Contraction is off (cuda.cmake).
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <limits>
#include <source_location>
#include <string>

#include "backend/plugin.hpp"
#include "seine/backend.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

constexpr int kThreads = 256;  // of a block
constexpr int kWarps = kThreads / kLanes;
constexpr unsigned kWholeWarp = 0xffffffffu;

// --- Inside a warp ---

__device__ inline int lane_of_warp() {
  return static_cast<int>(threadIdx.x) % kLanes;
}
__device__ inline std::int64_t warp_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / kLanes;
}
__device__ inline std::int64_t warps_of_grid() {
  return static_cast<std::int64_t>(gridDim.x) * kWarps;
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

// A warp meets kTileRows rows with kTilePicks vectors at a time, so that a loaded value is used several times; lane j
// gets the result of row j / kTilePicks and vector j % kTilePicks. Rows come from memory, vectors mostly from L1.
constexpr int kTileRows = 4;
constexpr int kTilePicks = 8;
static_assert(kTileRows * kTilePicks == kLanes);

// `rows` and `count` may be short of a whole tile: the last one is repeated.
template <class Term, class X, class Y>
__device__ inline Y tile(const X* x, std::int64_t rows, const Y* y, std::int64_t count, std::int64_t dim) {
  const X* row[kTileRows];
  const Y* vector[kTilePicks];
#pragma unroll
  for (int r = 0; r < kTileRows; ++r) row[r] = x + (r < rows ? r : rows - 1) * dim;
#pragma unroll
  for (int p = 0; p < kTilePicks; ++p) vector[p] = y + (p < count ? p : count - 1) * dim;
  Y sum[kLanes] = {};
  for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes) {
    Y value[kTileRows];
#pragma unroll
    for (int r = 0; r < kTileRows; ++r) value[r] = widen<Y>(row[r][c]);
#pragma unroll
    for (int p = 0; p < kTilePicks; ++p) {
      const Y other = vector[p][c];
#pragma unroll
      for (int r = 0; r < kTileRows; ++r) sum[r * kTilePicks + p] = Term::add(value[r], other, sum[r * kTilePicks + p]);
    }
  }
  return fold(sum);
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

// --- Kernels. Where nothing is said, a thread owns a row at a time and strides by the grid. ---

__device__ inline std::int64_t thread_of_grid() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline std::int64_t threads_of_grid() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

// A warp owns a row. Reads dim * 4 bytes twice (the second time from L1) and writes them; dim fused operations and
// divisions in float64.
__global__ void unit_row(float* x, std::int64_t rows, std::int64_t dim) {
  for (std::int64_t i = warp_of_grid(); i < rows; i += warps_of_grid()) {
    float* row = x + i * dim;
    const double norm2 = squared_norm(row, dim);
    if (!(norm2 > 0)) continue;
    const double norm = sqrt(norm2);
    for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes)
      row[c] = static_cast<float>(static_cast<double>(row[c]) / norm);
  }
}

// A warp owns a row. Reads the row once; dim fused operations in float64.
template <class X>
__global__ void squared_norm_of_rows(const X* x, std::int64_t rows, std::int64_t dim, double* out) {
  for (std::int64_t i = warp_of_grid(); i < rows; i += warps_of_grid()) {
    const double norm2 = squared_norm(x + i * dim, dim);
    if (lane_of_warp() == 0) out[i] = norm2;
  }
}

__global__ void widen_values(const __half* from, std::int64_t count, float* to) {
  for (std::int64_t i = thread_of_grid(); i < count; i += threads_of_grid()) to[i] = __half2float(from[i]);
}

template <class Rule>
__global__ void start_rows(Start how, std::int64_t rows, RowStates out) {
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid()) {
    const double weight = out.weight ? out.weight[i] : 1;
    const double before = how.before ? how.before[i] : HUGE_VAL;
    const typename Rule::State s =
        Rule::start(before, weight, how.seed, how.purpose, how.global_rows ? how.global_rows[i] : i);
    static_cast<typename Rule::State*>(out.state)[i] = s;
    out.key[i] = Rule::key(s, weight);
    if (out.applied) out.applied[i] = 0;
  }
}

// Interactions of a tile: rows from `first`, picks from `at`. A lane gets that of its own `row` and `pick`.
template <class Rule, class X>
__device__ inline double interaction(const Vectors& rows, std::int64_t first, std::int64_t row, const Vectors& picks,
                                     std::int64_t at, std::int64_t pick) {
  const std::int64_t left = rows.rows - first, picks_left = picks.rows - at, dim = rows.x.dim;
  const X* x = static_cast<const X*>(rows.x.data) + first * dim;
  if constexpr (!Rule::uses_distance) {
    return tile<Product>(x, left, static_cast<const double*>(picks.x.data) + at * dim, picks_left, dim);
  } else {
    const float ex =
        tile<SquaredDifference>(x, left, static_cast<const float*>(picks.x.data) + at * dim, picks_left, dim);
    const std::int64_t classes = rows.a.dim;
    if (classes == 0) return ex;
    const float* a = static_cast<const float*>(rows.a.data) + first * classes;
    const float ea =
        tile<SquaredDifference>(a, left, static_cast<const float*>(picks.a.data) + at * classes, picks_left, classes);
    return outer_distance2(rows.a2[row], rows.x2[row], picks.a2[pick], picks.x2[pick], ea, ex);
  }
}

// A warp owns kTileRows rows for all picks; the kTilePicks lanes of a row hold its state and apply the same picks to
// it, in order, until it falls below the floor. A warp none of whose rows reaches the floor reads their keys and no
// more. Bytes per row: its vectors once per kTilePicks picks (the first time from memory, then from the caches if they
// hold it), state and key once. Flops per row and pick: 3 per component (2 for products).
template <class Rule, class X>
__global__ void __launch_bounds__(kThreads)
    apply_picks(Vectors rows, Picks picks, double floor, RowStates states, unsigned long long* met) {
  const int lane = lane_of_warp();
  const std::int64_t count = picks.vectors.rows;
  for (std::int64_t first = warp_of_grid() * kTileRows; first < rows.rows; first += warps_of_grid() * kTileRows) {
    const std::int64_t own = first + lane / kTilePicks;
    const std::int64_t row = own < rows.rows ? own : rows.rows - 1;
    const std::int64_t place = states.at ? states.at[row] : row;
    double key = own < rows.rows ? states.key[place] : NAN;
    std::int64_t seen = states.applied ? states.applied[place] : 0;
    std::int64_t at = key >= floor ? seen : count;
    for (int other = kLanes / 2; other >= kTilePicks; other /= 2) {
      const std::int64_t theirs = __shfl_xor_sync(kWholeWarp, at, other);
      at = theirs < at ? theirs : at;
    }
    if (at >= count) continue;
    const double w = states.weight ? states.weight[place] : 1;
    typename Rule::State s = static_cast<const typename Rule::State*>(states.state)[place];
    const std::int64_t before = seen;
    for (; at < count && __any_sync(kWholeWarp, key >= floor && seen < count); at += kTilePicks) {
      const int many = static_cast<int>(count - at < kTilePicks ? count - at : kTilePicks);
      const int pick = lane % kTilePicks < many ? lane % kTilePicks : many - 1;
      const double mine = interaction<Rule, X>(rows, first, row, picks.vectors, at, at + pick);
      const bool takes_part = key >= floor;
      for (int p = 0; p < many; ++p) {
        const double value = __shfl_sync(kWholeWarp, mine, p, kTilePicks);
        if (!takes_part || at + p < seen) continue;
        Rule::apply(s, w, value, picks.moments ? picks.moments[at + p] : 0, static_cast<std::uint32_t>(at + p));
      }
      if (takes_part) key = Rule::key(s, w);
      if (takes_part && seen < at + many) seen = at + many;
    }
    if (own >= rows.rows || lane % kTilePicks != 0 || seen == before) continue;
    static_cast<typename Rule::State*>(states.state)[place] = s;
    states.key[place] = key;
    if (states.applied) states.applied[place] = static_cast<std::uint32_t>(seen);
    atomicAdd(met, static_cast<unsigned long long>(seen - before));
  }
}

// A warp owns kTileRows picks for all later ones in [first, last). Bytes and flops as apply_picks.
__global__ void __launch_bounds__(kThreads) compare_picks(const float* picks, std::int64_t dim, std::int64_t first,
                                                          std::int64_t last, float* between, std::int64_t stride) {
  const int lane = lane_of_warp();
  for (std::int64_t a = warp_of_grid() * kTileRows; a < last; a += warps_of_grid() * kTileRows) {
    for (std::int64_t b = a > first ? a : first; b < last; b += kTilePicks) {
      const float distance2 = tile<SquaredDifference>(picks + a * dim, last - a, picks + b * dim, last - b, dim);
      const std::int64_t row = a + lane / kTilePicks, pick = b + lane % kTilePicks;
      if (row < last && pick < last) between[row * stride + pick] = distance2;
    }
  }
}

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

// A block owns kGainGroups * kTilePicks candidates and, of the ground rows, a stripe; its warps are kGainGroups groups
// of candidates by kGainStripes tiles of rows, so that a row serves several groups from L1. Integer atomics, once per
// warp and candidate. Bytes per ground row and block: dim * 4; flops per row and candidate: 2 dim. Where there are
// lists, a thread also writes the rows that add, each to the next free place.
constexpr int kGainGroups = 4;
constexpr int kGainStripes = kWarps / kGainGroups;

__global__ void __launch_bounds__(kThreads)
    add_gains(const float* ground, Band band, const double* weight, FixedPoint fixed, const float* candidates,
              std::int64_t count, std::int64_t dim, unsigned long long* gains, Near* const* lists, std::int64_t room,
              unsigned long long* near) {
  const int lane = lane_of_warp(), warp = static_cast<int>(threadIdx.x) / kLanes;
  const std::int64_t group = (static_cast<std::int64_t>(blockIdx.x) * kGainGroups + warp % kGainGroups) * kTilePicks;
  if (group >= count) return;
  const std::int64_t stride = static_cast<std::int64_t>(gridDim.y) * kGainStripes * kTileRows;
  std::int64_t first = (static_cast<std::int64_t>(blockIdx.y) * kGainStripes + warp / kGainGroups) * kTileRows;
  const std::int64_t candidate = group + lane % kTilePicks;
  std::int64_t sum = 0;
  for (; first < band.count; first += stride) {
    const float dot =
        tile<Product>(ground + first * dim, band.count - first, candidates + group * dim, count - group, dim);
    const std::int64_t row = first + lane / kTilePicks;
    if (row >= band.count || candidate >= count) continue;
    const float similarity = clipped_cosine(dot);
    sum += static_cast<std::int64_t>(
        gain_between(band.above[row], band.below ? band.below[row] : 1, similarity, weight ? weight[row] : 1, fixed));
    if (!lists || !(similarity > band.above[row])) continue;
    const auto at = static_cast<std::int64_t>(atomicAdd(&near[candidate], 1ULL));
    if (at < room) lists[candidate][at] = {static_cast<std::int32_t>(band.first + row), similarity};
  }
  if (candidate < count) atomicAdd(&gains[candidate], static_cast<unsigned long long>(sum));
}

// A warp owns a list. Bytes per entry: 8, and 4 of coverage from anywhere.
__global__ void add_listed_gains(Near* const* lists, const std::int64_t* lengths, std::int64_t count, const float* best,
                                 const double* weight, FixedPoint fixed, unsigned long long* gains) {
  for (std::int64_t j = warp_of_grid(); j < count; j += warps_of_grid()) {
    std::int64_t sum = 0;
    for (std::int64_t k = lane_of_warp(); k < lengths[j]; k += kLanes) {
      const Near near = lists[j][k];
      sum += static_cast<std::int64_t>(
          gain_between(best[near.row], 1, near.similarity, weight ? weight[near.row] : 1, fixed));
    }
    for (int other = kLanes / 2; other > 0; other /= 2) sum += __shfl_xor_sync(kWholeWarp, sum, other);
    if (lane_of_warp() == 0) gains[j] = static_cast<unsigned long long>(sum);
  }
}

// A row is in a list once.
__global__ void raise_listed_rows(const Near* list, std::int64_t length, float* best) {
  for (std::int64_t k = thread_of_grid(); k < length; k += threads_of_grid())
    best[list[k].row] = fmaxf(best[list[k].row], list[k].similarity);
}

// A warp owns a row. Reads the row once; dim fused operations in float64.
__global__ void products_of_rows(const float* x, std::int64_t rows, std::int64_t dim, const double* vector,
                                 double* out) {
  for (std::int64_t i = warp_of_grid(); i < rows; i += warps_of_grid()) {
    double sum[1] = {};
    for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes)
      sum[0] = fused(static_cast<double>(x[i * dim + c]), vector[c], sum[0]);
    const double product = fold(sum);
    if (lane_of_warp() == 0) out[i] = product;
  }
}

// A thread owns a component of every gridDim.y-th row. Reads each row once.
__global__ void add_weighted_rows(const float* x, std::int64_t rows, std::int64_t dim, const double* factor,
                                  FixedPoint fixed, unsigned long long* sums) {
  const std::int64_t c = thread_of_grid();
  if (c >= dim) return;
  std::int64_t sum = 0;
  for (std::int64_t i = blockIdx.y; i < rows; i += gridDim.y)
    sum += fixed.of(factor[i] * static_cast<double>(x[i * dim + c]));
  atomicAdd(&sums[c], static_cast<unsigned long long>(sum));
}

// A warp owns kTileRows ground rows for all picks. Bytes and flops as apply_picks.
__global__ void __launch_bounds__(kThreads) raise_rows(const float* ground, std::int64_t rows, const float* picks,
                                                       std::int64_t count, std::int64_t dim, float* best) {
  const int lane = lane_of_warp();
  for (std::int64_t first = warp_of_grid() * kTileRows; first < rows; first += warps_of_grid() * kTileRows) {
    float top = 0;  // no similarity is below
    for (std::int64_t at = 0; at < count; at += kTilePicks) {
      const float dot = tile<Product>(ground + first * dim, rows - first, picks + at * dim, count - at, dim);
      top = fmaxf(top, clipped_cosine(dot));
    }
    for (int other = kTilePicks / 2; other > 0; other /= 2) top = fmaxf(top, __shfl_xor_sync(kWholeWarp, top, other));
    const std::int64_t row = first + lane / kTilePicks;
    if (row < rows && lane % kTilePicks == 0) best[row] = fmaxf(best[row], top);
  }
}

// A block owns kGramSide x kGramSide pairs of components and every gridDim.z-th group; a thread one pair, whose
// products it sums in the order of the rows. Bytes per row and block: 2 * kGramSide * 4; flops per row and pair: 2, in
// float64.
constexpr int kGramSide = 16;

__global__ void __launch_bounds__(kGramSide* kGramSide)
    add_moments(const float* x, std::int64_t dim, const std::int64_t* groups, std::int64_t count, FixedPoint fixed,
                unsigned long long* sums) {
  if (blockIdx.x > blockIdx.y) return;  // the other triangle
  __shared__ float left[kGramSide][kGramSide], right[kGramSide][kGramSide];
  const int i = static_cast<int>(threadIdx.y), j = static_cast<int>(threadIdx.x);
  const std::int64_t c = static_cast<std::int64_t>(blockIdx.y) * kGramSide, d = blockIdx.x * std::int64_t{kGramSide};
  std::int64_t sum = 0;
  for (std::int64_t g = blockIdx.z; g < count; g += gridDim.z) {
    double product = 0;
    for (std::int64_t first = groups[g]; first < groups[g + 1]; first += kGramSide) {
      const std::int64_t many = groups[g + 1] - first < kGramSide ? groups[g + 1] - first : kGramSide;
      const float* row = x + (first + i) * dim;
      left[i][j] = i < many && c + j < dim ? row[c + j] : 0;
      right[i][j] = i < many && d + j < dim ? row[d + j] : 0;
      __syncthreads();
      for (int r = 0; r < many; ++r)
        product = fused(static_cast<double>(left[r][i]), static_cast<double>(right[r][j]), product);
      __syncthreads();
    }
    sum += fixed.of(product);
  }
  if (c + i < dim && d + j <= c + i) atomicAdd(&sums[(c + i) * dim + d + j], static_cast<unsigned long long>(sum));
}

// --- Host ---

// What of CUDA's faults is ours (70), what is want of memory (71), and what is the device's (69).
Exit exit_of(cudaError_t fault) {
  switch (fault) {
    case cudaErrorMemoryAllocation:
      return Exit::system;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchOutOfResources:
      return Exit::bug;
    default:
      return Exit::no_device;
  }
}

void check(cudaError_t fault, std::source_location at = std::source_location::current()) {
  if (fault == cudaSuccess) return;
  cudaGetLastError();  // forgets it, where the device still can
  const Exit code = exit_of(fault);
  std::string text = std::string("CUDA: ") + cudaGetErrorString(fault);
  if (code == Exit::bug) text += std::string(" in ") + at.function_name() + ", line " + std::to_string(at.line());
  throw Error(code, text);
}

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

// Makes the device of `local_rank` the calling thread's, and says which; Error 69 where there is none that runs our
// code.
int use_device(int local_rank) {
  const auto usable = [](cudaError_t fault) {
    if (fault == cudaSuccess) return;
    cudaGetLastError();
    throw Error(Exit::no_device, cudaGetErrorString(fault));
  };
  int devices = 0;
  usable(cudaGetDeviceCount(&devices));
  if (devices == 0) usable(cudaErrorNoDevice);
  const int device = local_rank % devices;
  usable(cudaSetDevice(device));
  usable(cudaFree(nullptr));  // creates the context
  cudaFuncAttributes attributes;
  usable(cudaFuncGetAttributes(&attributes, start_rows<Nearest>));  // is there code for this architecture?
  return device;
}

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options) : device_(use_device(options.local_rank)) {
    check(cudaGetDeviceProperties(&properties_, device_));
    cudaMemPool_t pool;
    check(cudaDeviceGetDefaultMemPool(&pool, device_));
    // What is freed goes back to the device except so much: scratch memory of the calls below.
    std::uint64_t kept = 256u << 20;
    check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept));
  }

  std::string name() const override { return "cuda"; }
  std::string describe() const override {
    return std::string(properties_.name) + ", cuda device " + std::to_string(device_) + ", compute capability " +
           std::to_string(properties_.major) + "." + std::to_string(properties_.minor) + ", " +
           std::to_string(properties_.totalGlobalMem >> 30) + " GiB";
  }
  std::size_t memory_bytes() const override { return properties_.totalGlobalMem; }

  void* allocate(std::size_t bytes) override {
    enter();
    void* memory = nullptr;
    const cudaError_t fault = cudaMallocAsync(&memory, std::max<std::size_t>(bytes, 1), stream_);
    if (fault == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      std::size_t free = 0, total = 0;
      cudaMemGetInfo(&free, &total);
      throw Error(Exit::system, "out of memory of the GPU: " + std::to_string(bytes) + " bytes asked for, " +
                                    std::to_string(free) + " of " + std::to_string(total) + " free");
    }
    check(fault);
    return memory;
  }
  void release(void* memory, std::size_t) noexcept override {
    cudaSetDevice(device_);
    cudaFreeAsync(memory, stream_);
  }
  void copy_in(void* to, const void* host, std::size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream_));
    finish();
  }
  void copy_out(void* host, const void* from, std::size_t bytes) override {
    enter();
    check(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_));
    finish();
  }

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override {
    launch(unit_row, blocks(rows, kWarps), x, rows, dim);
    finish();
  }

  void squared_norms(const Field& x, std::int64_t rows, double* out) override {
    with_elements(x, [&](const auto* values) {
      using X = std::remove_cvref_t<decltype(*values)>;
      launch(squared_norm_of_rows<X>, blocks(rows, kWarps), values, rows, x.dim, out);
    });
    finish();
  }

  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) override {
    with_rule(rule, [&](auto r) { launch(start_rows<decltype(r)>, blocks(rows, kThreads), how, rows, states); });
    finish();
  }

  std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                     const RowStates& states) override {
    if (picks.vectors.rows == 0) return 0;
    Array<float> values;
    Picks wide = picks;
    wide.vectors.x = wide_picks(picks.vectors.x, picks.vectors.rows, values);
    unsigned long long met = 0;
    Array<unsigned long long> counter(*this, std::span<const unsigned long long>(&met, 1));
    with_rule(rule, [&](auto r) {
      using Rule = decltype(r);
      expect((wide.vectors.x.type == Element::f64) != Rule::uses_distance, "picks are of the rule's type");
      expect(!rows.outer() || Rule::uses_distance, "outer products have distances only");
      with_elements(rows.x, [&](const auto* x) {
        using X = std::remove_cvref_t<decltype(*x)>;
        launch(apply_picks<Rule, X>, blocks(rows.rows, kWarps * kTileRows), rows, wide, floor, states, counter.data());
      });
    });
    finish();
    counter.read(std::span(&met, 1));
    return static_cast<std::int64_t>(met);
  }

  double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) override {
    const std::uint64_t nth = count <= rows ? nth_largest(key, selectable, rows, count) : 0;
    return nth == 0 ? kNoCandidate.value : key_of(nth);
  }

  void compare(const Field& picks, std::int64_t first, std::int64_t last, float* between,
               std::int64_t stride) override {
    Array<float> values;
    const Field wide = wide_picks(picks, last, values);
    launch(compare_picks, blocks(last, kWarps * kTileRows), static_cast<const float*>(wide.data), wide.dim, first, last,
           between, stride);
    finish();
  }

  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override {
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

  std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) override {
    const Array<unsigned long long> count = zeros(1);
    launch(count_at_least, blocks(rows, 16 * kThreads), key, selectable, rows, floor, count.data());
    return static_cast<std::int64_t>(count.to_host()[0]);
  }

  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override {
    if (positions.empty() || item_bytes == 0) return;
    const Array<std::int64_t> where(*this, positions);
    const Array<std::byte> packed(*this, static_cast<std::int64_t>(item_bytes * positions.size()));
    const bool words = item_bytes % 4 == 0 && reinterpret_cast<std::uintptr_t>(from) % 4 == 0;
    const auto pack_as = [&](auto unit) {
      using Unit = decltype(unit);
      const std::int64_t units = static_cast<std::int64_t>(item_bytes / sizeof(Unit));
      launch(pack<Unit>, blocks(units * where.size(), kThreads), static_cast<const Unit*>(from), units, where.data(),
             where.size(), reinterpret_cast<Unit*>(packed.data()));
    };
    if (words)
      pack_as(std::uint32_t{});
    else
      pack_as(std::uint8_t{});
    copy_out(host, packed.data(), item_bytes * positions.size());
  }

  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override {
    if (count == 0) return;
    const auto* rows = static_cast<const float*>(ground.data);
    Array<float> some;  // the rows of the band and their weights, one behind the other
    Array<double> weights;
    if (band.rows) {
      some = packed(rows, ground.dim, band);
      rows = some.data();
      if (weight) weights = packed(weight, 1, band);
      if (weight) weight = weights.data();
    }
    const Array<unsigned long long> sums = zeros(count);
    meet_ground({rows, ground.type, ground.dim}, band, weight, fixed, candidates, count, sums.data(), nullptr, 0,
                nullptr);
    add_to(gains, sums);
  }

  void first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                   const Field& candidates, const ShadowFields&, std::span<Near* const> lists, std::int64_t room,
                   std::int64_t* gains, std::int64_t* near) override {
    const auto count = static_cast<std::int64_t>(lists.size());
    if (count == 0) return;
    const Array<Near*> places(*this, lists);
    const Array<unsigned long long> sums = zeros(count), lengths(*this, count);
    copy_in(lengths.data(), near, lists.size() * sizeof(std::int64_t));
    meet_ground(ground, all, weight, fixed, candidates, count, sums.data(), places.data(), room, lengths.data());
    add_to(gains, sums);
    copy_out(near, lengths.data(), static_cast<std::size_t>(count) * sizeof(std::int64_t));
  }

  void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                    std::int64_t* near, std::int64_t* gains) override {
    const auto count = static_cast<std::int64_t>(lists.size());
    if (count == 0) return;
    const Array<Near*> places(*this, lists);
    const Array<std::int64_t> lengths(*this, std::span<const std::int64_t>(near, lists.size()));
    const Array<unsigned long long> sums = zeros(count);
    launch(add_listed_gains, blocks(count, kWarps), places.data(), lengths.data(), count, best, weight, fixed,
           sums.data());
    copy_out(gains, sums.data(), static_cast<std::size_t>(count) * sizeof(std::int64_t));
  }

  void raise_listed(const Near* list, std::int64_t length, float* best) override {
    launch(raise_listed_rows, blocks(length, kThreads), list, length, best);
    finish();
  }

  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override {
    if (count == 0) return;
    expect(ground.type == Element::f32 && picks.type == Element::f32, "similarities are of float32 rows");
    launch(raise_rows, blocks(rows, kWarps * kTileRows), static_cast<const float*>(ground.data), rows,
           static_cast<const float*>(picks.data), count, ground.dim, best);
    finish();
  }

  void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                    std::int64_t* sums) override {
    expect(x.type == Element::f32, "weighted sums are of float32 rows");
    const Array<unsigned long long> device = zeros(x.dim);
    const dim3 columns = blocks(x.dim, kThreads), stripes = blocks(rows, 256);
    launch(add_weighted_rows, dim3(columns.x, std::min(stripes.x, 256u)), static_cast<const float*>(x.data), rows,
           x.dim, factor, fixed, device.data());
    add_to(sums, device);
  }

  void products(const Field& x, std::int64_t rows, const double* vector, double* out) override {
    expect(x.type == Element::f32, "products are of float32 rows");
    launch(products_of_rows, blocks(rows, kWarps), static_cast<const float*>(x.data), rows, x.dim, vector, out);
    finish();
  }

  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override {
    if (groups.size() < 2) return;
    expect(x.type == Element::f32, "second moments are of float32 rows");
    const std::int64_t dim = x.dim, count = static_cast<std::int64_t>(groups.size()) - 1;
    const Array<std::int64_t> borders(*this, groups);
    const Array<unsigned long long> device = zeros(dim * dim);
    const unsigned side = static_cast<unsigned>((dim + kGramSide - 1) / kGramSide);
    const unsigned stripes = static_cast<unsigned>(std::min<std::int64_t>(count, 64));
    enter();
    add_moments<<<dim3(side, side, stripes), dim3(kGramSide, kGramSide), 0, stream_>>>(
        static_cast<const float*>(x.data), dim, borders.data(), count, fixed, device.data());
    check(cudaGetLastError());
    const std::vector<unsigned long long> host = device.to_host();
    for (std::int64_t c = 0; c < dim; ++c)
      for (std::int64_t d = 0; d <= c; ++d)
        sums[c * dim + d] += static_cast<std::int64_t>(host[static_cast<std::size_t>(c * dim + d)]);
  }

 private:
  // Picks of float16 as float32, exactly: one kernel less per type of pick.
  Field wide_picks(const Field& x, std::int64_t rows, Array<float>& values) {
    if (x.type != Element::f16) return x;
    values = Array<float>(*this, rows * x.dim);
    launch(widen_values, blocks(rows * x.dim, kThreads), static_cast<const __half*>(x.data), rows * x.dim,
           values.data());
    return {values.data(), Element::f32, x.dim};
  }

  // The current device belongs to the calling thread, which need not be the one that created the backend.
  void enter() const { check(cudaSetDevice(device_)); }
  void finish() const { check(cudaStreamSynchronize(stream_)); }

  static void expect(bool holds, const char* invariant) {
    if (!holds) throw Error(Exit::bug, std::string("internal error: in the CUDA backend: ") + invariant);
  }

  // So many blocks that each has `each` of `count` to do, within what a grid holds: kernels stride.
  static dim3 blocks(std::int64_t count, std::int64_t each) {
    return dim3(static_cast<unsigned>(std::clamp<std::int64_t>((count + each - 1) / each, 1, 1 << 20)));
  }

  template <class... Takes, class... Given>
  void launch(void (*kernel)(Takes...), dim3 grid, const Given&... given) const {
    enter();
    kernel<<<grid, kThreads, 0, stream_>>>(given...);
    check(cudaGetLastError());
  }

  template <class Visit>
  static void with_elements(const Field& x, const Visit& visit) {
    expect(x.type != Element::f64, "rows are float32 or float16");
    if (x.type == Element::f16)
      visit(static_cast<const __half*>(x.data));
    else
      visit(static_cast<const float*>(x.data));
  }

  // Rows of a band, packed, meet candidates; see add_gains.
  void meet_ground(const Field& rows, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
                   std::int64_t count, unsigned long long* sums, Near* const* lists, std::int64_t room,
                   unsigned long long* near) {
    expect(rows.type == Element::f32 && candidates.type == Element::f32, "similarities are of float32 rows");
    if (band.count == 0) return;
    const dim3 grid = blocks(count, kGainGroups * kTilePicks);
    const dim3 stripes = blocks(band.count, kGainStripes * kTileRows);
    // Enough blocks to fill the device; more would only add atomics.
    const unsigned wanted = std::max(1u, static_cast<unsigned>(properties_.multiProcessorCount) * 8 / grid.x);
    launch(add_gains, dim3(grid.x, std::min(stripes.x, wanted)), static_cast<const float*>(rows.data), band, weight,
           fixed, static_cast<const float*>(candidates.data), count, rows.dim, sums, lists, room, near);
  }

  static void add_to(std::int64_t* out, const Array<unsigned long long>& sums) {
    const std::vector<unsigned long long> host = sums.to_host();
    for (std::size_t i = 0; i < host.size(); ++i) out[i] += static_cast<std::int64_t>(host[i]);
  }

  Array<unsigned long long> zeros(std::int64_t count) {
    Array<unsigned long long> array(*this, count);
    check(cudaMemsetAsync(array.data(), 0, static_cast<std::size_t>(count) * sizeof(unsigned long long), stream_));
    return array;
  }

  // `sort(scratch, bytes)` as CUB has it: asks for the bytes first, then sorts.
  template <class Sort>
  void sorted(const Sort& sort) {
    std::size_t bytes = 0;
    check(sort(nullptr, bytes));
    const Array<std::byte> scratch(*this, static_cast<std::int64_t>(bytes));
    check(sort(scratch.data(), bytes));
    finish();
  }

  // What the rows of a band have of `from`, one behind the other.
  template <class T>
  Array<T> packed(const T* from, std::int64_t units, const Band& band) {
    Array<T> to(*this, band.count * units);
    if (band.count > 0)
      launch(pack<T>, blocks(band.count * units, kThreads), from, units, band.rows, band.count, to.data());
    return to;
  }

  // The count-th largest of the ordered keys of selectable rows; 0 where there are fewer.
  std::uint64_t nth_largest(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) {
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

  std::vector<std::int64_t> smallest_rows_at(const double* key, const std::uint8_t* selectable,
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

  int device_;
  cudaDeviceProp properties_{};
  Stream stream_;
};

Backend* create(const BackendOptions& options) {
  return new CudaBackend(options);
}

constexpr CudaPlugin kPlugin{kPluginAbi, SEINE_VERSION, SEINE_CUDA_BUILD, create};

}  // namespace
}  // namespace seine

extern "C" __attribute__((visibility("default"))) const seine::CudaPlugin* seine_cuda_plugin() {
  return &seine::kPlugin;
}
