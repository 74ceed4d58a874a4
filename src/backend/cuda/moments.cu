// Sums over rows, in fixed point.
#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/moments.cuh"

namespace seine {

void CudaBackend::weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                               std::int64_t* sums) {
  expect(x.type == Element::f32, "weighted sums are of float32 rows");
  const Array<unsigned long long> device = zeros(x.dim);
  launch(add_weighted_sum, sum_grid(x.dim, rows), static_cast<const float*>(x.data), rows, x.dim, factor, fixed,
         device.data());
  add_to(sums, device);
}

void CudaBackend::products(const Field& x, std::int64_t rows, const double* vector, double* out) {
  expect(x.type == Element::f32, "products are of float32 rows");
  launch(products_of_rows, blocks(rows, kWarps), static_cast<const float*>(x.data), rows, x.dim, vector, out);
  finish();
}

void CudaBackend::gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) {
  if (groups.size() < 2) return;
  expect(x.type == Element::f32, "second moments are of float32 rows");
  const std::int64_t dim = x.dim, count = static_cast<std::int64_t>(groups.size()) - 1;
  const Array<std::int64_t> borders(*this, groups);
  const Array<unsigned long long> device = zeros(dim * dim);
  launch_blocks_of(dim3(kGramSide, kGramSide), add_gram, gram_grid(dim, count), static_cast<const float*>(x.data), dim,
                   borders.data(), count, fixed, device.data());
  const std::vector<unsigned long long> host = device.to_host();
  for (std::int64_t c = 0; c < dim; ++c)
    for (std::int64_t d = 0; d <= c; ++d)
      sums[c * dim + d] += static_cast<std::int64_t>(host[static_cast<std::size_t>(c * dim + d)]);
}

}  // namespace seine
