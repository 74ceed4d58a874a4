// What a command keeps of the rows of a pool, and what it must find in their files.
#pragma once

#include <cstdint>
#include <optional>

#include "seine/pool_files.hpp"
#include "seine/request.hpp"
#include "seine/row_store.hpp"
#include "seine/rules.hpp"
#include "seine/strategy.hpp"

namespace seine {

// What of a row a command keeps.
struct Wanted {
  bool embeddings = false;
  bool unit_rows = false;           // divided by their 2-norm
  bool half_rows = false;           // float16 may stay float16
  bool residuals = false;           // of the prediction, for gradient embeddings
  bool residuals_by_label = false;  // covered rows take their label, where they have one, for the prediction
  std::optional<ScoreKind> score;
  std::int64_t best = 0;          // > 0: of the scores only this many best candidates, which is much quicker
  double copies = 1;              // how often the vectors are in memory at most, if they are (merges move them)
  bool regrouped = false;         // rows move between ranks
  std::int64_t batch = 0;         // picks that are kept beside the rows
  EngineState state;              // of the engine
  std::int64_t copied_rows = 0;   // of all ranks, while a batch is selected: ground rows, rows that were kept
  std::int64_t sampled_rows = 0;  // of all ranks, while it is certified
  int threads = 1;
};

// Of `seine select`, and what it must find in the files.
Wanted wanted_by(const Request& request, const Entry& entry, const PoolShape& shape);
Needs needs_of(const Request& request, const Entry& entry);
// Whether the labelled pool of the request is read, and what is kept of its rows.
bool reads_labelled_pool(const Request& request, const Entry& entry);
Wanted outside_of(Wanted wanted);

RowFormat row_format(const PoolShape& shape, const Wanted& wanted);

}  // namespace seine
