// The states of some rows, by their number in a call; for host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "seine/backend.hpp"

namespace seine {

// The states of the rows of a call, wherever they lie.
class Places {
 public:
  explicit Places(const RowStates& rows) : rows_(rows) {}
  SEINE_HD std::int64_t operator[](std::int64_t row) const { return rows_.at ? rows_.at[row] : row; }
  SEINE_HD std::int64_t seen(std::int64_t row) const { return rows_.applied ? rows_.applied[(*this)[row]] : 0; }
  SEINE_HD double key(std::int64_t row) const { return rows_.key[(*this)[row]]; }
  // It has not seen all picks, and its key is at least `floor`.
  SEINE_HD bool is_behind(std::int64_t row, std::int64_t picks, double floor) const {
    return (key(row) >= floor) & (seen(row) < picks);
  }
  SEINE_HD double weight(std::int64_t row) const { return weight_at((*this)[row]); }
  // The state at a place, before the first pick.
  template <class Rule>
  SEINE_HD void start(std::int64_t at, const Start& how) const {
    const double before = how.before ? how.before[at] : HUGE_VAL;
    const std::int64_t number = how.global_rows ? how.global_rows[at] : at;
    write<Rule>(at, Rule::start(before, weight_at(at), how.seed, how.purpose, number), 0);
  }
  template <class Rule>
  SEINE_HD void settle(std::int64_t row, const typename Rule::State& state, std::int64_t seen) const {
    write<Rule>((*this)[row], state, seen);
  }
  template <class Rule>
  SEINE_HD typename Rule::State state(std::int64_t row) const {
    return static_cast<const typename Rule::State*>(rows_.state)[(*this)[row]];
  }

 private:
  SEINE_HD double weight_at(std::int64_t at) const { return rows_.weight ? rows_.weight[at] : 1; }
  template <class Rule>
  SEINE_HD void write(std::int64_t at, const typename Rule::State& state, std::int64_t seen) const {
    static_cast<typename Rule::State*>(rows_.state)[at] = state;
    rows_.key[at] = Rule::key(state, weight_at(at));
    if (rows_.applied) rows_.applied[at] = static_cast<std::uint32_t>(seen);
  }

  RowStates rows_;
};

}  // namespace seine
