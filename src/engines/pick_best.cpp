#include "seine/pick.hpp"

#include "best.hpp"

namespace seine {

std::vector<Candidate> best_candidates(const Pool& pool, const std::function<Candidate(std::int64_t own)>& value,
                                       std::int64_t count) {
  if (count <= 0) return {};
  Best best(count);
  for (std::int64_t i = 0; i < pool.own(); ++i)
    if (pool.columns.role[static_cast<std::size_t>(i)] == Role::candidate) best.offer(value(i));
  return best_of(pool.comm(), best.take(), count);
}

std::vector<Candidate> best_by_score(const Pool& pool, const BestScores* best, std::int64_t count) {
  if (best) return best_of(pool.comm(), best->mine, count);
  return best_candidates(
      pool,
      [&](std::int64_t own) {
        const auto i = static_cast<std::size_t>(own);
        return Candidate{(*pool.columns.score)[i], pool.columns.rows[i]};
      },
      count);
}

Picked pick_best(Pool& pool, const std::function<Candidate(std::int64_t own)>& value, const Task& task,
                 const std::function<double(const Candidate&)>& gain) {
  const std::vector<Candidate> best = best_candidates(pool, value, task.batch);
  const std::vector<std::int64_t> rows = rows_of(best);
  const std::vector<float> scores = pool.fetch_scores(rows);
  Picked picked;
  for (std::size_t i = 0; i < rows.size(); ++i) picked.selection.add(rows[i], scores[i], gain(best[i]));
  return picked;
}

}  // namespace seine
