#include <algorithm>
#include <cmath>

#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/pick.hpp"

namespace seine {
namespace {

constexpr std::int64_t kFirstBlock = 1024;  // candidates whose first gains are computed together
constexpr std::int64_t kBlock = 16;         // candidates that are brought up to date together, to begin with
constexpr std::int64_t kLargestBlock = 256;
constexpr std::int64_t kSearched = 1024;  // best bounds among which those of one age are looked for

// How far each own ground row is covered, now and after every earlier pick. A row's coverage rises seldom (after t
// picks about log t times), so its history is short.
class Coverage {
 public:
  explicit Coverage(const Pool& ground)
      : ground_(ground),
        best_(similarities_before(ground, ground.columns.before)),
        now_(best_.to_host()),
        raised_at_(now_.size(), 0) {
    for (const float best : now_) history_.push_back({{0, best}});
  }

  const Array<float>& best() const { return best_; }

  // One more pick. Which rows it covers better is known from what changed.
  void raise(const Packed& pick) {
    ++picks_;
    seine::raise(ground_, pick, best_);
    const std::vector<float> before = std::move(now_);
    now_ = best_.to_host();
    for (std::size_t i = 0; i < now_.size(); ++i) {
      if (!(now_[i] > before[i])) continue;
      history_[i].push_back({picks_, now_[i]});
      raised_at_[i] = picks_;
    }
  }

  // The rows that were covered better after `since` picks: between which levels each was raised.
  struct Raised {
    std::vector<std::int64_t> rows;
    std::vector<float> then, now;
  };
  Raised raised_since(std::int64_t since) const {
    Raised raised;
    for (std::size_t i = 0; i < history_.size(); ++i) {
      if (raised_at_[i] <= since) continue;
      const std::vector<Level>& levels = history_[i];
      std::size_t at = levels.size() - 1;
      while (levels[at].picks > since) --at;
      raised.rows.push_back(static_cast<std::int64_t>(i));
      raised.then.push_back(levels[at].similarity);
      raised.now.push_back(levels.back().similarity);
    }
    return raised;
  }

 private:
  struct Level {
    std::int64_t picks;  // after how many
    float similarity;
  };

  const Pool& ground_;
  Array<float> best_;
  std::vector<float> now_;
  std::vector<std::int64_t> raised_at_;  // the last time
  std::vector<std::vector<Level>> history_;
  std::int64_t picks_ = 0;
};

// Lazy greedy (Minoux 1978) over blocks of candidates: gains are integers that only fall, so a stale gain is an upper
// bound, and a candidate whose fresh gain is the best of all bounds is the plain greedy pick. A stale gain is brought
// up to date by what it lost at the ground rows that were covered better since: integers again, so it is the gain
// itself.
class CoveringEngine {
 public:
  CoveringEngine(Pool& pool, const Pool& ground, const Task& task)
      : pool_(pool),
        ground_(ground),
        task_(task),
        fixed_(coverage_fixed_point(ground)),
        weight_(ground.device(ground.columns.weight)),
        coverage_(ground),
        gain_(static_cast<std::size_t>(pool.own()), HUGE_VAL),
        known_at_(gain_.size(), kNever),
        open_(gain_.size()) {
    require(ground.comm().size() == pool.comm().size(), "candidates and ground rows live on the same ranks");
    for (std::size_t i = 0; i < open_.size(); ++i) open_[i] = pool.columns.role[i] == Role::candidate;
  }

  Picked run() {
    std::int64_t block = kFirstBlock;
    while (picks_ < task_.batch) {
      const std::vector<Candidate> best = best_bounds(kSearched);
      const std::vector<std::int64_t> rows = rows_of(best);
      const std::vector<std::int64_t> known_at = pool_.fetch_column(rows, known_at_);
      const std::int64_t age = known_at.front();
      if (age == picks_) {
        pick(best.front());
        block = kBlock;
        continue;
      }
      // Candidates of one age have lost at the same rows: a block of them is one product of matrices.
      std::vector<std::int64_t> of_age;
      for (std::size_t i = 0; i < rows.size() && static_cast<std::int64_t>(of_age.size()) < block; ++i)
        if (known_at[i] == age) of_age.push_back(rows[i]);
      bring_up_to_date(of_age, age);
      block = age == kNever ? kFirstBlock : std::min(2 * block, kLargestBlock);
    }
    picked_.pairs = static_cast<double>(pool_.comm().sum(pairs_));
    return std::move(picked_);
  }

