// The CPU backend: threads over tiles of rows, AVX2 inside a row.
#pragma once

#include <memory>

#include "seine/backend.hpp"

namespace seine {

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options);

}  // namespace seine
