// The merge reduction: local selections on partitions of the pool, merged up a tree (contract, section 5).
#pragma once

#include "seine/pick.hpp"

namespace seine {

// How many partitions this request makes of this pool: --partitions, lowered until a partition has 4 rows for each row
// of the batch.
std::int64_t partitions_of(std::int64_t rows, std::int64_t batch, std::int64_t partitions);
std::int64_t partitions_of(const Pool& pool, const Task& task);

// Collective. Partitions are runs of 64 rows hashed with the seed; a partition lives whole on one rank, which runs the
// strategy on it without messages. A node above runs the same strategy on the union of its children's picks, with all
// ranks together.
Picked pick_merged(Pool& pool, const Task& task);

}  // namespace seine
