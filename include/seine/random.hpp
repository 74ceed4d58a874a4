// Counter-based random numbers: a draw is a function of (seed, purpose, index) and of nothing else, so no result
// depends on ranks, threads or time. Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC
// 2011).
#pragma once

#include <cstdint>

#include "seine/row_math.hpp"

namespace seine {

// What a draw is for: a name, and the level of the merge tree where draws must be fresh at every level.
struct Purpose {
  std::uint64_t key = 0;

  // FNV-1a of the name.
  constexpr explicit Purpose(const char* name, int level = 0) {
    key = 14695981039346656037ULL;
    for (; *name; ++name) key = (key ^ static_cast<unsigned char>(*name)) * 1099511628211ULL;
    key += static_cast<std::uint64_t>(level) * 0x9e3779b97f4a7c15ULL;
  }
};

// 64 random bits for (seed, purpose, index).
SEINE_HD inline std::uint64_t random_bits(std::uint64_t seed, std::uint64_t purpose, std::uint64_t index) {
  std::uint32_t c0 = static_cast<std::uint32_t>(index), c1 = static_cast<std::uint32_t>(index >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(purpose), c3 = static_cast<std::uint32_t>(purpose >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = 0xD2511F53ULL * c0, p1 = 0xCD9E8D57ULL * c2;
    const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return (static_cast<std::uint64_t>(c1) << 32) | c0;
}

// Uniform in the open interval (0, 1), 52 bits.
SEINE_HD inline double uniform(std::uint64_t seed, Purpose purpose, std::uint64_t index) {
  return (static_cast<double>(random_bits(seed, purpose.key, index) >> 12) + 0.5) * 2.220446049250313e-16;
}

// Unit exponential.
SEINE_HD inline double exponential(std::uint64_t seed, Purpose purpose, std::uint64_t index) {
  return -log_of(uniform(seed, purpose, index));
}

}  // namespace seine
