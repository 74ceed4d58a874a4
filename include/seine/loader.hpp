// From pool files to a Pool: every rank reads its own rows, scores them on the way, and keeps what the strategy needs.
// Each thread takes blocks of rows and does everything with them while they are in its cache, so reading, checking,
// hashing and scoring overlap. Scores are computed on the host, whatever the device: a row is looked at once, which
// costs no more than sending it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

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
  std::int64_t best = 0;  // > 0: of the scores only this many best candidates, which is much quicker
  double copies = 1;      // how often the rows are in memory at most (merges move them once)
  int threads = 1;
};

struct Loaded {
  Pool pool;
  std::string fingerprint;  // of the content read, whatever the sharding
  double read_seconds = 0, score_seconds = 0;
  std::vector<Candidate> best;  // where wanted: this rank's best candidates; the pool has no scores then
};

// Collective. Error 71 with the numbers where the rows do not fit `memory_gib`.
Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted,
            std::optional<double> memory_gib, const Console* console);

// Collective. Scores of single rows by global number, in the order given, read again.
std::vector<float> scores_of(const Pool& pool, const PoolFiles& files, ScoreKind kind,
                             std::span<const std::int64_t> rows);

// Seconds since it was made or last read.
class Stopwatch {
 public:
  Stopwatch();
  double lap();

 private:
  double since_;
};

}  // namespace seine