 private:
  static constexpr std::int64_t kNever = -1;

  std::vector<Candidate> best_bounds(std::int64_t count) const {
    std::vector<Candidate> mine;
    for (std::size_t i = 0; i < gain_.size(); ++i)
      if (open_[i]) mine.push_back({gain_[i], pool_.columns.rows[i]});
    return best_of(pool_.comm(), std::move(mine), count);
  }

  void bring_up_to_date(std::span<const std::int64_t> candidates, std::int64_t age) {
    const bool first = age == kNever;
    const std::vector<std::int64_t> change = first ? all_gains(candidates) : losses(candidates, age);
    pool_.for_own(candidates, [&](std::int64_t own, std::size_t j) {
      double& gain = gain_[static_cast<std::size_t>(own)];
      gain = first ? static_cast<double>(change[j]) : gain - static_cast<double>(change[j]);
      known_at_[static_cast<std::size_t>(own)] = picks_;
    });
  }

  std::vector<std::int64_t> all_gains(std::span<const std::int64_t> candidates) {
    return added({ground_.own(), nullptr, coverage_.best().data(), nullptr}, candidates);
  }

  // What these candidates have lost since `age` picks.
  std::vector<std::int64_t> losses(std::span<const std::int64_t> candidates, std::int64_t age) {
    const Coverage::Raised raised = coverage_.raised_since(age);
    Backend& backend = ground_.backend();
    const Array<std::int64_t> rows(backend, std::span<const std::int64_t>(raised.rows));
    const Array<float> then(backend, std::span<const float>(raised.then));
    const Array<float> now(backend, std::span<const float>(raised.now));
    return added({rows.size(), rows.data(), then.data(), now.data()}, candidates);
  }

  std::vector<std::int64_t> added(const Band& band, std::span<const std::int64_t> candidates) {
    const Packed packed = pool_.fetch(candidates);
    std::vector<std::int64_t> gains(candidates.size());
    ground_.backend().gains(ground_.store().vectors().x, band, weight_.data(), fixed_, packed.vectors().x, packed.rows(),
                            gains.data());
    pool_.comm().sum(gains);
    pairs_ += band.count * packed.rows();
    return gains;
  }

  void pick(const Candidate& winner) {
    const std::span<const std::int64_t> row(&winner.row, 1);
    picked_.selection.add(winner.row, pool_.fetch_scores(row)[0],
                          fixed_.value(static_cast<std::int64_t>(winner.value)));
    pool_.for_own(row, [&](std::int64_t own, std::size_t) { open_[static_cast<std::size_t>(own)] = 0; });
    coverage_.raise(pool_.fetch(row));
    task_.report(++picks_);
  }

  Pool& pool_;
  const Pool& ground_;
  const Task& task_;
  FixedPoint fixed_;
  Array<double> weight_;
  Coverage coverage_;
  std::vector<double> gain_;            // of the own candidates; an upper bound unless known_at_ is now
  std::vector<std::int64_t> known_at_;  // after how many picks the gain was computed
  std::vector<std::uint8_t> open_;
  std::int64_t picks_ = 0;
  std::int64_t pairs_ = 0;
  Picked picked_;
};

}  // namespace

FixedPoint coverage_fixed_point(const Pool& ground) {
  int terms = 0;
  std::frexp(static_cast<double>(ground.rows()), &terms);
  const double largest = ground.columns.weight ? largest_over(ground.comm(), *ground.columns.weight) : 1;
  return FixedPoint::for_sum(ground.rows(), largest, std::min(30, 52 - terms));
}

Picked pick_covering(Pool& pool, const Pool& ground, const Task& task) {
  return CoveringEngine(pool, ground, task).run();
}

}  // namespace seine
