// Facility location (Nemhauser, Wolsey and Fisher 1978): greedy on the sum over ground rows of the largest cosine to
// covered and batch, clipped at 0. Gains are integers (similarities in fixed point), so lazy evaluation is exact. A
// gain of zero goes to the smallest row. Gains are bounded by moments and by short shadows of the rows before they are
// summed, and remembered as short lists while memory lasts; nothing needs N^2 of it.
#include <charconv>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

constexpr Parameter kParameters[] = {
    {"ground", "auto", "auto | all | a number of rows >= 1",
     "rows that the objective sums over; auto: all up to 262,144, else 65,536 drawn by (seed, row)"},
};
constexpr std::int64_t kMostGroundRows = 262144;
constexpr std::int64_t kGroundSample = 65536;

Picked facility_location(Pool& pool, const Task& task) {
  return pick_covering(pool, task.ground ? *task.ground : pool, task);
}

std::int64_t ground_rows(const Request& request, std::int64_t rows) {
  const std::string ground = parameter(strategy(request.strategy), request.set, "ground");
  if (ground == "all") return rows;
  if (ground == "auto") return rows <= kMostGroundRows ? rows : kGroundSample;
  std::int64_t wanted = 0;
  const auto [end, error] = std::from_chars(ground.data(), ground.data() + ground.size(), wanted);
  if (error != std::errc() || end != ground.data() + ground.size() || wanted < 1)
    bad_parameter(request, "ground", kParameters[0].choices);
  return std::min(wanted, rows);
}

}  // namespace

Entry facility_location_entry() {
  Entry entry;
  entry.name = "facility_location";
  entry.summary = "represent the pool: every row should be similar to some row of the batch";
  entry.inputs = "embeddings";
  entry.cost = "N D^2 for a bound, then 0.5 to 4 times (5 without memory for lists) N ground rows in D dimensions";
  entry.source =
      "Nemhauser, Wolsey and Fisher, An Analysis of Approximations for Maximizing Submodular Set Functions, "
      "1978; Minoux, Accelerated Greedy Algorithms for Maximizing Submodular Set Functions, 1978";
  entry.needs.embeddings = true;
  entry.parameters = kParameters;
  entry.objective = Objective::coverage;
  entry.weights = true;
  entry.unit_rows = true;
  entry.pick = facility_location;
  entry.work = work_of_coverage;
  entry.state = [](const PoolShape& pool, const Request& request) {
    return covering_state(pool, ground_rows(request, pool.rows));
  };
  entry.cover = [](Pool& pool, const Task&, Prior& prior) { cover_by_similarity(pool, prior); };
  entry.ground_rows = ground_rows;
  entry.check = [](const Request& request) { ground_rows(request, 1); };
  return entry;
}

}  // namespace seine
