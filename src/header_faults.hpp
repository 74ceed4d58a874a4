// What is wrong with the headers of pool files, all of it: PoolFiles throws the first.
#pragma once

#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/request.hpp"

namespace seine {

// Collective. In order of the files; faults of one file alone, not of files that disagree.
std::vector<std::string> header_faults(const Comm& comm, const std::vector<std::string>& paths,
                                       const DatasetNames& names);

}  // namespace seine
