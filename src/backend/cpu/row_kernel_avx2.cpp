// The row kernels on AVX2, the floor of every processor that we run on.
#include <immintrin.h>

#include "avx2_mask.hpp"
#include "backend/cpu/row_kernel_blocks.hpp"

namespace seine {
namespace {

struct Float8 {
  using Value = float;
  using Register = __m256;
  static constexpr int kWidth = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const float* p) { return _mm256_loadu_ps(p); }
  static Register load(const float* p, int lanes) { return _mm256_maskload_ps(p, mask_of(lanes)); }
  static Register broadcast(const float* p) { return _mm256_broadcast_ss(p); }
  static void store(float* p, Register r) { _mm256_storeu_ps(p, r); }
  static Register fma(Register x, Register y, Register z) { return _mm256_fmadd_ps(x, y, z); }
  static Register add(Register x, Register y) { return _mm256_add_ps(x, y); }
  static Register subtract(Register x, Register y) { return _mm256_sub_ps(x, y); }
  static float fold(Register r) {
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
  }
  // Halves of registers change places so that one addition folds two registers.
  static void fold(const Register (&r)[4], float* out) {
    for (int p = 0; p < 4; p += 2) {
      Register v = add(_mm256_permute2f128_ps(r[p], r[p + 1], 0x20), _mm256_permute2f128_ps(r[p], r[p + 1], 0x31));
      v = add(v, _mm256_permute_ps(v, 0x4e));
      v = add(v, _mm256_permute_ps(v, 0xb1));
      out[p] = _mm256_cvtss_f32(v);
      out[p + 1] = _mm_cvtss_f32(_mm256_extractf128_ps(v, 1));
    }
  }
};

struct Double4 {
  using Value = double;
  using Register = __m256d;
  static constexpr int kWidth = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Register load(const double* p) { return _mm256_loadu_pd(p); }
  static Register load(const double* p, int lanes) { return _mm256_maskload_pd(p, mask_of(2 * lanes)); }
  static Register load(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static Register load(const float* p, int lanes) {
    return _mm256_cvtps_pd(_mm_maskload_ps(p, _mm256_castsi256_si128(mask_of(lanes))));
  }
  static Register fma(Register x, Register y, Register z) { return _mm256_fmadd_pd(x, y, z); }
  static Register add(Register x, Register y) { return _mm256_add_pd(x, y); }
  static double fold(Register r) {
    const __m128d v = _mm_add_pd(_mm256_castpd256_pd128(r), _mm256_extractf128_pd(r, 1));
    return _mm_cvtsd_f64(_mm_add_sd(v, _mm_unpackhi_pd(v, v)));
  }
  static void fold(const Register (&r)[4], double* out) {
    for (int p = 0; p < 4; ++p) out[p] = fold(r[p]);
  }
};

}  // namespace

const RowKernels& row_kernels_avx2() {
  static constexpr RowKernels kKernels{"AVX2",
                                       meet<SquaredDifference, Float8, 2, 4, float, const float*>,
                                       meet<SquaredDifference, Float8, 2, 4, float, const float* const*>,
                                       meet<Product, Float8, 2, 4, float, const float*>,
                                       meet_panels<Float8, Order::canonical>,
                                       meet_panels<Float8, Order::of_components>,
                                       meet<Product, Double4, 2, 4, float, const double*>};
  return kKernels;
}

const RowKernels& row_kernels() {
  static const RowKernels* const kBest = row_kernels_avx512() ? row_kernels_avx512() : &row_kernels_avx2();
  return *kBest;
}

void to_panels(const float* const* rows, std::int64_t count, std::int64_t dim, float* panels) {
  const auto place = [&](std::int64_t r, std::int64_t c) {
    return panels + (r / kPanelRows * dim + c) * kPanelRows + r % kPanelRows;
  };
  std::int64_t r = 0;
  for (; r + 4 <= count; r += 4) {
    std::int64_t c = 0;
    for (; c + 4 <= dim; c += 4) {
      __m128 x0 = _mm_loadu_ps(rows[r] + c), x1 = _mm_loadu_ps(rows[r + 1] + c), x2 = _mm_loadu_ps(rows[r + 2] + c),
             x3 = _mm_loadu_ps(rows[r + 3] + c);
      _MM_TRANSPOSE4_PS(x0, x1, x2, x3);
      _mm_storeu_ps(place(r, c), x0);
      _mm_storeu_ps(place(r, c + 1), x1);
      _mm_storeu_ps(place(r, c + 2), x2);
      _mm_storeu_ps(place(r, c + 3), x3);
    }
    for (; c < dim; ++c)
      for (std::int64_t i = r; i < r + 4; ++i) *place(i, c) = rows[i][c];
  }
  for (; r < count; ++r)
    for (std::int64_t c = 0; c < dim; ++c) *place(r, c) = rows[r][c];
}

double wide_dot(const double* x, const double* y, std::int64_t dim) {
  double out = 0;
  meet<Product, Double4, 1, 1, double, const double*>(&x, 1, y, 1, dim, &out);
  return out;
}

std::uint32_t below(const float* values, std::int64_t count, float limit) {
  std::uint32_t bits = 0;
  std::int64_t i = 0;
  const __m256 limits = _mm256_set1_ps(limit);
  for (; i + 8 <= count; i += 8) {
    const __m256 less = _mm256_cmp_ps(_mm256_loadu_ps(values + i), limits, _CMP_LT_OQ);
    bits |= static_cast<std::uint32_t>(_mm256_movemask_ps(less)) << i;
  }
  for (; i < count; ++i) bits |= static_cast<std::uint32_t>(values[i] < limit) << i;
  return bits;
}

}  // namespace seine
