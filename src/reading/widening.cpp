#include "reading/widening.hpp"

#include <immintrin.h>

#include <cstddef>
#include <cstring>

namespace seine {
namespace {

// The front of what is written never overtakes what is still to be read.
template <class To, class Widen8, class Widen1>
void widen_in_place(To* out, std::int64_t count, std::size_t stored_bytes, Widen8 widen8, Widen1 widen1) {
  const std::byte* stored =
      reinterpret_cast<const std::byte*>(out + count) - static_cast<std::size_t>(count) * stored_bytes;
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8, stored += 8 * stored_bytes) widen8(stored, out + i);
  for (; i < count; ++i, stored += stored_bytes) out[i] = static_cast<To>(widen1(stored));
}

__m256 load_half8(const std::byte* stored, bool swapped) {
  __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(stored));
  if (swapped) bits = _mm_or_si128(_mm_slli_epi16(bits, 8), _mm_srli_epi16(bits, 8));
  return _mm256_cvtph_ps(bits);
}

float load_half(const std::byte* stored, bool swapped) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, stored, sizeof bits);
  return _cvtsh_ss(swapped ? static_cast<std::uint16_t>(bits << 8 | bits >> 8) : bits);
}

void store8(__m256 values, float* out) {
  _mm256_storeu_ps(out, values);
}
void store8(__m256 values, double* out) {
  _mm256_storeu_pd(out, _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
  _mm256_storeu_pd(out + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
}

template <class To>
void widen_any_halves(To* out, std::int64_t count, bool swapped) {
  widen_in_place(
      out, count, 2, [&](const std::byte* from, To* to) { store8(load_half8(from, swapped), to); },
      [&](const std::byte* from) { return load_half(from, swapped); });
}

}  // namespace

void widen_halves(float* out, std::int64_t count, bool swapped) {
  widen_any_halves(out, count, swapped);
}
void widen_halves(double* out, std::int64_t count, bool swapped) {
  widen_any_halves(out, count, swapped);
}

void widen_singles(double* out, std::int64_t count) {
  const auto load = [](const std::byte* from) {
    float value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  widen_in_place(
      out, count, 4,
      [](const std::byte* from, double* to) { store8(_mm256_loadu_ps(reinterpret_cast<const float*>(from)), to); },
      load);
}

}  // namespace seine
