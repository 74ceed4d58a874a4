// What a strategy is, and the table of all of them.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "seine/pool_files.hpp"
#include "seine/request.hpp"
#include "seine/rules.hpp"
#include "seine/work.hpp"

namespace seine {

class Pool;
struct Task;
struct Picked;
struct Prior;

// What a certificate measures; contract, section 6.
enum class Objective { none, scores, radius, potential, coverage, log_determinant };
std::string_view certificate_kind(Objective objective);  // as in the batch file

struct Parameter {
  std::string_view name;
  std::string_view value;    // default
  std::string_view choices;  // for people: "smallest_row | random | ...", "a number > 0"
  std::string_view meaning;
};

// Bytes that an engine keeps while it selects, at most. Where it is not plain from the types it was measured;
// tools/bench_plan.py compares.
struct EngineState {
  std::int64_t of_row = 0, beside = 0;
};

struct Entry {
  std::string_view name;
  std::string_view summary;  // one line
  std::string_view inputs;   // for people: "embeddings", "probabilities [N,T,C], T >= 2"
  std::string_view cost;     // for people, in N rows, B picks, D dimensions, C classes, T passes
  std::string_view source;   // paper
  Needs needs;
  std::span<const Parameter> parameters;
  Objective objective = Objective::none;
  bool weights = false;  // takes --score-power
  bool outer = false;    // geometry of gradient embeddings: residual (x) embedding
  // Covered rows take their label, where they have one, for the prediction in that geometry; null: never.
  bool (*residuals_by_label)(const Request&) = nullptr;
  bool unit_rows = false;          // --normalize l2 by default
  std::optional<ScoreKind> score;  // a score per row that `seine score` and --score know
  bool draws_by_distance = false;  // a D^2 race: merges carry weights
  Picked (*pick)(Pool&, const Task&) = nullptr;
  void (*cover)(Pool&, const Task&, Prior&) = nullptr;  // what covered rows do before the first pick; null: nothing
  // How many rows the objective sums over, of the pool's rows; null: all, or no sum.
  std::int64_t (*ground_rows)(const Request&, std::int64_t rows) = nullptr;
  WorkFunction work = nullptr;                                       // `cost` in numbers, for `seine plan`
  EngineState (*state)(const PoolShape&, const Request&) = nullptr;  // null: nothing of note
  void (*check)(const Request&) = nullptr;  // error 64 for a bad parameter value; null: nothing to check
};

std::span<const Entry> strategies();           // in the order of the README
const Entry& strategy(std::string_view name);  // error 64 that lists the known ones

// How many rows the objective of a request sums over, of `rows`.
std::int64_t ground_rows_of(const Entry& entry, const Request& request, std::int64_t rows);

// Error 64 where `set` has a parameter that the strategy does not know.
void check_parameters(const Entry& entry, const std::map<std::string, std::string>& set);

// The value of a parameter: from request.set, else the default.
std::string parameter(const Entry& entry, const std::map<std::string, std::string>& set, std::string_view name);

}  // namespace seine
