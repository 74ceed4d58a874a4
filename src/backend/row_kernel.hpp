// The canonical row kernel of row_math.hpp on AVX2: the same lanes, the same fold, so the same bits as the definition.
//
// A register holds a slice of neighbouring lanes (8 float32 or 4 float64). One row meets several others slice by slice,
// so that its loads are shared and the arithmetic unit, not the load unit, is the bound.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "seine/row_math.hpp"

namespace seine {

namespace kernel {

inline __m256i mask_of(std::int64_t lanes32) {  // first `lanes32` (0..8) 32-bit lanes
  alignas(32) static constexpr std::int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - lanes32));
}

struct Float {
  using Value = float;
  using Register = __m256;
  static constexpr int kWidth = 8;
  static Register zero() { return _mm256_setzero_ps(); }
  static Register load(const float* p) { return _mm256_loadu_ps(p); }
  static Register load(const float* p, std::int64_t n) { return _mm256_maskload_ps(p, mask_of(n)); }
  static Register fma(Register x, Register y, Register z) { return _mm256_fmadd_ps(x, y, z); }
  static Register add(Register x, Register y) { return _mm256_add_ps(x, y); }
  static Register subtract(Register x, Register y) { return _mm256_sub_ps(x, y); }
  static float fold(Register r) {  // lanes 8, then 4, 2, 1
    __m128 v = _mm_add_ps(_mm256_castps256_ps128(r), _mm256_extractf128_ps(r, 1));
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)));
  }
};

struct Double {
  using Value = double;
  using Register = __m256d;
  static constexpr int kWidth = 4;
  static Register zero() { return _mm256_setzero_pd(); }
  static Register load(const double* p) { return _mm256_loadu_pd(p); }
  static Register load(const double* p, std::int64_t n) { return _mm256_maskload_pd(p, mask_of(2 * n)); }
  static Register load(const float* p) { return _mm256_cvtps_pd(_mm_loadu_ps(p)); }
  static Register load(const float* p, std::int64_t n) {
    return _mm256_cvtps_pd(_mm_maskload_ps(p, _mm256_castsi256_si128(mask_of(n))));
  }
  static Register fma(Register x, Register y, Register z) { return _mm256_fmadd_pd(x, y, z); }
  static Register add(Register x, Register y) { return _mm256_add_pd(x, y); }
  static Register subtract(Register x, Register y) { return _mm256_sub_pd(x, y); }
  static double fold(Register r) {
    const __m128d v = _mm_add_pd(_mm256_castpd256_pd128(r), _mm256_extractf128_pd(r, 1));
    return _mm_cvtsd_f64(_mm_add_sd(v, _mm_unpackhi_pd(v, v)));
  }
};

struct Dot {
  template <class V>
  static auto step(typename V::Register x, typename V::Register y, typename V::Register sum) {
    return V::fma(x, y, sum);
  }
};

struct Distance2 {
  template <class V>
  static auto step(typename V::Register x, typename V::Register y, typename V::Register sum) {
    const auto difference = V::subtract(x, y);
    return V::fma(difference, difference, sum);
  }
};

// One slice of the lanes of row x against rows y_0 .. y_{P-1}.
template <class Op, class V, int P, class X>
inline void slice(const X* x, const typename V::Value* y, std::int64_t dim, int first_lane,
                  typename V::Register (&sum)[P]) {
  for (int p = 0; p < P; ++p) sum[p] = V::zero();
  std::int64_t c = first_lane;
  for (; c + V::kWidth <= dim; c += kLanes) {
    const auto xs = V::load(x + c);
    for (int p = 0; p < P; ++p) sum[p] = Op::template step<V>(xs, V::load(y + p * dim + c), sum[p]);
  }
  if (c < dim) {
    const auto xs = V::load(x + c, dim - c);
    for (int p = 0; p < P; ++p) sum[p] = Op::template step<V>(xs, V::load(y + p * dim + c, dim - c), sum[p]);
  }
}

// Slices [first, first + Slices) folded to one register per row y, as the fold of row_math.hpp pairs them: slice s with
// slice s + Slices / 2.
template <class Op, class V, int P, int Slices, class X>
inline void fold_slices(const X* x, const typename V::Value* y, std::int64_t dim, int first, int stride,
                        typename V::Register (&sum)[P]) {
  if constexpr (Slices == 1) {
    slice<Op, V, P>(x, y, dim, first * V::kWidth, sum);
  } else {
    typename V::Register other[P];
    fold_slices<Op, V, P, Slices / 2>(x, y, dim, first, 2 * stride, sum);
    fold_slices<Op, V, P, Slices / 2>(x, y, dim, first + stride, 2 * stride, other);
    for (int p = 0; p < P; ++p) sum[p] = V::add(sum[p], other[p]);
  }
}

// out[p] = Op(x, y_p) for P rows y of `dim` components, one behind the other.
template <class Op, class V, int P, class X>
inline void row_against(const X* x, const typename V::Value* y, std::int64_t dim, typename V::Value* out) {
  typename V::Register sum[P];
  fold_slices<Op, V, P, kLanes / V::kWidth>(x, y, dim, 0, 1, sum);
  for (int p = 0; p < P; ++p) out[p] = V::fold(sum[p]);
}

}  // namespace kernel

// out[p] = Op(x, y_p) for `count` rows y.
template <class Op, class V, class X>
inline void row_against_rows(const X* x, const typename V::Value* y, std::int64_t count, std::int64_t dim,
                             typename V::Value* out) {
  std::int64_t p = 0;
  for (; p + 8 <= count; p += 8) kernel::row_against<Op, V, 8>(x, y + p * dim, dim, out + p);
  for (; p + 2 <= count; p += 2) kernel::row_against<Op, V, 2>(x, y + p * dim, dim, out + p);
  for (; p < count; ++p) kernel::row_against<Op, V, 1>(x, y + p * dim, dim, out + p);
}

// float16 to float32, exactly.
inline void widen(const void* half, std::int64_t count, float* out) {
  const auto* h = static_cast<const std::uint16_t*>(half);
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(h + i))));
  for (; i < count; ++i) out[i] = _cvtsh_ss(h[i]);
}

}  // namespace seine
