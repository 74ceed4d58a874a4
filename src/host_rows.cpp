#include "host_rows.hpp"

#include <immintrin.h>

#include <cmath>

#include "backend/cpu/row_kernel.hpp"

namespace seine {

void distances2(const float* row, const float* others, std::int64_t count, std::int64_t dim, float* out) {
  row_kernels().distances2(&row, 1, others, count, dim, out);
}

void wide_dots(const float* row, const double* others, std::int64_t count, std::int64_t dim, double* out) {
  row_kernels().wide_dots(&row, 1, others, count, dim, out);
}

double squared_norm(const float* row, std::int64_t dim, std::vector<double>& wide) {
  wide.assign(row, row + dim);
  double norm2 = 0;
  wide_dots(row, wide.data(), 1, dim, &norm2);
  return norm2;
}

void make_unit(float* row, std::int64_t dim, std::vector<double>& wide) {
  const double norm2 = squared_norm(row, dim, wide);
  if (!(norm2 > 0)) return;
  const double norm = std::sqrt(norm2);
  for (std::int64_t c = 0; c < dim; ++c) row[c] = static_cast<float>(wide[static_cast<std::size_t>(c)] / norm);
}

void widen(const void* half, std::int64_t count, float* out) {
  const auto* h = static_cast<const std::uint16_t*>(half);
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(h + i))));
  for (; i < count; ++i) out[i] = _cvtsh_ss(h[i]);
}

void narrow(const float* values, std::int64_t count, void* half) {
  auto* h = static_cast<std::uint16_t*>(half);
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(h + i), _mm256_cvtps_ph(_mm256_loadu_ps(values + i), 0));
  for (; i < count; ++i) h[i] = _cvtss_sh(values[i], 0);
}

}  // namespace seine
