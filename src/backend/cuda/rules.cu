// What picks do to rows: every rule meets every geometry here.
#include <thrust/iterator/counting_iterator.h>

#include <algorithm>
#include <cub/device/device_select.cuh>

#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/rules.cuh"

namespace seine {

constexpr std::int64_t kFewRows = 4096;  // a warp for each group of them does not fill a device

void CudaBackend::start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) {
  with_rule(rule, [&](auto r) { launch(start_rows<decltype(r)>, blocks(rows, kThreads), how, rows, Places(states)); });
  finish();
}

// One call of apply.
class CudaBackend::Applying {
 public:
  Applying(CudaBackend& on, RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
           const RowStates& states)
      : on_(on),
        rule_(rule),
        rows_(rows),
        picks_(picks),
        picks_x_(picks.vectors.x),
        floor_(floor),
        places_(states),
        met_(on.zeros(1)) {
    picks_.vectors.x = on.wide_rows(picks_x_, total(), wide_);
  }

  // Where the device is busy anyway, only rows that are behind take part; few rows do not fill it, whichever they are.
  std::int64_t run() {
    if (rows_.rows <= kFewRows) {
      meet({0, rows_.rows}, total(), EveryPick{});
    } else {
      list_ = Array<std::int32_t>(on_, std::min(rows_.rows, kScratchRows));
      length_ = Array<std::int64_t>(on_, 1);
      for (std::int64_t first = 0; first < rows_.rows; first += kScratchRows)
        meet_slice({first, std::min(rows_.rows - first, kScratchRows)});
    }
    return static_cast<std::int64_t>(met_.to_host()[0]);
  }

 private:
  std::int64_t total() const { return picks_.vectors.rows; }
  // Those of a slice that have not seen the first `picks` picks. Bytes per row: 12 of its key and the picks it has
  // seen, 8 of the place of its state where that is elsewhere, and 4 written where it is behind.
  LaunchRows behind(const LaunchRows& slice, std::int64_t picks) {
    on_.with_scratch([&](void* scratch, std::size_t& bytes) {
      return cub::DeviceSelect::If(scratch, bytes, thrust::counting_iterator<std::int32_t>(0), list_.data(),
                                   length_.data(), slice.all, IsBehind{places_, slice.first, picks, floor_},
                                   on_.stream_);
    });
    return {slice.first, slice.all, list_.data(), length_.data()};
  }

  void meet_slice(const LaunchRows& slice) {
    const LaunchRows all = behind(slice, total());
    const std::int64_t longest = can_filter() && pays(slice.all, total()) ? longest_lag(all) : 0;
    if (longest == 0) return meet(all, total(), EveryPick{});
    // In blocks of picks, so that rows drop out between them.
    std::int64_t first = total() - longest;
    while (first < total()) {
      const std::int64_t last = std::min(first + kFilterPicks, total());
      LaunchRows block = behind(slice, last);
      block.all = length_.to_host()[0];
      block.length = nullptr;
      if (pays(block.all, last - first))
        meet_near(block, first, last);
      else
        meet(block, last, EveryPick{first});
      first = last;
    }
  }

  bool can_filter() const {
    return on_.cublas_ && rule_ != RuleKind::variance && !rows_.outer() && picks_x_.type == rows_.x.type;
  }
  bool pays(std::int64_t rows, std::int64_t picks) const {
    return filter_pays(rows, std::min(picks, kFilterPicks), rows_.x.dim);
  }

  // By how many picks a row is behind, at most; 0 where blocks of them would have too few rows to pay.
  std::int64_t longest_lag(const LaunchRows& active) {
    const Array<unsigned long long> lag = on_.zeros(2);
    on_.launch(measure_lag, blocks(active.all, 16 * kThreads), active, places_, total(), lag.data(), lag.data() + 1);
    const std::vector<unsigned long long> host = lag.to_host();
    const auto pairs = static_cast<std::int64_t>(host[0]), longest = static_cast<std::int64_t>(host[1]);
    return longest > 0 && pays(pairs / longest, longest) ? longest : 0;
  }

  // Rows of a list meet the picks [first, last) of which products say that they may be near enough.
  void meet_near(const LaunchRows& active, std::int64_t first, std::int64_t last) {
    const Field& x = rows_.x;
    const std::int64_t width = last - first, dim = x.dim;
    const std::int64_t at_once = std::min(filter_rows(static_cast<std::int64_t>(x.row_bytes()), width), active.all);
    if (pick_norms2_.empty()) {
      pick_norms2_ = Array<double>(on_, total());
      on_.squared_norms(picks_x_, total(), pick_norms2_.data());
    }
    const Array<std::byte> packed(on_, at_once * static_cast<std::int64_t>(x.row_bytes()));
    const Array<double> norms2(on_, at_once);
    const Array<float> products(on_, at_once * width);
    for (std::int64_t at = 0; at < active.all; at += at_once) {
      const LaunchRows some{active.first, std::min(active.all - at, at_once), active.list + at};
      with_elements(x, [&](const auto* rows) {
        using X = std::remove_cvref_t<decltype(*rows)>;
        on_.launch(pack_rows<X>, blocks(some.all, kWarps), rows, some, dim, reinterpret_cast<X*>(packed.data()),
                   norms2.data());
      });
      on_.cublas_->multiply({packed.data(), x.type, dim}, some.all, picks_x_.from(first), width, products.data());
      meet(some, last,
           NearPicks{first, width, products.data(), norms2.data(), pick_norms2_.data() + first,
                     DistanceBound(x.type, dim)});
    }
  }

  // Those of the first `count` picks that are chosen.
  template <ChosenPicks Chosen>
  void meet(const LaunchRows& active, std::int64_t count, const Chosen& chosen) {
    Picks picks = picks_;
    picks.vectors.rows = count;
    with_rule(rule_, [&](auto r) {
      using Rule = decltype(r);
      expect((picks.vectors.x.type == Element::f64) != Rule::uses_distance, "picks are of the rule's type");
      expect(!rows_.outer() || Rule::uses_distance, "outer products have distances only");
      if constexpr (Rule::uses_distance || std::is_same_v<Chosen, EveryPick>)
        with_elements(rows_.x, [&](const auto* x) {
          using X = std::remove_cvref_t<decltype(*x)>;
          on_.launch(apply_picks<Rule, X, Chosen>, apply_grid(active.all, on_.properties_.multiProcessorCount), rows_,
                     active, picks, chosen, floor_, places_, met_.data());
        });
    });
  }

  CudaBackend& on_;
  const RuleKind rule_;
  const Vectors& rows_;
  Picks picks_;          // as float32
  const Field picks_x_;  // as they came
  const double floor_;
  const Places places_;
  Array<unsigned long long> met_;
  Array<float> wide_;
  Array<std::int32_t> list_;
  Array<std::int64_t> length_;
  Array<double> pick_norms2_;
};

std::int64_t CudaBackend::apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                                const RowStates& states) {
  return picks.vectors.rows == 0 ? 0 : Applying(*this, rule, rows, picks, floor, states).run();
}

}  // namespace seine
