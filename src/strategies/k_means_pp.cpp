// k-means++ seeding (Arthur and Vassilvitskii 2007): rows are drawn in proportion to weight * squared distance from
// everything covered, as a race of exponential clocks. Without covered rows the first draw is uniform. One squared
// distance per row and pick.
#include <cmath>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

// A draw of its own, in proportion to the number of rows that each candidate stands for.
std::int64_t uniform_first(const Pool& pool, const Task& task) {
  std::vector<double> keys;
  for (std::size_t i = 0; i < pool.columns.rows.size(); ++i) {
    const auto row = static_cast<std::uint64_t>(pool.columns.rows[i]);
    const double stands_for = task.level > 0 ? (*pool.columns.weight)[i] : 1;
    const double clock = exponential(task.request.seed, Purpose("first", task.level), row);
    keys.push_back(stands_for > 0 ? -clock / stands_for : -HUGE_VAL);
  }
  return best_candidate(pool, keys);
}

Picked k_means_pp(Pool& pool, const Task& task) {
  Falling race;
  race.rule = RuleKind::race;
  race.purpose = Purpose("race", task.level);
  race.gain = [](double distance2, double) { return distance2; };
  race.weight = pool.columns.weight;
  if (!pool.columns.before) race.first = FirstPick{uniform_first(pool, task), std::nan("")};
  return pick_falling(pool, race, task);
}

}  // namespace

Entry k_means_pp_entry() {
  Entry entry;
  entry.name = "k_means_pp";
  entry.summary = "random and diverse: draws in proportion to the squared distance from everything covered";
  entry.inputs = "embeddings";
  entry.cost = "N B distances in D dimensions";
  entry.source = "Arthur and Vassilvitskii, k-means++: The Advantages of Careful Seeding, SODA 2007";
  entry.needs.embeddings = true;
  entry.objective = Objective::potential;
  entry.weights = true;
  entry.draws_by_distance = true;
  entry.pick = k_means_pp;
  entry.work = work_of_race;
  entry.state = [](const PoolShape& pool, const Request& request) {
    return falling_state(RuleKind::race, pool, request);
  };
  entry.cover = [](Pool& pool, const Task&, Prior& prior) { cover_by_distance(pool, prior); };
  return entry;
}

}  // namespace seine
