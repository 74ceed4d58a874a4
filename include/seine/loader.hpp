// From pool files to a Pool: every rank reads its own rows, block by block, scores them on the way, and keeps what the
// strategy needs.
#pragma once

#include <optional>
#include <string>

#include "seine/console.hpp"
#include "seine/input.hpp"
#include "seine/pool.hpp"
#include "seine/residency.hpp"

namespace seine {

struct Loaded {
  Pool pool;
  std::string fingerprint;  // of the content read, whatever the sharding
  double read_seconds = 0, score_seconds = 0;
};

// Collective. Vectors that do not fit `memory_gib` on some rank are streamed on all: read again when they are asked for.
// Error 71 with the numbers where not even what is known of every row fits.
Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted,
            std::optional<double> memory_gib, const Console* console);

// The fingerprint of two pools that were read together.
std::string combined_fingerprint(const std::string& one, const std::string& other);

// Seconds since it was made or last read.
class Stopwatch {
 public:
  Stopwatch();
  double lap();

 private:
  double since_;
};

}  // namespace seine
