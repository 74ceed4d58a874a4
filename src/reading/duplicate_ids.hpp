// Rows of the pool that share an id with an earlier row.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"

namespace seine {

struct DuplicateId {
  std::int64_t row, earlier;  // global rows of one id; `earlier` is the first of them
  std::string id;

  std::string describe(const PoolFiles& files) const;
};

// Collective. The first `limit` of them in order of `row`, on every rank; empty: all ids are unique.
std::vector<DuplicateId> duplicate_ids(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                       std::size_t limit);

// Collective. Error 65 that names both places if two rows of the pool share an id.
void check_ids_unique(const Comm& comm, const PoolFiles& files, const Ownership& own);

}  // namespace seine
