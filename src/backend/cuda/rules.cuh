// What picks do to rows: every rule meets every geometry here. Kernels of rules.cu.
#pragma once

#include "backend/cuda/filter.cuh"
#include "backend/places.hpp"

namespace seine {
namespace {

// A thread owns a row. Bytes per row: state and key, 8 of what came before, 8 of its number, 4 and 8 where it counts
// picks and has a weight. Flops: a race draws a clock, a logarithm of about 30.
template <class Rule>
__global__ void start_rows(Start how, std::int64_t rows, Places places) {
  for (std::int64_t i = thread_of_grid(); i < rows; i += threads_of_grid()) places.start<Rule>(i, how);
}

// The rows of a launch: all, or those of a list, counted from `first`; how many they are may be known on the device
// only.
struct LaunchRows {
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
__global__ void measure_lag(LaunchRows active, Places places, std::int64_t picks, unsigned long long* pairs,
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
__global__ void pack_rows(const X* x, LaunchRows active, std::int64_t dim, X* packed, double* norms2) {
  for (std::int64_t i = warp_of_grid(); i < active.size(); i += warps_of_grid()) {
    const X* row = x + active[i] * dim;
    for (std::int64_t c = lane_of_warp(); c < dim; c += kLanes) packed[i * dim + c] = row[c];
    const double norm2 = squared_norm(row, dim);
    if (lane_of_warp() == 0) norms2[i] = norm2;
  }
}

// Interactions of a tile with the picks that were chosen at `at`. A lane gets that of its own `row` and `pick`.
template <class Rule, class X, ChosenPicks Chosen>
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

// A row that the lanes of its tile bring up to date, each the same.
template <class Rule>
struct RowInHand {
  std::int64_t row;
  std::int64_t before, seen, met = 0;  // picks that it had seen, has seen, and met
  double key, weight = 1;
  typename Rule::State state = {};

  // Picks before `first` were met earlier, by whoever counts them. A row that is not there takes no part.
  __device__ RowInHand(const Places& places, std::int64_t row_, std::int64_t first, bool is_there)
      : row(row_), before(places.seen(row)), key(is_there ? places.key(row) : NAN) {
    if (before < first) before = first;
    seen = before;
  }
  __device__ void load(const Places& places) {
    weight = places.weight(row);
    state = places.template state<Rule>(row);
  }
  __device__ bool would_notice(std::int64_t pick, double distance2) const {
    if constexpr (Rule::uses_distance) return pick >= seen && !(distance2 >= state.distance2);
    return true;
  }
  __device__ void meet(std::int64_t pick, double value, const double* moments) {
    if (pick < seen) return;
    Rule::apply(state, weight, value, moments ? moments[pick] : 0, static_cast<std::uint32_t>(pick));
    ++met;
  }
  // It has met all picks before `at` that it would notice.
  __device__ void conclude(std::int64_t at) {
    key = Rule::key(state, weight);
    if (seen < at) seen = at;
  }
};

// A warp owns kWarpRows rows for all picks; the kTilePicks lanes of a row hold its state and apply the same picks to
// it, in order, until it falls below the floor. Bytes per row: its vectors once per kTilePicks picks that it meets (the
// first time from memory, then from the caches if they hold it), state and key once; picks come from the caches. Flops
// per row and pick: 3 per component (2 for products).
template <class Rule, class X, ChosenPicks Chosen>
__global__ void __launch_bounds__(kThreads) apply_picks(Vectors rows, LaunchRows active, Picks picks, Chosen of_launch,
                                                        double floor, Places places, unsigned long long* met) {
  const int lane = lane_of_warp();
  const std::int64_t count = picks.vectors.rows, total = active.size();
  std::int64_t pairs = 0;
  for (std::int64_t first = warp_of_grid() * kWarpRows; first < total; first += warps_of_grid() * kWarpRows) {
    const bool is_there = first + lane / kTilePicks < total;
    const std::int64_t place = is_there ? first + lane / kTilePicks : total - 1;
    RowInHand<Rule> mine(places, active[place], of_launch.first, is_there);
    std::int64_t at = -largest_of_warp(mine.key >= floor ? -mine.seen : -count);
    if (at >= count) continue;
    mine.load(places);
    Chosen chosen = of_launch;
    while (at < count && __any_sync(kWholeWarp, mine.key >= floor && mine.seen < count)) {
      const bool takes_part = mine.key >= floor;
      const auto matters = [&](std::int64_t p, double distance2) {
        return takes_part && mine.would_notice(p, distance2);
      };
      const std::int64_t here = at;
      std::int64_t pick = at;
      const int many = chosen.choose(at, count, place, matters, pick);
      const double of_lane = many > 0 ? interaction<Rule, X, Chosen>(rows, mine.row, picks.vectors, here, pick) : 0;
      for (int p = 0; p < many; ++p) {
        const double value = __shfl_sync(kWholeWarp, of_lane, p, kTilePicks);
        const std::int64_t number = Chosen::number(here, pick, p);
        if (takes_part) mine.meet(number, value, picks.moments);
      }
      if (takes_part) mine.conclude(at);
    }
    if (lane % kTilePicks != 0 || mine.seen == mine.before) continue;
    places.template settle<Rule>(mine.row, mine.state, mine.seen);
    pairs += mine.met;
  }
  pairs = sum_of_warp(pairs);
  if (lane == 0 && pairs > 0) atomicAdd(met, static_cast<unsigned long long>(pairs));
}

}  // namespace
}  // namespace seine
