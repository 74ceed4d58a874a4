// `seine --version`.
#pragma once

#include <string>

namespace seine {

// Version, build type and flags, and the versions of HDF5, MPI and CUDA, a line each.
std::string version_text();

}  // namespace seine
