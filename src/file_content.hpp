// Files that are read whole: checkpoints, configurations, lists; and how a file begins.
#pragma once

#include <optional>
#include <string>

namespace seine {

// Absent where there is no file of that name. Error 66 where it cannot be opened, 74 where reading fails.
std::optional<std::string> read_file(const std::string& path);

// The first bytes, enough to see what kind of file it is; absent where it cannot be opened.
std::optional<std::string> beginning_of(const std::string& path);

}  // namespace seine
