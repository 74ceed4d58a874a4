// Masks of AVX2 loads and stores; for sources that are compiled for it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace seine {
namespace {

inline __m256i mask_of(int words) {  // the first `words` (0..8) 32-bit words
  alignas(32) static constexpr std::int32_t kMask[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMask + 8 - words));
}

}  // namespace
}  // namespace seine
