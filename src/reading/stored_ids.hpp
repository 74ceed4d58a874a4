// The ids of rows as the files store them, int64 or text: to visit and to hash.
#pragma once

#include <xxhash.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "seine/pool_files.hpp"

namespace seine {

inline std::uint64_t hash_of(std::int64_t id) {
  return XXH3_64bits(&id, sizeof id);
}
inline std::uint64_t hash_of(std::string_view id) {
  return XXH3_64bits(id.data(), id.size());
}

// Calls visit(row, id) with the ids of these rows, as int64 or as text.
template <class Visit>
void visit_ids(const PoolFiles& files, std::int64_t first, std::int64_t count, Visit&& visit) {
  if (files.shape().text_ids) {
    for (const std::string& id : files.read_text_ids(first, count)) visit(first++, std::string_view(id));
  } else {
    for (std::int64_t id : files.read_integers(Dataset::ids, first, count)) visit(first++, id);
  }
}

}  // namespace seine
