// From pool files to a Pool: every rank reads its own rows, block by block, scores them on the way, and keeps what the
// strategy needs.
#pragma once

#include <optional>
#include <string>

#include "seine/console.hpp"
#include "seine/input.hpp"
#include "seine/pool.hpp"

namespace seine {

struct Wanted {
  bool embeddings = false;
  bool unit_rows = false;           // divided by their 2-norm
  bool residuals = false;           // of the prediction, for gradient embeddings
  bool residuals_by_label = false;  // covered rows take their label, where they have one, for the prediction
  std::optional<ScoreKind> score;
  double copies = 1;  // how often the rows are in memory at most (merges move them once)
};

struct Loaded {
  Pool pool;
  std::string fingerprint;  // of the content read, whatever the sharding
  double read_seconds = 0, score_seconds = 0;
};

// Collective. Error 71 with the numbers where the rows do not fit `memory_gib`.
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
