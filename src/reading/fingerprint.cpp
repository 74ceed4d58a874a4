#include "reading/fingerprint.hpp"

#define XXH_INLINE_ALL  // with the instructions of this build: the library's own are those of any x86-64
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>

#include "reading/pool_header.hpp"
#include "seine/ownership.hpp"

namespace seine {
namespace {

constexpr std::int64_t kTileRows = Ownership::kTileRows;  // never split between ranks

std::uint64_t key_of(Dataset dataset, std::int64_t number) {
  return static_cast<std::uint64_t>(number) * 16 + static_cast<std::uint64_t>(dataset);
}

std::string hex(XXH128_hash_t hash) {
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

}  // namespace

struct Fingerprint::Tiles {
  std::array<XXH3_state_t, kDatasets> states;
};

Fingerprint::Fingerprint(std::int64_t pool_rows) : pool_rows_(pool_rows), tiles_(std::make_unique<Tiles>()) {}
Fingerprint::Fingerprint(Fingerprint&&) noexcept = default;
Fingerprint::~Fingerprint() = default;

void Fingerprint::add(Dataset dataset, std::int64_t first, std::int64_t count, const void* content,
                      std::size_t row_bytes) {
  const auto* bytes = static_cast<const std::byte*>(content);
  const std::int64_t end = first + count;
  const auto keep = [&](XXH128_hash_t hash) {
    low_ += hash.low64;
    high_ += hash.high64;
  };
  for (std::int64_t row = first; row < end;) {
    const std::int64_t tile = row / kTileRows, tile_end = std::min(pool_rows_, (tile + 1) * kTileRows);
    const std::int64_t next = std::min(end, tile_end);
    const bool starts = row == tile * kTileRows, ends = next == tile_end;
    const std::size_t size = static_cast<std::size_t>(next - row) * row_bytes;
    const std::uint64_t key = key_of(dataset, tile);
    XXH3_state_t& state = tiles_->states[static_cast<std::size_t>(dataset)];
    if (starts && ends) {
      keep(XXH3_128bits_withSeed(bytes, size, key));
    } else {
      if (starts) XXH3_128bits_reset_withSeed(&state, key);
      XXH3_128bits_update(&state, bytes, size);
      if (ends) keep(XXH3_128bits_digest(&state));
    }
    bytes += size;
    row = next;
  }
}

void Fingerprint::add_text(Dataset dataset, std::int64_t row, const std::string& content) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(content.data(), content.size(), key_of(dataset, row));
  low_ += hash.low64;
  high_ += hash.high64;
}

void Fingerprint::add(const Fingerprint& other) {
  low_ += other.low_;
  high_ += other.high_;
}

std::string Fingerprint::text(const Comm& comm, const PoolShape& shape) const {
  std::int64_t sums[2] = {static_cast<std::int64_t>(low_), static_cast<std::int64_t>(high_)};
  comm.sum(sums);
  const std::int64_t all[] = {sums[0], sums[1], shape.rows, shape.dim, shape.classes, shape.passes};
  return hex(XXH3_128bits(all, sizeof all));
}

std::string combined_fingerprint(const std::string& one, const std::string& other) {
  const std::string both = one + other;
  return hex(XXH3_128bits(both.data(), both.size()));
}

}  // namespace seine
