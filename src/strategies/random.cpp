// Uniform sampling without replacement: the rows with the smallest draws. The baseline of every certificate.
#include <cmath>

#include "strategies/strategies.hpp"

namespace seine {
namespace {

Picked pick_random(Pool& pool, const Task& task) {
  Picked picked;
  for (const std::int64_t row : draw_batch(pool, task.request.seed, task.batch))
    picked.selection.add(row, std::nanf(""), std::nan(""));
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
