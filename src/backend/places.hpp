// The states of some rows, by their number in a call; for host and device.
#pragma once

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
  SEINE_HD double weight(std::int64_t row) const { return rows_.weight ? rows_.weight[(*this)[row]] : 1; }
  template <class Rule>
  SEINE_HD void settle(std::int64_t row, const typename Rule::State& state, std::int64_t seen) const {
    const std::int64_t at = (*this)[row];
    static_cast<typename Rule::State*>(rows_.state)[at] = state;
    rows_.key[at] = Rule::key(state, weight(row));
    if (rows_.applied) rows_.applied[at] = static_cast<std::uint32_t>(seen);
  }
  template <class Rule>
  SEINE_HD typename Rule::State state(std::int64_t row) const {
    return static_cast<const typename Rule::State*>(rows_.state)[(*this)[row]];
  }

 private:
  RowStates rows_;
};

}  // namespace seine
