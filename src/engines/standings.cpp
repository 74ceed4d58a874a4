#include "engines/standings.hpp"

#include <algorithm>
#include <cmath>

namespace seine {

Standings::Standings(const Pool& pool) : pool_(pool) {
  for (const std::int64_t row : pool.columns.rows) own_.push_back({HUGE_VAL, row, kNever, kNotListed});
  for (const Role role : pool.columns.role) open_.push_back(role == Role::candidate);
}

Standing Standings::pop() {
  std::pop_heap(front_.begin(), front_.end(), behind);
  const Standing top = front_.back();
  front_.pop_back();
  return top;
}

void Standings::push(const Standing& candidate) {
  front_.push_back(candidate);
  std::push_heap(front_.begin(), front_.end(), behind);
}

void Standings::refill() {
  put_back();
  std::vector<Standing> mine;
  for (std::size_t i = 0; i < own_.size(); ++i)
    if (open_[i]) mine.push_back(own_[i]);
  const auto keep_best = [](std::vector<Standing>& all) {
    const auto better = [](const Standing& a, const Standing& b) { return behind(b, a); };
    if (all.size() > kFront + 1) {
      std::nth_element(all.begin(), all.begin() + kFront, all.end(), better);
      all.resize(kFront + 1);
    }
    if (all.size() > kFront) std::nth_element(all.begin(), all.begin() + kFront, all.end(), better);
  };
  keep_best(mine);
  if (pool_.comm().size() > 1) mine = pool_.comm().gather(std::span<const Standing>(mine));
  keep_best(mine);
  behind_front_ = {kNoCandidate.value, kNoCandidate.row, kNever, kNotListed};
  if (mine.size() > kFront) {
    behind_front_ = mine.back();
    mine.pop_back();
  }
  front_ = std::move(mine);
  std::make_heap(front_.begin(), front_.end(), behind);
}

void Standings::put_back() {
  std::vector<std::int64_t> rows;
  for (const Standing& candidate : front_) rows.push_back(candidate.row);
  pool_.for_own(rows, [&](std::int64_t own, std::size_t i) { own_[static_cast<std::size_t>(own)] = front_[i]; });
  front_.clear();
}

void Standings::close(std::span<const std::int64_t> rows) {
  pool_.for_own(rows, [&](std::int64_t own, std::size_t) { open_[static_cast<std::size_t>(own)] = 0; });
}

void Standings::lower(std::span<const double> bounds) {
  put_back();
  for (std::size_t i = 0; i < bounds.size(); ++i)
    if (own_[i].known_at == kNever) own_[i].bound = std::min(own_[i].bound, bounds[i]);
}

std::vector<KnownGain> Standings::known() {
  put_back();
  std::vector<KnownGain> known;
  for (std::size_t i = 0; i < own_.size(); ++i)
    if (open_[i] && own_[i].known_at != kNever) known.push_back({own_[i].row, own_[i].bound, own_[i].known_at});
  return known;
}

void Standings::know(std::span<const KnownGain> gains, std::int64_t fits_at) {
  std::vector<std::int64_t> rows;
  for (const KnownGain& gain : gains) rows.push_back(gain.row);
  pool_.for_own(rows, [&](std::int64_t own, std::size_t i) {
    own_[static_cast<std::size_t>(own)] = {gains[i].gain, gains[i].row, gains[i].known_at, fits_at};
  });
}

}  // namespace seine
