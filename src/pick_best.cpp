#include "seine/pick.hpp"

namespace seine {

Picked pick_best(Pool& pool, const std::function<Candidate(std::int64_t own)>& value, const Task& task,
                 const std::function<double(const Candidate&)>& gain) {
  std::vector<Candidate> mine;
  for (std::int64_t i = 0; i < pool.own(); ++i)
    if (pool.columns.role[static_cast<std::size_t>(i)] == Role::candidate) mine.push_back(value(i));
  const std::vector<Candidate> best = best_of(pool.comm(), std::move(mine), task.batch);
  const std::vector<std::int64_t> rows = rows_of(best);
  const std::vector<float> scores = pool.fetch_scores(rows);
  Picked picked;
  for (std::size_t i = 0; i < rows.size(); ++i) picked.selection.add(rows[i], scores[i], gain(best[i]));
  return picked;
}

}  // namespace seine
