// k-center greedy (Gonzalez 1985; core-set selection, Sener and Savarese 2018): the row that is farthest from
// everything covered so far. With weights, the largest weight * distance (Dyer and Frieze 1985). Equal distances go to
// the smaller row. One squared distance per row and pick.
#include <cmath>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

constexpr Parameter kParameters[] = {
    {"first", "smallest_row", "smallest_row | random | max_norm | farthest_from_mean",
     "the first pick where nothing is covered"},
};

// Squared distance of the own rows to the mean of all rows, summed in fixed point.
std::vector<double> distances2_to_mean(const Pool& pool) {
  const auto dim = static_cast<std::size_t>(pool.dim());
  std::vector<double> norms = pool.squared_norms().to_host();
  for (double& norm : norms) norm = std::sqrt(norm);
  const FixedPoint fixed = FixedPoint::for_sum(pool.rows(), largest_over(pool.comm(), norms));
  std::vector<std::int64_t> sums(dim);
  pool.each_row([&](std::int64_t, std::span<const float> row) {
    for (std::size_t c = 0; c < dim; ++c) sums[c] += fixed.of(row[c]);
  });
  pool.comm().sum(sums);
  std::vector<float> mean;
  for (const std::int64_t sum : sums)
    mean.push_back(static_cast<float>(fixed.value(sum) / static_cast<double>(pool.rows())));
  std::vector<double> distances2;
  pool.each_row([&](std::int64_t, std::span<const float> row) {
    distances2.push_back(canonical_distance2(row.data(), mean.data(), pool.dim()));
  });
  return distances2;
}

// What the first pick maximises where nothing is covered.
std::vector<double> first_keys(const Pool& pool, const Task& task) {
  const std::string first = task.parameter("first");
  if (first == "max_norm") return pool.squared_norms().to_host();
  if (first == "farthest_from_mean") return distances2_to_mean(pool);
  std::vector<double> keys(static_cast<std::size_t>(pool.own()), 0.0);
  if (first == "random")
    for (std::size_t i = 0; i < keys.size(); ++i)
      keys[i] = -uniform(task.request.seed, Purpose("first"), static_cast<std::uint64_t>(pool.columns.rows[i]));
  return keys;
}

Picked k_center(Pool& pool, const Task& task) {
  Falling farthest;
  farthest.rule = RuleKind::nearest;
  farthest.gain = [](double distance2, double) { return std::sqrt(distance2); };
  farthest.weight = pool.columns.weight;
  if (farthest.weight)
    for (double& weight : *farthest.weight) weight *= weight;
  if (!pool.columns.before) farthest.first = FirstPick{best_candidate(pool, first_keys(pool, task)), HUGE_VAL};
  return pick_falling(pool, farthest, task);
}

void check(const Request& request) {
  const std::string first = parameter(strategy(request.strategy), request.set, "first");
  if (first != "smallest_row" && first != "random" && first != "max_norm" && first != "farthest_from_mean")
    bad_parameter(request, "first", kParameters[0].choices);
}

}  // namespace

Entry k_center_entry() {
  Entry entry;
  entry.name = "k_center";
  entry.summary = "cover the embedding space: the row farthest from everything covered";
  entry.inputs = "embeddings";
  entry.cost = "N B distances in D dimensions";
  entry.source =
      "Gonzalez, Clustering to Minimize the Maximum Intercluster Distance, 1985; Sener and Savarese, Active Learning "
      "for Convolutional Neural Networks: A Core-Set Approach, ICLR 2018";
  entry.needs.embeddings = true;
  entry.parameters = kParameters;
  entry.objective = Objective::radius;
  entry.weights = true;
  entry.pick = k_center;
  entry.work = work_of_farthest;
  entry.state = [](const PoolShape& pool, const Request& request) {
    return falling_state(RuleKind::nearest, pool, request);
  };
  entry.cover = [](Pool& pool, const Task&, Prior& prior) { cover_by_distance(pool, prior); };
  entry.check = check;
  return entry;
}

}  // namespace seine
