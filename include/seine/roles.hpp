// What rows are to a request: labelled, pending, candidates or none of these.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"
#include "seine/request.hpp"

namespace seine {

// What a row is to a request. Ordered by strength: an id in several lists is labelled before pending before excluded.
enum class Role : std::uint8_t {
  candidate = 0,  // may be returned
  bystander = 1,  // part of the objective, never returned, nobody covered it: excluded, or not in --candidates
  pending = 2,    // covered
  labelled = 3,   // covered
};
inline bool is_covered(Role role) {
  return role >= Role::pending;
}

// Collective. The role of each own row, from labels in the pool and the four lists. Unknown ids: `warn` is called on
// rank 0 with one line that has their count, or error 65 with `strict_ids`. No candidate left: error 65, which names
// `--labels none` where labels are the cause.
std::vector<Role> read_roles(const Comm& comm, const PoolFiles& files, const Ownership& own, const PoolRequest& request,
                             const std::function<void(const std::string&)>& warn);

// Collective. Errors 66 and 65 where a list of ids of the request cannot be read.
void check_id_lists(const Comm& comm, const PoolRequest& request);

}  // namespace seine
