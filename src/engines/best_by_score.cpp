#include "best.hpp"
#include "seine/pick.hpp"

namespace seine {

std::vector<Candidate> best_by_score(const Pool& pool, const BestScores* best, std::int64_t count) {
  if (best) return best_of(pool.comm(), best->mine, count);
  if (count <= 0) return {};
  Best mine(count);
  for (std::size_t i = 0; i < pool.columns.rows.size(); ++i)
    if (pool.columns.role[i] == Role::candidate) mine.offer({(*pool.columns.score)[i], pool.columns.rows[i]});
  return best_of(pool.comm(), mine.take(), count);
}

}  // namespace seine
