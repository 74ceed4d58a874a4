// Greedy on log det(I + K / noise), K = X X^T: the most informative rows for a linear model (Chen, Zhang and Zhou 2018,
// in feature space). A row's gain is log(1 + variance / noise), where the variance is what covered and batch leave of
// it. One product per row and pick, D^2 replicated; float64.
#include <cmath>
#include <cstdlib>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

constexpr Parameter kParameters[] = {
    {"noise", "0.01", "a number > 0", "variance of the observation noise"},
};

double noise_of(const Request& request) {
  const std::string text = parameter(strategy(request.strategy), request.set, "noise");
  char* end = nullptr;
  const double noise = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !(noise > 0) || std::isinf(noise))
    bad_parameter(request, "noise", kParameters[0].choices);
  return noise;
}

Picked log_det(Pool& pool, const Task& task) {
  Falling variance;
  variance.rule = RuleKind::variance;
  variance.noise = task.prior->noise;
  variance.gain = [](double left, double noise) { return log_one_plus(left / noise); };
  return pick_falling(pool, variance, task);
}

}  // namespace

Entry log_det_entry() {
  Entry entry;
  entry.name = "log_det";
  entry.summary = "informative for a linear model: greedy on the log-determinant";
  entry.inputs = "embeddings";
  entry.cost = "N B products in D dimensions, B D^2 replicated";
  entry.source =
      "Chen, Zhang and Zhou, Fast Greedy MAP Inference for Determinantal Point Process to Improve Recommendation "
      "Diversity, NeurIPS 2018";
  entry.needs.embeddings = true;
  entry.parameters = kParameters;
  entry.objective = Objective::log_determinant;
  entry.unit_rows = true;
  entry.pick = log_det;
  entry.work = work_of_variance;
  entry.state = [](const PoolShape& pool, const Request& request) {
    return falling_state(RuleKind::variance, pool, request);
  };
  entry.cover = [](Pool& pool, const Task& task, Prior& prior) {
    prior.noise = noise_of(task.request);
    cover_by_variance(pool, task.unit_rows, prior);
  };
  entry.check = [](const Request& request) { noise_of(request); };
  return entry;
}

}  // namespace seine
