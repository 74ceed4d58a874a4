// Ids of the pool: unique, integers or text, never all in memory of one process as text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"

namespace seine {

struct IdColumn {
  bool text = false;
  std::vector<std::int64_t> numbers;
  std::vector<std::string> words;

  std::string as_text(std::size_t i) const;
};

// Collective. The global row of each id, or -1 where the pool does not have it; the same answer on every rank.
// Without an `ids` dataset the global row number is the id. An integer id matches whatever way it is written
// ("7", "+7", "007"); a word where the pool's ids are integers matches nothing.
std::vector<std::int64_t> rows_of_ids(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                      std::span<const std::string> ids);

// Collective. The ids of these global rows, on every rank, in the order given.
IdColumn fetch_ids(const Comm& comm, const PoolFiles& files, std::span<const std::int64_t> rows);

}  // namespace seine
