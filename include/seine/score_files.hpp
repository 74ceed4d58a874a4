// `seine score`: a file of scores for every file of a pool.
#pragma once

#include <string>
#include <vector>

#include "seine/backend.hpp"
#include "seine/comm.hpp"
#include "seine/console.hpp"
#include "seine/request.hpp"

namespace seine {

// Collective. For every pool file one of the same base name in request.out, with /score float32 [n] and the root
// attributes strategy, request, pool_fingerprint. Returns their paths, in the order of the pool files.
std::vector<std::string> write_scores(const ScoreRequest& request, const Comm& comm, Backend& backend,
                                      const Console& console);

}  // namespace seine
