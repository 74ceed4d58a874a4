// Small files that are read whole: checkpoints, configurations.
#pragma once

#include <optional>
#include <string>

namespace seine {

// Absent where there is no file of that name. Error 66 where it cannot be read.
std::optional<std::string> read_file(const std::string& path);

}  // namespace seine
