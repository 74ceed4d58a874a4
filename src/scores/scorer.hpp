// The scores of rows while they are read: of every row, or only of the best candidates.
//
// For the best a row is scored in float64 only if a bound in float32 does not rule it out. A row is ruled out if its
// bound lies below a value that enough candidates of some thread have reached, so which rows are scored depends on
// time, and which are the best does not.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "best.hpp"
#include "scores/score_kernel.hpp"
#include "seine/pool_files.hpp"
#include "seine/roles.hpp"

namespace seine {

// One per thread.
class Scorer {
 public:
  // best: how many are wanted; 0: all. floor: the same for all threads, -infinity in the beginning.
  Scorer(const PoolShape& shape, ScoreKind kind, std::int64_t best, std::atomic<double>& floor);

  void score_all(const Distributions& rows, float* out);        // out[i]: of row i of `rows`
  void keep_best(const Distributions& rows, const Role* role);  // role[i]: likewise
  std::vector<Candidate> best();                                // of the rows so far, in no order

 private:
  template <class Work>
  void for_steps(std::int64_t rows, const Work& work);
  void offer(const Distributions& rows);
  const double* wide(const Distributions& rows, std::int64_t first, std::int64_t count);
  const float* narrow(const Distributions& rows, std::int64_t first, std::int64_t count);

  ScoreKind kind_;
  std::int64_t passes_, classes_, width_;
  bool wants_best_;
  Best best_;
  std::atomic<double>& floor_;
  ExactScores exact_;
  std::vector<std::int64_t> chosen_;  // positions of rows that no bound rules out
  std::vector<float> values_, narrow_;
  std::vector<double> wide_;
};

}  // namespace seine
