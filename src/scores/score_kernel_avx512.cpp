// The score kernels on AVX-512; compiled with its flags, called only where the processor has it.
#include "scores/score_kernel_blocks.hpp"

#if defined(__AVX512F__) && defined(__AVX512DQ__)

#include <immintrin.h>

namespace seine {
namespace {

struct Float16 {
  using Register = __m512;
  using Bits = __m512i;
  static constexpr int kWidth = 16;
  static __mmask16 mask_of(int lanes) { return static_cast<__mmask16>((1u << lanes) - 1); }
  static Register zero() { return _mm512_setzero_ps(); }
  static Register all(float x) { return _mm512_set1_ps(x); }
  static Bits all_bits(int x) { return _mm512_set1_epi32(x); }
  static Register load(const float* p) { return _mm512_loadu_ps(p); }
  static Register load(const float* p, int lanes) { return _mm512_maskz_loadu_ps(mask_of(lanes), p); }
  static void store(float* p, Register x) { _mm512_storeu_ps(p, x); }
  static void store(float* p, Register x, int lanes) { _mm512_mask_storeu_ps(p, mask_of(lanes), x); }
  static Register add(Register x, Register y) { return _mm512_add_ps(x, y); }
  static Register subtract(Register x, Register y) { return _mm512_sub_ps(x, y); }
  static Register multiply(Register x, Register y) { return _mm512_mul_ps(x, y); }
  static Register fma(Register x, Register y, Register z) { return _mm512_fmadd_ps(x, y, z); }
  static Register max(Register x, Register y) { return _mm512_max_ps(x, y); }
  static Register min(Register x, Register y) { return _mm512_min_ps(x, y); }
  static Bits bits(Register x) { return _mm512_castps_si512(x); }
  static Register values(Bits x) { return _mm512_castsi512_ps(x); }
  static Register to_float(Bits x) { return _mm512_cvtepi32_ps(x); }
  static Bits subtract_bits(Bits x, Bits y) { return _mm512_sub_epi32(x, y); }
  template <int N>
  static Bits shift_right(Bits x) {
    return _mm512_srai_epi32(x, N);
  }
  template <int N>
  static Bits shift_left(Bits x) {
    return _mm512_slli_epi32(x, N);
  }
  // Lanes that change places so that a fold of two registers keeps the order of the registers.
  template <int Level>
  static Register low(Register a, Register b) {
    if constexpr (Level == 0) return _mm512_unpacklo_ps(a, b);
    if constexpr (Level == 1) return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    if constexpr (Level == 2) return _mm512_shuffle_f32x4(a, b, 0x44);
    if constexpr (Level == 3) return _mm512_shuffle_f32x4(a, b, 0x88);
  }
  template <int Level>
  static Register high(Register a, Register b) {
    if constexpr (Level == 0) return _mm512_unpackhi_ps(a, b);
    if constexpr (Level == 1) return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)));
    if constexpr (Level == 2) return _mm512_shuffle_f32x4(a, b, 0xee);
    if constexpr (Level == 3) return _mm512_shuffle_f32x4(a, b, 0xdd);
  }
};

struct Double8 {
  using Register = __m512d;
  using Bits = __m512i;
  using Mask = __mmask8;
  static constexpr int kWidth = 8;
  static Register zero() { return _mm512_setzero_pd(); }
  static Register all(double x) { return _mm512_set1_pd(x); }
  static Register load(const double* p) { return _mm512_loadu_pd(p); }
  static void store(double* p, Register x) { _mm512_storeu_pd(p, x); }
  static Register add(Register x, Register y) { return _mm512_add_pd(x, y); }
  static Register subtract(Register x, Register y) { return _mm512_sub_pd(x, y); }
  static Register multiply(Register x, Register y) { return _mm512_mul_pd(x, y); }
  static Register divide(Register x, Register y) { return _mm512_div_pd(x, y); }
  static Register negate(Register x) { return _mm512_xor_pd(x, _mm512_set1_pd(-0.0)); }
  static Register fma(Register x, Register y, Register z) { return _mm512_fmadd_pd(x, y, z); }
  static Mask above(Register x, Register y) { return _mm512_cmp_pd_mask(x, y, _CMP_GT_OQ); }
  static Mask and_not(Mask x, Mask y) { return static_cast<Mask>(x & ~y); }
  static bool any(Mask x) { return x != 0; }
  static Register choose(Mask which, Register x, Register otherwise) {
    return _mm512_mask_blend_pd(which, otherwise, x);
  }
  static Bits bits(Register x) { return _mm512_castpd_si512(x); }
  static Register values(Bits x) { return _mm512_castsi512_pd(x); }
  static Bits mantissa_bits(Bits x) {
    return _mm512_or_si512(_mm512_and_si512(x, _mm512_set1_epi64(0x000fffffffffffff)),
                           _mm512_set1_epi64(0x3ff0000000000000));
  }
  static Register exponent(Bits x) {
    return _mm512_sub_pd(_mm512_cvtepi64_pd(_mm512_srli_epi64(x, 52)), _mm512_set1_pd(1023));
  }
};

}  // namespace

const ScoreKernels* score_kernels_avx512() {
  static constexpr ScoreKernels kKernels{"AVX-512", bounds<Float16>, sums<Float16>, log2s<Float16>, x_log_xs<Double8>};
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") ? &kKernels : nullptr;
}

}  // namespace seine

#else

namespace seine {

const ScoreKernels* score_kernels_avx512() {
  return nullptr;
}

}  // namespace seine

#endif
