#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>

#include "engines/coverage.hpp"
#include "engines/coverage_bound.hpp"
#include "engines/near_lists.hpp"
#include "engines/shadows.hpp"
#include "engines/standings.hpp"
#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/pick.hpp"

namespace seine {
namespace {

constexpr std::int64_t kGainsTogether = 512;  // brought up to date, at most

// Lazy greedy (Minoux 1978): gains are integers that only fall, so what was known of them is an upper bound, and a
// candidate whose gain of now is the best of all bounds is the plain greedy pick. A gain is computed
//   for the first time   over all ground rows, when neither the bound by moments nor that by shadows is enough; the
//                        rows to which the candidate adds are kept where they are few
//   from that list       ever after
//   by what it lost      without a list: at the ground rows that were covered better since, for candidates of one age
// and always as a sum of the same integers, so it does not matter how.
class CoveringEngine {
 public:
  CoveringEngine(Pool& pool, const Pool& ground, const Task& task)
      : pool_(pool),
        ground_(ground),
        task_(task),
        fixed_(coverage_fixed_point(ground)),
        weight_(ground.device(ground.columns.weight)),
        coverage_(ground),
        lists_(ground.backend(), NearLists::room_for(ground.own(), pool.candidates(), task.memory)),
        room_of_all_(ground.comm().sum(lists_.room())),
        standings_(pool) {
    require(ground.comm().size() == pool.comm().size(), "candidates and ground rows live on the same ranks");
    require(ground.own() <= std::numeric_limits<std::int32_t>::max(), "a rank has less than 2^31 ground rows");
    if (!CoverageBound::pays(ground.rows(), ground.dim())) return;
    std::vector<double> moments = CoverageBound::moments(ground);
    shadows_ = Shadows::of(pool, ground, moments);
    bound_.emplace(pool, ground, fixed_, std::move(moments));
  }

  Picked run() {
    try {
      go_on_from(task_.before());
      pick_all();
    } catch (const Error& error) {
      // What is known of gains took long to find out.
      if (error.code() == Exit::stopped && task_.resume)
        task_.resume->change(task_.place, [&](Progress& progress) {
          progress.selection = picked_.selection;
          progress.gains = standings_.known();
        });
      throw;
    }
    picked_.pairs = static_cast<double>(pairs_ + (bound_ ? bound_->products() : 0));
    return std::move(picked_);
  }

 private:
  static constexpr std::int64_t kFewPart = 6;  // so small a part of all is not worth another bound
  static constexpr std::int64_t kBlock = 64;   // gains brought up to date together, at first

  void pick_all() {
    while (picks_ < task_.batch) {
      keep();
      if (standings_.is_spent()) {
        standings_.refill();
        continue;
      }
      const Standing& best = standings_.best();
      if (best.known_at == picks_) {
        pick();
      } else if (bound_ && bounded_at_ != picks_ && best.known_at == kNever && best.shadowed_at == kNever) {
        standings_.lower(bound_->at(coverage_.on_host()));  // by moments, for the coverage of now
        bounded_at_ = picks_;
      } else {
        bring_up_to_date(next_block());
      }
    }
  }

  // --- A run that was stopped ---

  // Its picks, and the gains that it knew; lists are made anew.
  void go_on_from(const Progress& before) {
    picked_.selection = before.selection;
    const std::vector<std::int64_t>& rows = picked_.selection.rows;
    picks_ = static_cast<std::int64_t>(rows.size());
    standings_.know(before.gains, room_of_all_ > 0 ? std::max<std::int64_t>(picks_, 1) : kNotListed);
    standings_.close(rows);
    in_chunks(pool_, rows, [&](const Packed& picks) { coverage_.raise_in_order(picks); });
  }

  // Also says that all before it was done on all ranks, so picks come after it.
  void keep() {
    const auto picks = [&](Progress& progress) {
      if (progress.selection.rows.size() != picked_.selection.rows.size()) progress.selection = picked_.selection;
    };
    const auto columns = [&](Progress& progress) { progress.gains = standings_.known(); };
    task_.keep(pool_.comm(), picks, columns);
  }

  // --- Gains ---

  enum class Way { list, all_rows, shadow, losses };
  Way way_of(const Standing& candidate) const {
    if (candidate.fits_at == 0) return Way::list;
    if (candidate.known_at != kNever && candidate.fits_at > picks_) return Way::losses;
    if (!shadows_ || candidate.shadowed_at == picks_) return Way::all_rows;
    const bool few = candidate.shadowed_at != kNever && candidate.near <= ground_.rows() / kFewPart;
    return few ? Way::all_rows : Way::shadow;
  }

