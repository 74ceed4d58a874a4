#include "scores/scorer.hpp"

#include <algorithm>

namespace seine {

Scorer::Scorer(const PoolShape& shape, ScoreKind kind, std::int64_t best, std::atomic<double>& floor)
    : kind_(kind),
      passes_(std::max<std::int64_t>(shape.passes, 1)),
      classes_(shape.classes),
      width_(passes_ * classes_),
      wants_best_(best > 0),
      best_(std::max<std::int64_t>(best, 1)),
      floor_(floor) {}

void Scorer::score_all(const Distributions& rows, float* out) {
  for_steps(rows.count, [&](std::int64_t i, std::int64_t count) {
    exact_(kind_, wide(rows, i, count), count, passes_, classes_, out + i);
  });
}

void Scorer::keep_best(const Distributions& rows, const Role* role) {
  for_steps(rows.count, [&](std::int64_t i, std::int64_t count) {
    const double floor = floor_.load(std::memory_order_relaxed);
    const bool can_rule_out = floor > kNoCandidate.value;
    if (can_rule_out) score_kernels().bounds(kind_, narrow(rows, i, count), count, passes_, classes_, values_.data());
    chosen_.clear();
    for (std::int64_t r = 0; r < count; ++r) {
      const bool is_ruled_out = can_rule_out && values_[static_cast<std::size_t>(r)] < floor;
      if (role[i + r] == Role::candidate && !is_ruled_out) chosen_.push_back(i + r);
    }
    offer(rows);
  });
}

std::vector<Candidate> Scorer::best() {
  return wants_best_ ? best_.take() : std::vector<Candidate>();
}

// Few rows at a time: they stay in the cache with their float64 copies, and the floor rises early.
template <class Work>
void Scorer::for_steps(std::int64_t rows, const Work& work) {
  const std::int64_t step = std::clamp<std::int64_t>(16384 / width_, 1, 1024);
  values_.resize(static_cast<std::size_t>(step));
  for (std::int64_t i = 0; i < rows; i += step) work(i, std::min(step, rows - i));
}

void Scorer::offer(const Distributions& rows) {
  if (chosen_.empty()) return;
  const auto count = static_cast<std::int64_t>(chosen_.size());
  wide_.resize(static_cast<std::size_t>(count * width_));
  double* out = wide_.data();
  for (const std::int64_t i : chosen_) {
    rows.part(i, 1, width_).copy(width_, out);
    out += width_;
  }
  exact_(kind_, wide_.data(), count, passes_, classes_, values_.data());
  for (std::size_t k = 0; k < chosen_.size(); ++k) best_.offer({values_[k], rows.first + chosen_[k]});
  double known = floor_.load(std::memory_order_relaxed);
  while (best_.floor() > known && !floor_.compare_exchange_weak(known, best_.floor(), std::memory_order_relaxed)) {
  }
}

const double* Scorer::wide(const Distributions& rows, std::int64_t first, std::int64_t count) {
  if (rows.wide) return rows.wide + first * width_;
  wide_.resize(static_cast<std::size_t>(count * width_));
  rows.part(first, count, width_).copy(width_, wide_.data());
  return wide_.data();
}

const float* Scorer::narrow(const Distributions& rows, std::int64_t first, std::int64_t count) {
  if (rows.narrow) return rows.narrow + first * width_;
  narrow_.resize(static_cast<std::size_t>(count * width_));
  std::transform(rows.wide + first * width_, rows.wide + (first + count) * width_, narrow_.begin(),
                 [](double x) { return static_cast<float>(x); });
  return narrow_.data();
}

}  // namespace seine
