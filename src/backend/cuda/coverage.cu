// Facility location: similarities of ground rows and candidates.
#include "backend/cuda/coverage.cuh"
#include "backend/cuda/cuda_backend.cuh"

namespace seine {

void CudaBackend::gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed,
                        const Field& candidates, std::int64_t count, std::int64_t* gains) {
  if (count == 0) return;
  const auto* rows = static_cast<const float*>(ground.data);
  Array<float> some;  // the rows of the band and their weights, one behind the other
  Array<double> weights;
  if (band.rows) {
    some = Array<float>(*this, band.count * ground.dim);
    move_items(ground.data, ground.row_bytes(), band.rows, band.count, some.data());
    rows = some.data();
    if (weight) {
      weights = Array<double>(*this, band.count);
      move_items(weight, sizeof(double), band.rows, band.count, weights.data());
      weight = weights.data();
    }
  }
  const Array<unsigned long long> sums = zeros(count);
  meet_ground({rows, ground.type, ground.dim}, band, weight, fixed, candidates, count, sums.data(), nullptr, 0,
              nullptr);
  add_to(gains, sums);
}

void CudaBackend::first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                              const Field& candidates, const ShadowFields&, std::span<Near* const> lists,
                              std::int64_t room, std::int64_t* gains, std::int64_t* near) {
  const auto count = static_cast<std::int64_t>(lists.size());
  if (count == 0) return;
  const Array<Near*> places(*this, lists);
  const Array<unsigned long long> sums = zeros(count), lengths(*this, count);
  copy_in(lengths.data(), near, lists.size() * sizeof(std::int64_t));
  meet_ground(ground, all, weight, fixed, candidates, count, sums.data(), places.data(), room, lengths.data());
  add_to(gains, sums);
  copy_out(near, lengths.data(), static_cast<std::size_t>(count) * sizeof(std::int64_t));
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
  expect(ground.type == Element::f32 && picks.type == Element::f32, "similarities are of float32 rows");
  launch(raise_rows, blocks(rows, kWarps * kWarpRows), static_cast<const float*>(ground.data), rows,
         static_cast<const float*>(picks.data), count, ground.dim, best);
  finish();
}

// Rows of a band, packed, meet candidates; see add_gains.
void CudaBackend::meet_ground(const Field& rows, const Band& band, const double* weight, FixedPoint fixed,
                              const Field& candidates, std::int64_t count, unsigned long long* sums, Near* const* lists,
                              std::int64_t room, unsigned long long* near) {
  expect(rows.type == Element::f32 && candidates.type == Element::f32, "similarities are of float32 rows");
  if (band.count == 0) return;
  launch(add_gains, gain_grid(count, band.count, properties_.multiProcessorCount), static_cast<const float*>(rows.data),
         band, weight, fixed, static_cast<const float*>(candidates.data), count, rows.dim, sums, lists, room, near);
}

}  // namespace seine
