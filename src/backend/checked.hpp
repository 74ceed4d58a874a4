// A CPU backend for tests whose memory is unreadable outside of its own calls, is poisoned before the first write, and
// ends at a guard page: what would be a mistaken device pointer or an overrun on a GPU faults here.
#pragma once

#include <memory>

#include "seine/backend.hpp"

namespace seine {

std::unique_ptr<Backend> make_checked_backend(const BackendOptions& options);

}  // namespace seine
