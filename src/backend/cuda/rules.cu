// What picks do to rows: every rule meets every geometry here.
#include <thrust/iterator/counting_iterator.h>

#include <algorithm>
#include <cub/device/device_select.cuh>

#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/rules.cuh"

namespace seine {

constexpr std::int64_t kFewRows = 4096;  // a warp for each group of them does not fill a device

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
  const Array<unsigned long long> met = zeros(1);
  const Places places(states);
  // Where the device is busy anyway, only rows that are behind take part; few rows do not fill it, whichever they are.
  const bool all = rows.rows <= kFewRows;
  const Array<std::int32_t> list(*this, all ? 0 : std::min(rows.rows, kScratchRows));
  const Array<std::int64_t> length(*this, 1);
  for (std::int64_t first = 0; first < rows.rows; first += kScratchRows) {
    Active active{first, std::min(rows.rows - first, kScratchRows)};
    if (!all) {
      with_scratch([&](void* scratch, std::size_t& bytes) {
        return cub::DeviceSelect::If(scratch, bytes, thrust::counting_iterator<std::int32_t>(0), list.data(),
                                     length.data(), active.all, IsBehind{places, first, wide.vectors.rows, floor},
                                     stream_);
      });
      active.list = list.data();
      active.length = length.data();
    }
    with_rule(rule, [&](auto r) {
      using Rule = decltype(r);
      expect((wide.vectors.x.type == Element::f64) != Rule::uses_distance, "picks are of the rule's type");
      expect(!rows.outer() || Rule::uses_distance, "outer products have distances only");
      with_elements(rows.x, [&](const auto* x) {
        using X = std::remove_cvref_t<decltype(*x)>;
        launch(apply_picks<Rule, X>, apply_grid(active.all, properties_.multiProcessorCount), rows, active, wide, floor,
               places, met.data());
      });
    });
  }
  return static_cast<std::int64_t>(met.to_host()[0]);
}

void CudaBackend::compare(const Field& picks, std::int64_t first, std::int64_t last, float* between,
                          std::int64_t stride) {
  Array<float> values;
  const Field wide = wide_picks(picks, last, values);
  launch(compare_picks, blocks(last, kWarps * kWarpRows), static_cast<const float*>(wide.data), wide.dim, first, last,
         between, stride);
  finish();
}

}  // namespace seine
