// 128-bit hash of the content of a pool, whatever the files, ranks and threads that it is read by: hashes keyed by
// dataset and tile of 256 global rows are added.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "seine/comm.hpp"
#include "seine/pool_files.hpp"

namespace seine {

// One per thread. Rows of a dataset come in ascending order; those of a tile come to one fingerprint, from its first
// row to its last without a gap.
class Fingerprint {
 public:
  explicit Fingerprint(std::int64_t pool_rows);
  Fingerprint(Fingerprint&&) noexcept;
  ~Fingerprint();

  void add(Dataset dataset, std::int64_t first, std::int64_t count, const void* content, std::size_t row_bytes);
  void add_text(Dataset dataset, std::int64_t row, const std::string& content);
  void add(const Fingerprint& other);
  // Collective. As hex, of all ranks.
  std::string text(const Comm& comm, const PoolShape& shape) const;

 private:
  struct Tiles;  // the one that is being hashed, per dataset

  std::int64_t pool_rows_;
  std::uint64_t low_ = 0, high_ = 0;
  std::unique_ptr<Tiles> tiles_;
};

// The fingerprint of two pools that were read together.
std::string combined_fingerprint(const std::string& one, const std::string& other);

}  // namespace seine
