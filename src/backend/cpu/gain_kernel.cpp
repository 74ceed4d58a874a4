#include "backend/cpu/gain_kernel.hpp"

#include <immintrin.h>

#include <array>

namespace seine {

GainSum sum_gains(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed, Near* near) {
  const __m256d scale = _mm256_set1_pd(1 / fixed.unit()), half = _mm256_set1_pd(0.5);
  __m256d sum = _mm256_setzero_pd();
  std::int64_t adding = 0;
  // Four rows of a register of similarities, where `adds`.
  const auto add = [&](__m128 similarity, __m128 adds, std::int64_t at) {
    const __m256d value = _mm256_mul_pd(_mm256_loadu_pd(rows.weight + at), _mm256_cvtps_pd(similarity));
    const __m256d gain =
        _mm256_sub_pd(_mm256_floor_pd(_mm256_fmadd_pd(value, scale, half)), _mm256_loadu_pd(rows.at_above + at));
    const __m256d mask = _mm256_castsi256_pd(_mm256_cvtepi32_epi64(_mm_castps_si128(adds)));
    sum = _mm256_add_pd(sum, _mm256_and_pd(gain, mask));
  };
  for (std::int64_t k = 0; k < count; k += 8) {
    // Coverage is not negative, so that a similarity above it needs no clipping at 0; `below` is at most 1.
    const __m256 similarity = _mm256_min_ps(_mm256_loadu_ps(dots + k), _mm256_loadu_ps(rows.below + k));
    const __m256 adds = _mm256_cmp_ps(similarity, _mm256_loadu_ps(rows.above + k), _CMP_GT_OQ);
    auto which = static_cast<unsigned>(_mm256_movemask_ps(adds));
    if (which == 0) continue;  // most similarities add nothing
    add(_mm256_castps256_ps128(similarity), _mm256_castps256_ps128(adds), k);
    add(_mm256_extractf128_ps(similarity, 1), _mm256_extractf128_ps(adds, 1), k + 4);
    if (near) {
      for (; which != 0; which &= which - 1) {
        const std::int64_t at = k + __builtin_ctz(which);
        near[adding++] = {rows.number[at], dots[at] < 1 ? dots[at] : 1};
      }
    } else {
      adding += __builtin_popcount(which);
    }
  }
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
  return {_mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two))), adding};
}

GainSum sum_gain_bounds(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed) {
  // What the difference may lose in float32 is added to it, two units to what is left after rounding down: a gain is
  // the difference of two rounded values.
  const __m256d scale = _mm256_set1_pd((1 + 0x1p-22) / fixed.unit());
  __m256d sum = _mm256_setzero_pd();
  std::int64_t adding = 0;
  const auto add = [&](__m128 excess, std::int64_t at) {
    const __m256d weighted = _mm256_mul_pd(_mm256_loadu_pd(rows.weight + at), _mm256_cvtps_pd(excess));
    sum = _mm256_add_pd(sum, _mm256_floor_pd(_mm256_mul_pd(weighted, scale)));
  };
  for (std::int64_t k = 0; k < count; k += 8) {
    const __m256 dot = _mm256_loadu_ps(dots + k), above = _mm256_loadu_ps(rows.above + k);
    const __m256 excess = _mm256_max_ps(_mm256_sub_ps(dot, above), _mm256_setzero_ps());
    add(_mm256_castps256_ps128(excess), k);
    add(_mm256_extractf128_ps(excess, 1), k + 4);
    adding += __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps(dot, above, _CMP_GT_OQ))));
  }
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
  return {_mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two))) + 2 * static_cast<double>(adding), adding};
}

namespace {

// For each mask of eight lanes, the numbers of its lanes, a byte each.
constexpr std::array<std::uint64_t, 256> lanes_of_masks() {
  std::array<std::uint64_t, 256> lanes{};
  for (unsigned mask = 0; mask < 256; ++mask) {
    int many = 0;
    for (unsigned lane = 0; lane < 8; ++lane)
      if (mask >> lane & 1) lanes[mask] |= std::uint64_t{lane} << (8 * many++);
  }
  return lanes;
}
constexpr std::array<std::uint64_t, 256> kLanesOfMask = lanes_of_masks();

}  // namespace

std::int64_t find_above(const float* dots, const float* above, std::int64_t count, std::int32_t* found) {
  std::int64_t many = 0;
  for (std::int64_t k = 0; k < count; k += 8) {  // no branch: it would be guessed wrongly
    const __m256 is = _mm256_cmp_ps(_mm256_loadu_ps(dots + k), _mm256_loadu_ps(above + k), _CMP_GT_OQ);
    const auto mask = static_cast<unsigned>(_mm256_movemask_ps(is));
    const __m256i lanes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<std::int64_t>(kLanesOfMask[mask])));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(found + many),
                        _mm256_add_epi32(lanes, _mm256_set1_epi32(static_cast<int>(k))));
    many += __builtin_popcount(mask);
  }
  return many;
}

namespace {

// With a mask, because GCC 12 warns of the plain gathers' undefined registers.
__m128 gathered(const float* from, __m128i rows) {
  return _mm_mask_i32gather_ps(_mm_setzero_ps(), from, rows, _mm_castsi128_ps(_mm_set1_epi32(-1)), 4);
}
__m256d gathered(const double* from, __m128i rows) {
  return _mm256_mask_i32gather_pd(_mm256_setzero_pd(), from, rows, _mm256_castsi256_pd(_mm256_set1_epi64x(-1)), 8);
}

}  // namespace

GainSum sum_listed_gains(const Near* list, std::int64_t count, const float* best, const double* weight,
                         FixedPoint fixed) {
  const __m256d scale = _mm256_set1_pd(1 / fixed.unit()), half = _mm256_set1_pd(0.5);
  const auto rounded = [&](__m128 coverage, __m256d weights) {
    return _mm256_floor_pd(_mm256_fmadd_pd(_mm256_mul_pd(weights, _mm256_cvtps_pd(coverage)), scale, half));
  };
  __m256d sum = _mm256_setzero_pd();
  GainSum out{0, 0};
  std::int64_t k = 0;
  for (; k + 4 <= count; k += 4) {  // rows and similarities take turns
    const __m256 four = _mm256_permutevar8x32_ps(_mm256_loadu_ps(reinterpret_cast<const float*>(list + k)),
                                                 _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    const __m128i rows = _mm_castps_si128(_mm256_castps256_ps128(four));
    const __m128 similarity = _mm256_extractf128_ps(four, 1), above = gathered(best, rows);
    const __m256d weights = weight ? gathered(weight, rows) : _mm256_set1_pd(1);
    const __m128 adds = _mm_cmpgt_ps(similarity, above);
    const __m256d gain = _mm256_sub_pd(rounded(similarity, weights), rounded(above, weights));
    sum = _mm256_add_pd(sum, _mm256_and_pd(gain, _mm256_castsi256_pd(_mm256_cvtepi32_epi64(_mm_castps_si128(adds)))));
    out.adding += __builtin_popcount(static_cast<unsigned>(_mm_movemask_ps(adds)));
  }
  for (; k < count; ++k) {
    const float above = best[list[k].row];
    out.gain += gain_between(above, 1, list[k].similarity, weight ? weight[list[k].row] : 1, fixed);
    out.adding += list[k].similarity > above;
  }
  const __m128d two = _mm_add_pd(_mm256_castpd256_pd128(sum), _mm256_extractf128_pd(sum, 1));
  out.gain += _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
  return out;
}

}  // namespace seine