  // The best of the front that are out of date and whose gains are computed in one way.
  std::vector<Standing> next_block() {
    const Way way = way_of(standings_.best());
    const std::int64_t age = standings_.best().known_at;
    const auto size = static_cast<std::size_t>(std::min(kBlock << std::min(blocks_++, 5), kGainsTogether));
    std::vector<Standing> block, others;
    while (block.size() < size && others.size() < 4 * size && !standings_.is_spent() &&
           standings_.best().known_at != picks_) {
      const Standing top = standings_.pop();
      const bool fits = way_of(top) == way && (way != Way::losses || top.known_at == age);
      (fits ? block : others).push_back(top);
    }
    for (const Standing& other : others) standings_.push(other);
    return block;
  }

  void bring_up_to_date(std::vector<Standing> block) {
    switch (way_of(block.front())) {
      case Way::list:
        from_lists(block);
        break;
      case Way::all_rows:
        over_all_rows(block);
        break;
      case Way::shadow:
        by_shadows(block);
        break;
      case Way::losses:
        by_losses(block);
        break;
    }
    if (pool_.comm().size() == 1) pool_.comm().heed();  // the sums over more ranks did so: no gain was cut short
    for (const Standing& candidate : block) standings_.push(candidate);
  }

  void from_lists(std::vector<Standing>& block) {
    std::vector<Near*> lists;
    std::vector<std::int64_t> lengths, gains(block.size());
    for (const Standing& candidate : block) {
      const NearLists::List& list = lists_.of(candidate.row);
      lists.push_back(list.at);
      lengths.push_back(list.length);
    }
    ground_.backend().listed_gains(lists, coverage_.best(), weight_.data(), fixed_, lengths.data(), gains.data());
    for (std::size_t j = 0; j < block.size(); ++j) lists_.of(block[j].row).length = lengths[j];
    pool_.comm().sum(gains);
    for (std::size_t j = 0; j < block.size(); ++j) is_now(block[j], gains[j]);
  }

  void over_all_rows(std::vector<Standing>& block) {
    const std::size_t count = block.size();
    const std::vector<std::int64_t> rows = rows_in(block);
    const Packed packed = pool_.fetch(rows);
    const bool screened = shadows_ && most_are_far(block);
    const Array<float> shadows = screened ? shadows_->fetch(pool_, rows) : Array<float>();
    std::vector<Near*> lists;
    for (std::size_t j = 0; j < count; ++j) lists.push_back(lists_.take());
    // Gains, lengths of the lists, on how many ranks they are too long, and how many pairs met.
    std::vector<std::int64_t> answers(3 * count + 1);
    std::int64_t *gains = answers.data(), *lengths = gains + count, *too_long = lengths + count;
    ground_.store().visit_all([&](std::int64_t first, const Vectors& piece) {
      const Band band{piece.rows, nullptr, coverage_.best() + first, nullptr, first};
      answers.back() += ground_.backend().first_gains(
          piece.x, band, weight_.empty() ? nullptr : weight_.data() + first, fixed_, packed.vectors().x,
          screened ? shadows_from(first, shadows) : ShadowFields{}, lists, lists_.room(), gains, lengths);
    });
    const std::vector<std::int64_t> own_lengths(lengths, lengths + count);
    for (std::size_t j = 0; j < count; ++j) too_long[j] = lengths[j] > lists_.room();
    pool_.comm().sum(answers);
    for (std::size_t j = 0; j < count; ++j) {
      is_now(block[j], gains[j]);
      if (too_long[j]) {
        lists_.give_back(lists[j]);
        block[j].fits_at = short_enough_at(lengths[j]);
      } else {
        lists_.keep(block[j].row, {lists[j], own_lengths[j]});
        block[j].fits_at = 0;
      }
    }
    pairs_ += answers.back() + (screened ? shadow_pairs(block) : 0);
  }

  // Upper bounds only; the gains stay unknown.
  void by_shadows(std::vector<Standing>& block) {
    const std::size_t count = block.size();
    const Array<float> shadows = shadows_->fetch(pool_, rows_in(block));
    std::vector<std::int64_t> answers(2 * count);  // bounds, to how many rows each may add
    std::int64_t *bounds = answers.data(), *near = bounds + count;
    const Band band{ground_.own(), nullptr, coverage_.best(), nullptr, 0};
    ground_.backend().gain_bounds(shadows_from(0, shadows), band, weight_.data(), fixed_,
                                  static_cast<std::int64_t>(count), bounds, near);
    pool_.comm().sum(answers);
    for (std::size_t j = 0; j < count; ++j) {
      block[j].bound = std::min(block[j].bound, static_cast<double>(bounds[j]));
      block[j].shadowed_at = picks_;
      block[j].near = near[j];
    }
    pairs_ += shadow_pairs(block);
  }

