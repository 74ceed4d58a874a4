// The row kernels on AVX-512; compiled with its flags, called only where the processor has it.
#include "backend/cpu/row_kernel_blocks.hpp"

#if defined(__AVX512F__) && defined(__AVX512DQ__)

#include <immintrin.h>

namespace seine {
namespace {

struct Float16 {
  using Value = float;
  using Register = __m512;
  static constexpr int kWidth = 16;
  static Register zero() { return _mm512_setzero_ps(); }
  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static Register load(const float* p, int lanes) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1), p);
  }
  static Register broadcast(const float* p) { return _mm512_set1_ps(*p); }
  static void store(float* p, Register r) { _mm512_storeu_ps(p, r); }
  static Register fma(Register x, Register y, Register z) { return _mm512_fmadd_ps(x, y, z); }
  static Register add(Register x, Register y) { return _mm512_add_ps(x, y); }
  static Register subtract(Register x, Register y) { return _mm512_sub_ps(x, y); }
  static float fold(Register r) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(r), _mm512_extractf32x8_ps(r, 1));
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
  }
  // Quarters of registers change places so that one addition folds several registers.
  static void fold(const Register (&r)[4], float* out) {
    const Register ab = add(_mm512_shuffle_f32x4(r[0], r[1], 0x44), _mm512_shuffle_f32x4(r[0], r[1], 0xee));
    const Register cd = add(_mm512_shuffle_f32x4(r[2], r[3], 0x44), _mm512_shuffle_f32x4(r[2], r[3], 0xee));
    Register v = add(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
    v = add(v, _mm512_permute_ps(v, 0x4e));
    v = add(v, _mm512_permute_ps(v, 0xb1));
    const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
    _mm_storeu_ps(out, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, v)));
  }
};

struct Double8 {
  using Value = double;
  using Register = __m512d;
  static constexpr int kWidth = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Register load(const double* p) { return _mm512_loadu_pd(p); }
  static Register load(const double* p, int lanes) {
    return _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << lanes) - 1), p);
  }
  static Register load(const float* p) { return _mm512_cvtps_pd(_mm256_loadu_ps(p)); }
  static Register load(const float* p, int lanes) {
    return _mm512_cvtps_pd(_mm512_castps512_ps256(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << lanes) - 1), p)));
  }
  static Register fma(Register x, Register y, Register z) { return _mm512_fmadd_pd(x, y, z); }
  static Register add(Register x, Register y) { return _mm512_add_pd(x, y); }
  static double fold(Register r) {
    const __m256d half = _mm256_add_pd(_mm512_castpd512_pd256(r), _mm512_extractf64x4_pd(r, 1));
    const __m128d v = _mm_add_pd(_mm256_castpd256_pd128(half), _mm256_extractf128_pd(half, 1));
    return _mm_cvtsd_f64(_mm_add_sd(v, _mm_unpackhi_pd(v, v)));
  }
  static void fold(const Register (&r)[4], double* out) {
    for (int p = 0; p < 4; ++p) out[p] = fold(r[p]);
  }
};

}  // namespace

const RowKernels* row_kernels_avx512() {
  static constexpr RowKernels kKernels{"AVX-512",
                                       meet<SquaredDifference, Float16, 4, 4, float, const float*>,
                                       meet<SquaredDifference, Float16, 4, 4, float, const float* const*>,
                                       meet<Product, Float16, 4, 4, float, const float*>,
                                       meet_panels<Float16, Order::canonical>,
                                       meet_panels<Float16, Order::of_components>,
                                       meet<Product, Double8, 4, 4, float, const double*>};
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? &kKernels : nullptr;
}

}  // namespace seine

#else

namespace seine {

const RowKernels* row_kernels_avx512() {
  return nullptr;
}

}  // namespace seine

#endif
