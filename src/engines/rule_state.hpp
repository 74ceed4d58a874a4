// What a rule knows of some rows, in backend memory: those of a pool, or those of a round.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "seine/backend.hpp"
#include "seine/row_store.hpp"

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
  std::int64_t apply(const RowStore& store, const Picks& picks, double floor, const double* weight) {
    if (store.resident()) return apply(store.vectors(), picks, floor, weight);
    const std::vector<double> keys = key.to_host();
    std::int64_t met = 0;
    store.visit(behind(keys, floor, picks.vectors.rows), keys, [&](const Vectors& rows, const std::int64_t* at) {
      RowStates states = view(weight);
      states.at = at;
      met += backend_.apply(rule_, rows, picks, floor, states);
    });
    return met;
  }
  // The same for picks that are not kept: every row sees them now, and none is counted.
  void apply_all(const RowStore& store, const Picks& picks) {
    if (rows_ == 0 || picks.vectors.rows == 0) return;
    store.visit_all([&](std::int64_t first, const Vectors& rows) {
      backend_.apply(rule_, rows, picks, kNoCandidate.value,
                     {state.data() + first * bytes(), key.data() + first, nullptr, nullptr});
    });
  }
  std::int64_t bytes() const { return static_cast<std::int64_t>(state_bytes(rule_)); }

  Array<double> key;
  Array<std::byte> state;
  Array<std::uint32_t> applied;

 private:
  // Rows whose keys are at least `floor` and that have not seen all picks. As many as all rows: no room to spare.
  std::vector<std::int64_t> behind(std::span<const double> keys, double floor, std::int64_t picks) const {
    const std::vector<std::uint32_t> seen = applied.to_host();
    const auto is_behind = [&](std::size_t i) { return keys[i] >= floor && seen[i] < picks; };
    std::size_t count = 0;
    for (std::size_t i = 0; i < keys.size(); ++i) count += is_behind(i);
    std::vector<std::int64_t> rows;
    rows.reserve(count);
    for (std::size_t i = 0; i < keys.size(); ++i)
      if (is_behind(i)) rows.push_back(static_cast<std::int64_t>(i));
    return rows;
  }
  RowStates view(const double* weight) { return {state.data(), key.data(), applied.data(), weight}; }

  Backend& backend_;
  RuleKind rule_;
  std::int64_t rows_;
};

}  // namespace seine
