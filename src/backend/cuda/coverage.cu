// Facility location: similarities of ground rows and candidates.
#include <algorithm>

#include "backend/cuda/coverage.cuh"
#include "backend/cuda/cuda_backend.cuh"

namespace seine {

namespace {

void expect_float32(const Field& ground, const Field& others) {
  expect(ground.type == Element::f32 && others.type == Element::f32, "similarities are of float32 rows");
}

}  // namespace

// One call of gains or first_gains.
class CudaBackend::Gaining {
 public:
  Gaining(CudaBackend& on, FixedPoint fixed, const Field& candidates, std::int64_t count)
      : on_(on), fixed_(fixed), candidates_(candidates), count_(count), sums_(on.zeros(count)), met_(on.zeros(1)) {}

  // Rows of a band, one behind the other but for meet_packed.
  struct Ground {
    Field rows;
    Band band;
    const double* weight;

    Ground from(std::int64_t first, std::int64_t most) const {
      const Band& b = band;
      return {rows.from(first),
              {std::min(b.count - first, most), nullptr, b.above + first, b.below ? b.below + first : nullptr,
               b.first + first},
              weight ? weight + first : nullptr};
    }
  };

  template <ChosenRows Chosen>
  void meet(const Ground& ground, const Chosen& chosen) {
    if (ground.band.count == 0) return;
    on_.launch(add_gains<Chosen>,
               gain_grid(count_, ground.band.count, on_.properties_.multiProcessorCount, Chosen::kStep),
               static_cast<const float*>(ground.rows.data), ground.band, ground.weight, fixed_,
               static_cast<const float*>(candidates_.data), count_, candidates_.dim, chosen, sums_.data(),
               lists_.empty() ? nullptr : lists_.data(), room_, near_.empty() ? nullptr : near_.data(), met_.data());
  }

  // The same of a band whose rows lie anywhere: packed, some at a time.
  void meet_packed(const Ground& ground) {
    const Band& b = ground.band;
    const std::int64_t row_bytes = static_cast<std::int64_t>(ground.rows.row_bytes());
    const std::int64_t at_once = std::min(std::max<std::int64_t>(kPackedBytes / row_bytes, 1), b.count);
    const Array<float> rows(on_, at_once * ground.rows.dim);
    Array<double> weights;
    if (ground.weight) weights = Array<double>(on_, at_once);
    for (std::int64_t first = 0; first < b.count; first += at_once) {
      const std::int64_t count = std::min(at_once, b.count - first);
      on_.move_items(ground.rows.data, ground.rows.row_bytes(), b.rows + first, count, rows.data());
      if (ground.weight) on_.move_items(ground.weight, sizeof(double), b.rows + first, count, weights.data());
      const Field packed{rows.data(), ground.rows.type, ground.rows.dim};
      meet({packed, {count, nullptr, b.above + first, b.below ? b.below + first : nullptr}, weights.data()},
           EveryRow{});
    }
  }

  // The same with lists.
  void meet_first(const Ground& ground, std::span<Near* const> lists, std::int64_t room, std::int64_t* near) {
    lists_ = Array<Near*>(on_, lists);
    room_ = room;
    near_ = Array<unsigned long long>(on_, count_);
    on_.copy_in(near_.data(), near, lists.size() * sizeof(std::int64_t));
    const std::int64_t all = ground.band.count, done = meet_near(ground);
    if (done < all) meet(ground.from(done, all), EveryRow{});
    on_.copy_out(near, near_.data(), lists.size() * sizeof(std::int64_t));
  }

  void add_to(std::int64_t* gains) const { CudaBackend::add_to(gains, sums_); }
  std::int64_t pairs_met() const { return static_cast<std::int64_t>(met_.to_host()[0]); }

 private:
  // Rows of which products say that candidates may add to them; only the first slice where that spares less than half
  // of its pairs. How many rows were looked at.
  std::int64_t meet_near(const Ground& ground) {
    const std::int64_t all = ground.band.count, dim = candidates_.dim;
    if (!on_.cublas_ || !filter_pays(all, count_, dim)) return 0;
    const std::int64_t at_once = std::min(filter_rows(0, count_), all);
    const Array<float> products(on_, at_once * count_);
    for (std::int64_t first = 0; first < all; first += at_once) {
      if (first == at_once && 2 * pairs_met() > at_once * count_) return first;
      const Ground some = ground.from(first, at_once);
      on_.cublas_->multiply(some.rows, some.band.count, candidates_, count_, products.data());
      meet(some, NearRows{count_, products.data(), similarity_slack(dim)});
    }
    return all;
  }

  CudaBackend& on_;
  const FixedPoint fixed_;
  const Field& candidates_;
  const std::int64_t count_;
  Array<unsigned long long> sums_;
  Array<unsigned long long> met_;  // counts the pairs that did
  Array<Near*> lists_;
  std::int64_t room_ = 0;
  Array<unsigned long long> near_;  // lengths of the lists
};

void CudaBackend::gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed,
                        const Field& candidates, std::int64_t count, std::int64_t* gains) {
  if (count == 0) return;
  expect_float32(ground, candidates);
  Gaining gaining(*this, fixed, candidates, count);
  if (band.rows)
    gaining.meet_packed({ground, band, weight});
  else
    gaining.meet({ground, band, weight}, EveryRow{});
  gaining.add_to(gains);
}

std::int64_t CudaBackend::first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                                      const Field& candidates, const ShadowFields&, std::span<Near* const> lists,
                                      std::int64_t room, std::int64_t* gains, std::int64_t* near) {
  if (lists.empty()) return 0;
  expect_float32(ground, candidates);
  Gaining gaining(*this, fixed, candidates, static_cast<std::int64_t>(lists.size()));
  gaining.meet_first({ground, all, weight}, lists, room, near);
  gaining.add_to(gains);
  return gaining.pairs_met();
}

void CudaBackend::listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                               std::int64_t* near, std::int64_t* gains) {
  const auto count = static_cast<std::int64_t>(lists.size());
  if (count == 0) return;
  const Array<Near*> places(*this, lists);
  const Array<std::int64_t> lengths(*this, std::span<const std::int64_t>(near, lists.size()));
  const Array<unsigned long long> sums = zeros(count);
  launch(add_listed_gains, blocks(count, kWarps), places.data(), lengths.data(), count, best, weight, fixed,
         sums.data());
  copy_out(gains, sums.data(), static_cast<std::size_t>(count) * sizeof(std::int64_t));
}

void CudaBackend::raise_listed(const Near* list, std::int64_t length, float* best) {
  launch(raise_listed_rows, blocks(length, kThreads), list, length, best);
  finish();
}

void CudaBackend::raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) {
  if (count == 0) return;
  expect_float32(ground, picks);
  launch(raise_rows, blocks(rows, kWarps * kWarpRows), static_cast<const float*>(ground.data), rows,
         static_cast<const float*>(picks.data), count, ground.dim, best);
  finish();
}

}  // namespace seine
