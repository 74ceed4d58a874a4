#include "seine/error.hpp"

#include <fmt/format.h>

namespace seine {

void require(bool holds, std::string_view invariant, std::source_location at) {
  if (holds) return;
  throw Error(Exit::bug, fmt::format("internal error: {} does not hold at {}:{}; this is a bug in seine", invariant,
                                     at.file_name(), at.line()));
}

}  // namespace seine
