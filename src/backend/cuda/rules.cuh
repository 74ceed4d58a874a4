// What picks do to rows: every rule meets every geometry here. Kernels of rules.cu.
#pragma once

#include "backend/cuda/filter.cuh"
#include "backend/places.hpp"

namespace seine {
namespace {

// A thread owns a row. Bytes per row: state and key, 8 of what came before, 8 of its number, 4 and 8 where it counts
// picks and has a weight. Flops: a race draws a clock, a logarithm of about 30.
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

// The rows of a launch: all, or those of a list, counted from `first`; how many they are may be known on the device
// only.
struct Active {
  std::int64_t first, all;
  const std::int32_t* list = nullptr;
  const std::int64_t* length = nullptr;

  __device__ std::int64_t size() const { return length ? *length : all; }
  __device__ std::int64_t operator[](std::int64_t i) const { return first + (list ? list[i] : i); }
};

struct IsBehind {
  Places places;
  std::int64_t first, picks;
  double floor;

  __device__ bool operator()(std::int32_t row) const { return places.is_behind(first + row, picks, floor); }
};

// How many pairs of row and pick have yet to meet, and the most of a row. A thread owns a row. Bytes per row: 4 of its
// number and 4 of the picks it has seen.
__global__ void measure_lag(Active active, Places places, std::int64_t picks, unsigned long long* pairs,
                            unsigned long long* longest) {
  std::int64_t sum = 0, most = 0;
  for (std::int64_t i = thread_of_grid(); i < active.size(); i += threads_of_grid()) {
    const std::int64_t lag = picks - places.seen(active[i]);
    sum += lag;
    most = lag > most ? lag : most;
  }
  sum = sum_of_warp(sum);
  most = largest_of_warp(most);
  if (lane_of_warp() != 0 || sum == 0) return;
  atomicAdd(pairs, static_cast<unsigned long long>(sum));
  atomicMax(longest, static_cast<unsigned long long>(most));
}

// Rows one behind the other, as matrix products want them, and their squared norms. A warp owns a row. Bytes per row:
// its vector twice, and 8; flops: a fused operation in float64 per component.
template <class X>
__global__ void pack_rows(const X* x, Active active, std::int64_t dim, X* packed, double* norms2) {
  for (std::int64_t i = warp_of_grid(); i < active.size(); i += warps_of_grid()) {
    const X* row = x + active[i] * dim;
    for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes) packed[i * dim + c] = row[c];
    const double norm2 = squared_norm(row, dim);
    if (lane_of_warp() == 0) norms2[i] = norm2;
  }
}

// Interactions of a tile with the picks that were chosen at `at`. A lane gets that of its own `row` and `pick`.
template <class Rule, class X, class Chosen>
__device__ inline double interaction(const Vectors& rows, std::int64_t row, const Vectors& picks, std::int64_t at,
                                     std::int64_t pick) {
  const std::int64_t dim = rows.x.dim;
  const TileRows<X> x = rows_of_lanes(static_cast<const X*>(rows.x.data), row, dim);
  const auto chosen = [&](const auto* y, std::int64_t width) {
    return Chosen::vectors(y, picks.rows, at, pick, width);
  };
  if constexpr (!Rule::uses_distance) {
    return tile<Product>(x, chosen(static_cast<const double*>(picks.x.data), dim), dim);
  } else {
    const float ex = tile<SquaredDifference>(x, chosen(static_cast<const float*>(picks.x.data), dim), dim);
    const std::int64_t classes = Chosen::kAlsoOuter ? rows.a.dim : 0;
    if (classes == 0) return ex;
    const TileRows<float> a = rows_of_lanes(static_cast<const float*>(rows.a.data), row, classes);
    const float ea = tile<SquaredDifference>(a, chosen(static_cast<const float*>(picks.a.data), classes), classes);
    return outer_distance2(rows.a2[row], rows.x2[row], picks.a2[pick], picks.x2[pick], ea, ex);
  }
}

// A warp owns kWarpRows rows for all picks; the kTilePicks lanes of a row hold its state and apply the same picks to
// it, in order, until it falls below the floor. Bytes per row: its vectors once per kTilePicks picks that it meets (the
// first time from memory, then from the caches if they hold it), state and key once; picks come from the caches. Flops
// per row and pick: 3 per component (2 for products).
template <class Rule, class X, class Chosen>
__global__ void __launch_bounds__(kThreads) apply_picks(Vectors rows, Active active, Picks picks, Chosen of_launch,
                                                        double floor, Places places, unsigned long long* met) {
  const int lane = lane_of_warp();
  const std::int64_t count = picks.vectors.rows, total = active.size();
  std::int64_t pairs = 0;
  for (std::int64_t first = warp_of_grid() * kWarpRows; first < total; first += warps_of_grid() * kWarpRows) {
    const bool is_there = first + lane / kTilePicks < total;
    const std::int64_t place = is_there ? first + lane / kTilePicks : total - 1, row = active[place];
    double key = is_there ? places.key(row) : NAN;
    const std::int64_t applied = places.seen(row), before = applied < of_launch.first ? of_launch.first : applied;
    std::int64_t seen = before, met_here = 0, at = key >= floor ? seen : count;
    for (int other = kLanes / 2; other >= kTilePicks; other /= 2) {
      const std::int64_t theirs = __shfl_xor_sync(kWholeWarp, at, other);
      at = theirs < at ? theirs : at;
    }
    if (at >= count) continue;
    const double weight = places.weight(row);
    typename Rule::State state = places.template state<Rule>(row);
    Chosen chosen = of_launch;
    while (at < count && __any_sync(kWholeWarp, key >= floor && seen < count)) {
      const bool takes_part = key >= floor;
      const auto matters = [&](std::int64_t pick, double distance2) {
        if constexpr (Rule::uses_distance) return takes_part && pick >= seen && !(distance2 >= state.distance2);
        return true;
      };
      const std::int64_t here = at;
      std::int64_t pick = at;
      const int many = chosen.choose(at, count, place, matters, pick);
      const double mine = many > 0 ? interaction<Rule, X, Chosen>(rows, row, picks.vectors, here, pick) : 0;
      for (int p = 0; p < many; ++p) {
        const double value = __shfl_sync(kWholeWarp, mine, p, kTilePicks);
        const std::int64_t ordinal = Chosen::number(here, pick, p);
        if (!takes_part || ordinal < seen) continue;
        Rule::apply(state, weight, value, picks.moments ? picks.moments[ordinal] : 0,
                    static_cast<std::uint32_t>(ordinal));
        ++met_here;
      }
      if (takes_part) key = Rule::key(state, weight);
      if (takes_part && seen < at) seen = at;
    }
    if (!is_there || lane % kTilePicks != 0 || seen == before) continue;
    places.template settle<Rule>(row, state, seen);
    pairs += met_here;
  }
  pairs = sum_of_warp(pairs);
  if (lane == 0 && pairs > 0) atomicAdd(met, static_cast<unsigned long long>(pairs));
}

// A warp owns kWarpRows picks for all later ones in [first, last). Bytes and flops as apply_picks.
__global__ void __launch_bounds__(kThreads) compare_picks(const float* picks, std::int64_t dim, std::int64_t first,
                                                          std::int64_t last, float* between, std::int64_t stride) {
  const int lane = lane_of_warp();
  for (std::int64_t a = warp_of_grid() * kWarpRows; a < last; a += warps_of_grid() * kWarpRows) {
    const TileRows<float> rows = neighbours(picks + a * dim, last - a, dim);
    for (std::int64_t b = a > first ? a : first; b < last; b += kTilePicks) {
      const float distance2 =
          tile<SquaredDifference>(rows, neighbours<kTilePicks>(picks + b * dim, last - b, dim), dim);
      const std::int64_t row = a + lane / kTilePicks, pick = b + lane % kTilePicks;
      if (row < last && pick < last) between[row * stride + pick] = distance2;
    }
  }
}

}  // namespace
}  // namespace seine