  ShadowFields shadows_from(std::int64_t first, const Array<float>& candidates) const {
    return {shadows_->ground().from(first), {candidates.data(), Element::f32, shadows_->dim()}};
  }
  static std::int64_t near_rows(const std::vector<Standing>& block) {
    return std::accumulate(block.begin(), block.end(), std::int64_t{0},
                           [](std::int64_t sum, const Standing& candidate) { return sum + candidate.near; });
  }
  // Enough to pay for looking which.
  bool most_are_far(const std::vector<Standing>& block) const {
    return 2 * near_rows(block) <= ground_.rows() * static_cast<std::int64_t>(block.size());
  }
  std::int64_t shadow_pairs(const std::vector<Standing>& block) const {  // in products of whole rows
    return ground_.rows() * static_cast<std::int64_t>(block.size()) * shadows_->dim() / ground_.dim();
  }

  void is_now(Standing& candidate, std::int64_t gain) const {
    candidate.bound = static_cast<double>(gain);
    candidate.known_at = picks_;
  }

  // The share of rows to which a candidate adds falls as 1 / (1 + picks), or faster: it is better than all picks there.
  std::int64_t short_enough_at(std::int64_t length) const {
    if (room_of_all_ == 0) return kNotListed;
    return std::max(picks_ + 1, 2 * length * (picks_ + 1) / room_of_all_);
  }

  void by_losses(std::vector<Standing>& block) {
    const Packed packed = pool_.fetch(rows_in(block));
    std::vector<std::int64_t> losses(block.size() + 1);
    losses.back() = coverage_.losses_since(block.front().known_at, packed, weight_, fixed_, losses.data());
    pool_.comm().sum(losses);
    for (std::size_t j = 0; j < block.size(); ++j)
      is_now(block[j], static_cast<std::int64_t>(block[j].bound) - losses[j]);
    pairs_ += losses.back() * packed.rows();
  }

  static std::vector<std::int64_t> rows_in(const std::vector<Standing>& block) {
    std::vector<std::int64_t> rows;
    for (const Standing& candidate : block) rows.push_back(candidate.row);
    return rows;
  }

  void pick() {
    const Standing winner = standings_.pop();
    const std::span<const std::int64_t> row(&winner.row, 1);
    picked_.selection.add(winner.row, pool_.fetch_scores(row)[0],
                          fixed_.value(static_cast<std::int64_t>(winner.bound)));
    standings_.close(row);
    if (lists_.has(winner.row)) {
      const NearLists::List& list = lists_.of(winner.row);
      coverage_.raise(list.at, list.length);
      lists_.drop(winner.row);
    } else {
      coverage_.raise(pool_.fetch(row));
      pairs_ += ground_.rows();
    }
    blocks_ = 0;
    task_.report(++picks_);
  }

  Pool& pool_;
  const Pool& ground_;
  const Task& task_;
  FixedPoint fixed_;
  Array<double> weight_;
  Coverage coverage_;
  NearLists lists_;
  std::int64_t room_of_all_;  // of a list, on all ranks together
  Standings standings_;
  std::optional<CoverageBound> bound_;  // absent: not worth it
  std::optional<Shadows> shadows_;      // likewise
  std::int64_t bounded_at_ = kNever;
  std::int64_t picks_ = 0;
  int blocks_ = 0;  // since the last pick
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

EngineState covering_state(const PoolShape& pool, std::int64_t ground_rows) {
  constexpr std::int64_t kFloat = sizeof(float);
  constexpr std::int64_t kTimes = 3;  // that what is brought up to date is there, as it comes from all ranks
  const bool is_bounded = CoverageBound::pays(ground_rows, pool.dim);
  const std::int64_t shadow = is_bounded ? Shadows::most(pool.dim) * kFloat : 0;
  // What is known of a candidate, and once more where the best are looked for; levels of coverage of a ground row, in a
  // list of its own.
  constexpr std::int64_t kOfCandidate = 130, kOfGround = 86;
  const std::int64_t of_ground = kOfGround + (ground_rows < pool.rows ? shadow : 0);
  return {kOfCandidate + shadow + of_ground * ground_rows / std::max<std::int64_t>(pool.rows, 1),
          kTimes * std::min(kGainsTogether, pool.rows) * pool.dim * kFloat +
              (is_bounded ? CoverageBound::most_bytes(pool.dim) : 0)};
}

std::int64_t covering_lists(std::int64_t own_ground_rows, std::int64_t candidates, std::int64_t memory) {
  return candidates * NearLists::room_for(own_ground_rows, candidates, memory) *
         static_cast<std::int64_t>(sizeof(Near));
}

Picked pick_covering(Pool& pool, const Pool& ground, const Task& task) {
  return CoveringEngine(pool, ground, task).run();
}

}  // namespace seine
