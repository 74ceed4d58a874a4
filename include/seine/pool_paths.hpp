// Which files a pool is made of.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "seine/comm.hpp"

namespace seine {

// Globs expanded and natural-sorted by full path; one .txt file is a list of paths whose order is kept (relative paths
// in it are relative to the current directory). Error 66 for what is not there.
std::vector<std::string> expand_pool_paths(std::span<const std::string> given);

// Collective. The same as rank 0 sees it, on every rank: nodes may see different folders.
std::vector<std::string> pool_paths(const Comm& comm, std::span<const std::string> given);

}  // namespace seine
