// BADGE (Ash et al. 2020): k-means++ seeding over gradient embeddings (e_y - p) (x) x of the last layer, which are
// never formed. The first pick has the largest gradient; covered rows count only when `conditioned`. Where no row is
// left at a distance, the larger gradient goes first, then the smaller row.
#include <cmath>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

constexpr Parameter kParameters[] = {
    {"conditioned", "false", "true | false",
     "draws start from the covered rows, with their labels where there are any"},
};

Picked badge(Pool& pool, const Task& task) {
  const std::vector<double> norms = pool.squared_norms().to_host();
  pool.columns.score.emplace(norms.begin(), norms.end());
  Falling race;
  race.rule = RuleKind::race;
  race.purpose = Purpose("race", task.level);
  race.gain = [](double distance2, double) { return distance2; };
  race.weight = pool.columns.weight;
  race.filler = norms;
  if (!pool.columns.before) {
    const std::int64_t row = best_candidate(pool, norms);
    race.first = FirstPick{row, pool.fetch_column(std::span(&row, 1), norms)[0]};
  }
  return pick_falling(pool, race, task);
}

bool is_conditioned(const Request& request) {
  return parameter(strategy(request.strategy), request.set, "conditioned") == "true";
}

void check(const Request& request) {
  const std::string conditioned = parameter(strategy(request.strategy), request.set, "conditioned");
  if (conditioned != "true" && conditioned != "false") bad_parameter(request, "conditioned", kParameters[0].choices);
}

}  // namespace

Entry badge_entry() {
  Entry entry;
  entry.name = "badge";
  entry.summary = "uncertain and diverse: k-means++ over gradient embeddings";
  entry.inputs = "embeddings and probabilities (or logits)";
  entry.cost = "N B distances in D + C dimensions";
  entry.source = "Ash et al., Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds, ICLR 2020";
  entry.needs.embeddings = true;
  entry.needs.probabilities = true;
  entry.parameters = kParameters;
  entry.objective = Objective::potential;
  entry.outer = true;
  entry.draws_by_distance = true;
  entry.pick = badge;
  entry.work = work_of_race;
  entry.state = [](const PoolShape& pool, const Request& request) {
    EngineState state = falling_state(RuleKind::race, pool, request);
    state.of_row += 30;  // norms, score and filler
    return state;
  };
  entry.residuals_by_label = is_conditioned;
  entry.cover = [](Pool& pool, const Task& task, Prior& prior) {
    if (is_conditioned(task.request)) cover_by_distance(pool, prior);
  };
  entry.check = check;
  return entry;
}

}  // namespace seine
