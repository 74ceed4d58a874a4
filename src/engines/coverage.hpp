// How far the ground rows of facility location are covered by the picks so far.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seine/pool.hpp"

namespace seine {

// Of each own ground row, now and after every earlier pick. A row's coverage rises seldom (after t picks about log t
// times), so its history is short.
class Coverage {
 public:
  explicit Coverage(const Pool& ground);

  const float* best() const { return best_.data(); }
  std::span<const float> on_host() const { return now_; }

  // One more pick. Which rows it covers better is known from what changed, or from its list of near rows.
  void raise(const Packed& pick);
  void raise(const Near* list, std::int64_t length);
  // The picks of a run that was stopped, in order and in one pass.
  void raise_in_order(const Packed& picks);

  // Adds to `losses` what these candidates have lost since `since` picks: at the rows that were covered better since,
  // between the levels from which and to which each was raised. How many rows these are.
  std::int64_t losses_since(std::int64_t since, const Packed& candidates, const Array<double>& weight, FixedPoint fixed,
                            std::int64_t* losses);

 private:
  struct Level {
    std::int64_t picks;  // after how many
    float similarity;
  };
  struct Raised {
    std::int64_t since = -1, picks = -1;
    std::vector<std::int64_t> rows;
    std::vector<float> then, now;
  };

  void find_raised(std::int64_t since);
  void raise_to(std::size_t row, float similarity, std::int64_t picks);

  const Pool& ground_;
  Array<float> best_;
  std::vector<float> now_;
  std::vector<std::int64_t> raised_at_;  // the last time
  std::vector<std::vector<Level>> history_;
  std::int64_t picks_ = 0;
  Raised raised_;
};

}  // namespace seine
