// Ids of the pool: unique, integers or text, never all in memory of one process as text. And the files that list ids.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/pool_files.hpp"

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

// The ids in a list file, as text in the order of the file: .csv (RFC 4180) with a column `id`, .h5 with /ids, a .json
// batch file, or one id per line (blank lines are skipped, CRLF accepted). Errors: 66 no such file, 65 not such a list.
std::vector<std::string> read_id_list(const std::string& path);

struct IdColumn {
  bool text = false;
  std::vector<std::int64_t> numbers;
  std::vector<std::string> words;

  std::string as_text(std::size_t i) const;
};

// Collective. Error 65 that names both places if two rows of the pool share an id.
void check_ids_unique(const Comm& comm, const PoolFiles& files, const Ownership& own);

// Collective. The global row of each id, or -1 where the pool does not have it; the same answer on every rank.
// Without an `ids` dataset the global row number is the id. An integer id matches whatever way it is written
// ("7", "+7", "007"); a word where the pool's ids are integers matches nothing.
std::vector<std::int64_t> rows_of_ids(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                      std::span<const std::string> ids);

// Collective. The role of each own row, from labels in the pool and the four lists. Unknown ids: `warn` is called on
// rank 0 with one line that has their count, or error 65 with `strict_ids`. No candidate left: error 65, which names
// `--labels none` where labels are the cause.
std::vector<Role> read_roles(const Comm& comm, const PoolFiles& files, const Ownership& own, const PoolRequest& request,
                             const std::function<void(const std::string&)>& warn);

// Collective. The ids of these global rows, on every rank, in the order given.
IdColumn fetch_ids(const Comm& comm, const PoolFiles& files, std::span<const std::int64_t> rows);

}  // namespace seine
