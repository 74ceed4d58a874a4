// The score kernels on AVX2, and what needs no vectors.
#include <immintrin.h>

#include "avx2_mask.hpp"
#include "scores/score_kernel_blocks.hpp"

namespace seine {
namespace {

struct Float8 {
  using Register = __m256;
  using Bits = __m256i;
  static constexpr int kWidth = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register all(float x) { return _mm256_set1_ps(x); }
  static Bits all_bits(int x) { return _mm256_set1_epi32(x); }
  static Register load(const float* p) { return _mm256_loadu_ps(p); }
  static Register load(const float* p, int lanes) { return _mm256_maskload_ps(p, mask_of(lanes)); }
  static void store(float* p, Register x) { _mm256_storeu_ps(p, x); }
  static void store(float* p, Register x, int lanes) { _mm256_maskstore_ps(p, mask_of(lanes), x); }
  static Register add(Register x, Register y) { return _mm256_add_ps(x, y); }
  static Register subtract(Register x, Register y) { return _mm256_sub_ps(x, y); }
  static Register multiply(Register x, Register y) { return _mm256_mul_ps(x, y); }
  static Register fma(Register x, Register y, Register z) { return _mm256_fmadd_ps(x, y, z); }
  static Register max(Register x, Register y) { return _mm256_max_ps(x, y); }
  static Register min(Register x, Register y) { return _mm256_min_ps(x, y); }
  static Bits bits(Register x) { return _mm256_castps_si256(x); }
  static Register values(Bits x) { return _mm256_castsi256_ps(x); }
  static Register to_float(Bits x) { return _mm256_cvtepi32_ps(x); }
  static Bits subtract_bits(Bits x, Bits y) { return _mm256_sub_epi32(x, y); }
  template <int N>
  static Bits shift_right(Bits x) {
    return _mm256_srai_epi32(x, N);
  }
  template <int N>
  static Bits shift_left(Bits x) {
    return _mm256_slli_epi32(x, N);
  }
  // Lanes that change places so that a fold of two registers keeps the order of the registers.
  template <int Level>
  static Register low(Register a, Register b) {
    if constexpr (Level == 0) return _mm256_unpacklo_ps(a, b);
    if constexpr (Level == 1) return _mm256_castpd_ps(_mm256_unpacklo_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
    if constexpr (Level == 2) return _mm256_permute2f128_ps(a, b, 0x20);
  }
  template <int Level>
  static Register high(Register a, Register b) {
    if constexpr (Level == 0) return _mm256_unpackhi_ps(a, b);
    if constexpr (Level == 1) return _mm256_castpd_ps(_mm256_unpackhi_pd(_mm256_castps_pd(a), _mm256_castps_pd(b)));
    if constexpr (Level == 2) return _mm256_permute2f128_ps(a, b, 0x31);
  }
};

struct Double4 {
  using Register = __m256d;
  using Bits = __m256i;
  using Mask = __m256d;
  static constexpr int kWidth = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Register all(double x) { return _mm256_set1_pd(x); }
  static Register load(const double* p) { return _mm256_loadu_pd(p); }
  static void store(double* p, Register x) { _mm256_storeu_pd(p, x); }
  static Register add(Register x, Register y) { return _mm256_add_pd(x, y); }
  static Register subtract(Register x, Register y) { return _mm256_sub_pd(x, y); }
  static Register multiply(Register x, Register y) { return _mm256_mul_pd(x, y); }
  static Register divide(Register x, Register y) { return _mm256_div_pd(x, y); }
  static Register negate(Register x) { return _mm256_xor_pd(x, _mm256_set1_pd(-0.0)); }
  static Register fma(Register x, Register y, Register z) { return _mm256_fmadd_pd(x, y, z); }
  static Mask above(Register x, Register y) { return _mm256_cmp_pd(x, y, _CMP_GT_OQ); }
  static Mask and_not(Mask x, Mask y) { return _mm256_andnot_pd(y, x); }
  static bool any(Mask x) { return _mm256_movemask_pd(x) != 0; }
  static Register choose(Mask which, Register x, Register otherwise) { return _mm256_blendv_pd(otherwise, x, which); }
  static Bits bits(Register x) { return _mm256_castpd_si256(x); }
  static Register values(Bits x) { return _mm256_castsi256_pd(x); }
  static Bits mantissa_bits(Bits x) {
    return _mm256_or_si256(_mm256_and_si256(x, _mm256_set1_epi64x(0x000fffffffffffff)),
                           _mm256_set1_epi64x(0x3ff0000000000000));
  }
  // The exponent as the low bits of 2^52, from which it is subtracted: exact.
  static Register exponent(Bits x) {
    const Bits biased = _mm256_or_si256(_mm256_srli_epi64(x, 52), _mm256_set1_epi64x(0x4330000000000000));
    return _mm256_sub_pd(_mm256_castsi256_pd(biased), _mm256_set1_pd(0x1p52 + 1023));
  }
};

}  // namespace

const ScoreKernels& score_kernels_avx2() {
  static constexpr ScoreKernels kKernels{"AVX2", bounds<Float8>, sums<Float8>, log2s<Float8>, x_log_xs<Double4>};
  return kKernels;
}

const ScoreKernels& score_kernels() {
  static const ScoreKernels* const kBest = score_kernels_avx512() ? score_kernels_avx512() : &score_kernels_avx2();
  return *kBest;
}

// As mean_probability of each class, pass by pass.
const double* ExactScores::means(const double* p, std::int64_t rows, std::int64_t passes, std::int64_t classes) {
  if (passes == 1) return p;
  means_.resize(static_cast<std::size_t>(rows * classes));
  for (std::int64_t i = 0; i < rows; ++i, p += passes * classes) {
    double* mean = means_.data() + i * classes;
    std::fill_n(mean, classes, 0.0);
    for (std::int64_t t = 0; t < passes; ++t)
      for (std::int64_t c = 0; c < classes; ++c) mean[c] += p[t * classes + c];
    for (std::int64_t c = 0; c < classes; ++c) mean[c] /= static_cast<double>(passes);
  }
  return means_.data();
}

// As Entropy of rows without passes. Four rows at a time, as each sum waits for its last addition.
void ExactScores::entropies(const double* p, std::int64_t rows, std::int64_t classes, std::vector<double>& out) {
  x_log_xs_.resize(static_cast<std::size_t>(rows * classes));
  out.resize(static_cast<std::size_t>(rows));
  score_kernels().x_log_xs(p, rows * classes, x_log_xs_.data());
  const auto group = [&]<int Rows>(std::int64_t i) {
    const double* terms = x_log_xs_.data() + i * classes;
    double sum[Rows] = {};
    for (std::int64_t c = 0; c < classes; ++c)
      for (int r = 0; r < Rows; ++r) sum[r] += terms[r * classes + c];
    for (int r = 0; r < Rows; ++r) out[static_cast<std::size_t>(i + r)] = sum[r] < 0 ? -sum[r] : 0;
  };
  std::int64_t i = 0;
  for (; i + 4 <= rows; i += 4) group.template operator()<4>(i);
  for (; i < rows; ++i) group.template operator()<1>(i);
}

void ExactScores::operator()(ScoreKind kind, const double* p, std::int64_t rows, std::int64_t passes,
                             std::int64_t classes, float* out) {
  const auto of_means = [&](auto score) {
    const double* mean = means(p, rows, passes, classes);
    for (std::int64_t i = 0; i < rows; ++i) out[i] = static_cast<float>(score(mean + i * classes, 1, classes));
  };
  switch (kind) {
    case ScoreKind::least_confidence:
      return of_means(LeastConfidence{});
    case ScoreKind::margin:
      return of_means(Margin{});
    case ScoreKind::entropy:
    case ScoreKind::bald:
      break;
  }
  // Few rows at a time stay in the cache.
  const std::int64_t step = std::clamp<std::int64_t>(4096 / (passes * classes), 1, 256);
  for (std::int64_t i = 0; i < rows; i += step) {
    const std::int64_t count = std::min(step, rows - i);
    const double* some = p + i * passes * classes;
    entropies(means(some, count, passes, classes), count, classes, entropies_);
    if (kind == ScoreKind::entropy) {
      for (std::int64_t r = 0; r < count; ++r) out[i + r] = static_cast<float>(entropies_[static_cast<std::size_t>(r)]);
      continue;
    }
    entropies(some, count * passes, classes, pass_entropies_);
    for (std::int64_t r = 0; r < count; ++r) {
      double expected = 0;
      for (std::int64_t t = 0; t < passes; ++t) expected += pass_entropies_[static_cast<std::size_t>(r * passes + t)];
      const double information = entropies_[static_cast<std::size_t>(r)] - expected / static_cast<double>(passes);
      out[i + r] = static_cast<float>(information > 0 ? information : 0);
    }
  }
}

}  // namespace seine
