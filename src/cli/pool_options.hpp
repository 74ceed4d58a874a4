// The options of every command that reads a pool (README, "Pool options").
#pragma once

#include <map>
#include <string>

#include "cli/options.hpp"
#include "seine/request.hpp"

namespace seine {

void declare_pool(Options& options, PoolRequest& pool, bool required = true);

}  // namespace seine
