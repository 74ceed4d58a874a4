// One value per row, and rows as float32.
#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/rows.cuh"

namespace seine {

void CudaBackend::unit_rows(float* x, std::int64_t rows, std::int64_t dim) {
  launch(make_unit_rows, blocks(rows, kWarps), x, rows, dim);
  finish();
}

void CudaBackend::squared_norms(const Field& x, std::int64_t rows, double* out) {
  with_elements(x, [&](const auto* values) {
    using X = std::remove_cvref_t<decltype(*values)>;
    launch(squared_norms_of_rows<X>, blocks(rows, kWarps), values, rows, x.dim, out);
  });
  finish();
}

Field CudaBackend::wide_rows(const Field& x, std::int64_t rows, Array<float>& values) {
  if (x.type != Element::f16) return x;
  values = Array<float>(*this, rows * x.dim);
  launch(widen_values, blocks(rows * x.dim, kThreads), static_cast<const __half*>(x.data), rows * x.dim, values.data());
  return {values.data(), Element::f32, x.dim};
}

}  // namespace seine
