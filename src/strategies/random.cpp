// Uniform sampling without replacement: the rows with the smallest draws. The baseline of every certificate.
#include <cmath>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

Picked pick_random(Pool& pool, const Task& task) {
  const auto draw = [&](std::int64_t own) {
    const std::int64_t row = pool.columns.rows[static_cast<std::size_t>(own)];
    return Candidate{-uniform(task.request.seed, Purpose("random"), static_cast<std::uint64_t>(row)), row};
  };
  Picked picked = pick_best(pool, draw, task, [](const Candidate&) { return std::nan(""); });
  picked.selection.scores.assign(picked.selection.rows.size(), std::nanf(""));
  return picked;
}

}  // namespace

Entry random_entry() {
  Entry entry;
  entry.name = "random";
  entry.summary = "a uniform sample, the baseline";
  entry.inputs = "nothing";
  entry.cost = "N draws";
  entry.source = "Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches, PODC 2007";
  entry.objective = Objective::none;
  entry.pick = pick_random;
  entry.work = work_of_one_pass;
  return entry;
}

}  // namespace seine
