#include "seine/work.hpp"

#include <cmath>

#include "seine/strategy.hpp"

namespace seine {
namespace {

// Picks of a batch over so many rows, which are at most all of them.
double picks_of(std::int64_t rows, const Request& request) {
  return static_cast<double>(std::max<std::int64_t>(std::min(request.batch, rows), 1));
}

// Scores that fall: a share of all pairs of row and pick, but every row meets the first.
Work work_of_falling(Meeting meeting, const Range& share, const Range& rounds, std::int64_t rows,
                     const Request& request) {
  const double picks = picks_of(rows, request);
  Work work;
  work.meeting = meeting;
  work.pairs = share.least(1 / picks).most(1) * (static_cast<double>(rows) * picks);
  work.rounds = rounds.least(1).most(picks);
  return work;
}

}  // namespace

Work work_of_one_pass(const PoolShape&, std::int64_t, const Request&) {
  return {};
}

Work work_of_farthest(const PoolShape&, std::int64_t rows, const Request& request) {
  const double picks = picks_of(rows, request);
  return work_of_falling(Meeting::screened_distance, {0.05, 0.11, 0.5},
                         {2 + picks / 1000, 5 + picks / 250, 10 + picks / 20}, rows, request);
}

// The more picks there are among the rows, the more rows have lost their bound to one of them.
Work work_of_race(const PoolShape&, std::int64_t rows, const Request& request) {
  const double picks = picks_of(rows, request), first = 1 / picks;
  const double later = picks / static_cast<double>(std::max<std::int64_t>(rows, 1));
  return work_of_falling(Meeting::distance, {first + 0.3 * later, first + 0.7 * later, first + 0.05 + 3 * later},
                         {1, 1.5 + picks / 1000, 4 + picks / 50}, rows, request);
}

Work work_of_variance(const PoolShape&, std::int64_t rows, const Request& request) {
  const double picks = picks_of(rows, request);
  return work_of_falling(Meeting::product, {0.4, 0.9, 1}, {2 + picks / 100, 2 * std::sqrt(picks), 8 + picks / 2}, rows,
                         request);
}

// The one place to adjust where the engine of facility location changes: the first gains of all rows, and what stale
// ones cost again.
Work work_of_coverage(const PoolShape& pool, std::int64_t rows, const Request& request) {
  const Entry& entry = strategy(request.strategy);
  const auto ground = static_cast<double>(ground_rows_of(entry, request, pool.rows));
  Work work;
  work.meeting = Meeting::similarity;
  work.pairs = Range{0.5, 1.5, 4} * (ground * static_cast<double>(rows));
  const double blocks = static_cast<double>(rows) / 1024;  // of first gains; then a few per pick
  const double picks = picks_of(rows, request);
  work.rounds = {blocks + picks, blocks + 5 * picks, blocks + 20 * picks};
  return work;
}

}  // namespace seine
