// What picks do to rows: every rule meets every geometry here.
#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/warp.cuh"

namespace seine {
namespace {

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

}  // namespace

void CudaBackend::start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) {
  with_rule(rule, [&](auto r) { launch(start_rows<decltype(r)>, blocks(rows, kThreads), how, rows, states); });
  finish();
}

std::int64_t CudaBackend::apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                                const RowStates& states) {
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

void CudaBackend::compare(const Field& picks, std::int64_t first, std::int64_t last, float* between,
                          std::int64_t stride) {
  Array<float> values;
  const Field wide = wide_picks(picks, last, values);
  launch(compare_picks, blocks(last, kWarps * kTileRows), static_cast<const float*>(wide.data), wide.dim, first, last,
         between, stride);
  finish();
}

}  // namespace seine
