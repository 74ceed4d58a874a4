// The row kernels on AVX2, the floor of every processor that we run on.
#include <immintrin.h>

#include <array>
#include <cmath>

#include "backend/avx2_mask.hpp"
#include "backend/row_kernel_blocks.hpp"

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
                                       meet<Distance2, Float8, 2, 4, float, const float*>,
                                       meet<Distance2, Float8, 2, 4, float, const float* const*>,
                                       meet<Dot, Float8, 2, 4, float, const float*>,
                                       meet_panels<Float8, Order::canonical>,
                                       meet_panels<Float8, Order::of_components>,
                                       meet<Dot, Double4, 2, 4, float, const double*>};
  return kKernels;
}

const RowKernels& row_kernels() {
  static const RowKernels* const kBest = row_kernels_avx512() ? row_kernels_avx512() : &row_kernels_avx2();
  return *kBest;
}

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

GainSum bound_gains(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed) {
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
  meet<Dot, Double4, 1, 1, double, const double*>(&x, 1, y, 1, dim, &out);
  return out;
}

double squared_norm(const float* row, std::int64_t dim, std::vector<double>& wide) {
  wide.assign(row, row + dim);
  double norm2 = 0;
  row_kernels().wide_dots(&row, 1, wide.data(), 1, dim, &norm2);
  return norm2;
}

void make_unit(float* row, std::int64_t dim, std::vector<double>& wide) {
  const double norm2 = squared_norm(row, dim, wide);
  if (!(norm2 > 0)) return;
  const double norm = std::sqrt(norm2);
  for (std::int64_t c = 0; c < dim; ++c) row[c] = static_cast<float>(wide[static_cast<std::size_t>(c)] / norm);
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
