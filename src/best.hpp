// The best of many candidates, in bounded memory and without sorting them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "seine/order.hpp"

namespace seine {

// Keeps the `count` best, best first.
inline void keep_best(std::vector<Candidate>& candidates, std::int64_t count) {
  const auto kept = std::clamp<std::int64_t>(count, 0, static_cast<std::int64_t>(candidates.size()));
  std::partial_sort(candidates.begin(), candidates.begin() + kept, candidates.end(), beats);
  candidates.resize(static_cast<std::size_t>(kept));
}

class Best {
 public:
  explicit Best(std::int64_t count) : count_(static_cast<std::size_t>(count)) {}
  void offer(const Candidate& candidate) {
    if (full_ && !beats(candidate, worst_)) return;
    kept_.push_back(candidate);
    if (kept_.size() >= 2 * count_ + 64) shrink();
  }
  // A value that no candidate of a smaller one can come in with; -infinity until it is known.
  double floor() const { return worst_.value; }
  // The best, in no order.
  std::vector<Candidate> take() {
    shrink();
    return std::move(kept_);
  }

 private:
  void shrink() {
    if (kept_.size() <= count_) return;
    const auto nth = kept_.begin() + static_cast<std::ptrdiff_t>(count_);
    std::nth_element(kept_.begin(), nth - 1, kept_.end(), beats);
    kept_.erase(nth, kept_.end());
    worst_ = kept_.back();
    full_ = true;
  }

  std::size_t count_;
  std::vector<Candidate> kept_;
  Candidate worst_ = kNoCandidate;
  bool full_ = false;
};

}  // namespace seine
