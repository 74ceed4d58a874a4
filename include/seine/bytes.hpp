// Sizes of memory in bytes.
#pragma once

#include <cstdint>

namespace seine {

inline constexpr std::int64_t kKiB = 1 << 10, kMiB = 1 << 20, kGiB = 1 << 30;

// As --memory has it.
inline double in_gib(std::int64_t bytes) {
  return static_cast<double>(bytes) / kGiB;
}

}  // namespace seine
