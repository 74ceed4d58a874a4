// The table of all strategies, in the order of the README.
#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "seine/error.hpp"
#include "strategies/strategies.hpp"

namespace seine {

std::span<const Entry> strategies() {
  static const Entry kTable[] = {
      random_entry(),     entropy_entry(), least_confidence_entry(),  margin_entry(),  bald_entry(), k_center_entry(),
      k_means_pp_entry(), badge_entry(),   facility_location_entry(), log_det_entry(),
  };
  return kTable;
}

const Entry& strategy(std::string_view name) {
  std::string known;
  for (const Entry& entry : strategies()) {
    if (entry.name == name) return entry;
    known += fmt::format("{}{}", known.empty() ? "" : ", ", entry.name);
  }
  throw Error(Exit::usage, fmt::format("unknown strategy \"{}\"; known: {}", name, known));
}

std::int64_t ground_rows_of(const Entry& entry, const Request& request, std::int64_t rows) {
  return entry.ground_rows ? entry.ground_rows(request, rows) : rows;
}

void check_parameters(const Entry& entry, const std::map<std::string, std::string>& set) {
  std::vector<std::string_view> known;
  for (const Parameter& parameter : entry.parameters) known.push_back(parameter.name);
  for (const auto& [name, value] : set)
    if (std::find(known.begin(), known.end(), name) == known.end())
      throw Error(Exit::usage, fmt::format("strategy {}: unknown parameter \"{}\"; known: {}", entry.name, name,
                                           known.empty() ? "none" : fmt::to_string(fmt::join(known, ", "))));
}

std::string parameter(const Entry& entry, const std::map<std::string, std::string>& set, std::string_view name) {
  const auto given = set.find(std::string(name));
  if (given != set.end()) return given->second;
  const auto known = std::find_if(entry.parameters.begin(), entry.parameters.end(),
                                  [&](const Parameter& parameter) { return parameter.name == name; });
  require(known != entry.parameters.end(), "a strategy asks for parameters that it declares");
  return std::string(known->value);
}

std::string_view certificate_kind(Objective objective) {
  switch (objective) {
    case Objective::scores:
      return "scores";
    case Objective::radius:
      return "radius";
    case Objective::potential:
      return "potential";
    case Objective::coverage:
    case Objective::log_determinant:
      return "submodular";
    default:
      return "none";
  }
}

void bad_parameter(const Request& request, std::string_view name, std::string_view expected) {
  throw Error(Exit::usage, fmt::format("strategy {}: {}: expected {}, found \"{}\"", request.strategy, name, expected,
                                       parameter(strategy(request.strategy), request.set, name)));
}

}  // namespace seine
