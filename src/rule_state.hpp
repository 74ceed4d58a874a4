// What a rule knows of some rows, in backend memory: those of a pool, or those of a round.
#pragma once

#include <cstdint>

#include "seine/backend.hpp"

namespace seine {

class RuleState {
 public:
  RuleState(Backend& backend, RuleKind rule, std::int64_t rows)
      : key(backend, rows),
        state(backend, rows * static_cast<std::int64_t>(state_bytes(rule))),
        applied(backend, rows),
        backend_(backend),
        rule_(rule),
        rows_(rows) {}

  void start(const Start& how, const double* weight) { backend_.start(rule_, how, rows_, view(weight)); }
  // Brings rows up to date whose key is at least `floor`; how many pairs of row and pick met.
  std::int64_t apply(const Vectors& rows, const Picks& picks, double floor, const double* weight) {
    if (rows_ == 0 || picks.vectors.rows == 0) return 0;
    return backend_.apply(rule_, rows, picks, floor, view(weight));
  }
  // The same for picks that are not kept: every row sees them now, and none is counted.
  void apply_all(const Vectors& rows, const Picks& picks) {
    if (rows_ == 0 || picks.vectors.rows == 0) return;
    backend_.apply(rule_, rows, picks, kNoCandidate.value, {state.data(), key.data(), nullptr, nullptr});
  }
  std::int64_t bytes() const { return static_cast<std::int64_t>(state_bytes(rule_)); }

  Array<double> key;
  Array<std::byte> state;
  Array<std::uint32_t> applied;

 private:
  RowStates view(const double* weight) { return {state.data(), key.data(), applied.data(), weight}; }

  Backend& backend_;
  RuleKind rule_;
  std::int64_t rows_;
};

}  // namespace seine
