// The statement of quality that every batch carries (contract, section 6).
#pragma once

#include <cstdint>
#include <limits>
#include <string>

namespace seine {

constexpr std::int64_t kEvaluationRows = 16384;  // larger pools are sampled for what is dear
constexpr int kRandomBatches = 5;

struct Certificate {
  static constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

  std::string kind = "none";  // radius | submodular | potential | scores | none
  std::string objective;      // a sentence
  double value = kNone;
  double bound = kNone;
  std::string bound_kind;  // what the bound is, in a few words
  double ratio = kNone;
  double random = kNone;  // the same quantity for random batches of the same size, mean of 5
  std::int64_t rows = 0;  // how many rows the value was measured over
};

class Pool;
struct Task;
struct Picked;

// Collective. Measures what was picked: `exact` where the picks are the sequential algorithm's over the whole pool.
Certificate certify(const Pool& pool, const Task& task, const Picked& picked, bool exact);

// value / bound, where 0 / 0 is 1.
double certificate_ratio(double value, double bound);

}  // namespace seine
