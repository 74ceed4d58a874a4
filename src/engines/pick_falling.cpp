#include <algorithm>
#include <cmath>
#include <cstring>

#include "engines/rule_state.hpp"
#include "engines/symmetric.hpp"
#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/pick.hpp"

namespace seine {
namespace {

// By how much a wave of a round is larger than the one before.
constexpr double kWaveGrowth = 1.25;
// Fetched rows that are brought up to date together: those that are picked soon, as far as their bounds tell.
constexpr std::int64_t kSoonPicked = 32;
// Picks that are compared with each other, at most: 64 MiB.
constexpr std::int64_t kComparedPicks = 4096;

// The picks so far, in backend memory, in order: their vectors and what a rule wants to know beside them.
class PickLog {
 public:
  PickLog(const Pool& pool, RuleKind rule, std::int64_t most)
      : backend_(pool.backend()), rows_(backend_, format_of(pool, rule), most), moments_(backend_, most) {
    const RowFormat& format = pool.store().format();
    if (rule != RuleKind::nearest || format.classes > 0 || !backend_.bounds_of_pairs_pay()) return;
    most_compared_ = most_compared(pool.store().rows() * format.x_bytes(), most);
    between_ = Array<float>(backend_, most_compared_ * most_compared_);
  }

  // How many of the picks are compared, so that it is little beside the rows themselves.
  static std::int64_t most_compared(std::int64_t bytes_of_rows, std::int64_t picks) {
    const double room = static_cast<double>(bytes_of_rows) / 8 / sizeof(float);
    return std::min({picks, kComparedPicks, static_cast<std::int64_t>(std::sqrt(room)) + 1});
  }

  // x and a: one row, as the pool stores it; variance: the vector of the pick.
  void add(const std::byte* x, const float* a, double moment) {
    rows_.write(count_, 1, x, a);
    moments_.write(std::span(&moment, 1), count_);
    ++count_;
  }
  Picks picks() const { return {vectors(), moments_.data()}; }
  // The same with their distances from each other, where rule and backend can use them.
  Picks compared_picks() {
    const std::int64_t upto = std::min(count_, most_compared_);
    if (compared_ < upto) {
      backend_.compare(vectors().x, compared_, upto, between_.data(), most_compared_);
      pairs_ += upto * (upto - 1) / 2 - compared_ * (compared_ - 1) / 2;
      compared_ = upto;
    }
    return {vectors(), moments_.data(), between_.data(), most_compared_};
  }
  std::int64_t size() const { return count_; }
  std::int64_t pairs() const { return pairs_; }  // of picks that were compared

 private:
  static RowFormat format_of(const Pool& pool, RuleKind rule) {
    return rule == RuleKind::variance ? RowFormat{Element::f64, pool.dim(), 0} : pool.store().format();
  }
  Vectors vectors() const { return rows_.vectors(count_); }

  Backend& backend_;
  RowArrays rows_;
  Array<double> moments_;
  Array<float> between_;
  std::int64_t count_ = 0, compared_ = 0, most_compared_ = 0, pairs_ = 0;
};

template <class T>
std::vector<T> from_bytes(const std::vector<std::byte>& bytes) {
  std::vector<T> out(bytes.size() / sizeof(T));
  if (!out.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

// Squared distance or variance in a state.
double value_of(RuleKind rule, const std::byte* state) {
  return with_rule(rule, [&](auto r) {
    using Rule = decltype(r);
    typename Rule::State s;
    std::memcpy(&s, state, sizeof s);
    if constexpr (Rule::uses_distance)
      return s.distance2;
    else
      return s.variance;
  });
}

// The engine behind pick_falling, in rounds. Keys only fall, so the key of a row that has not seen the latest picks is
// an upper bound. A round brings rows up to date from the best bounds down until enough of the best are exact, fetches
// these, and picks among them while the best of them beats the best key left behind. No other row is touched.
class FallingEngine {
 public:
  FallingEngine(Pool& pool, const Falling& how, const Task& task)
      : pool_(pool),
        how_(how),
        task_(task),
        backend_(pool.backend()),
        whole_(backend_, how.rule, pool.own()),
        log_(pool, how.rule, task.batch),
        selectable_(pool.selectable()),
        weight_(pool.device(how.weight)),
        filler_(pool.device(how.filler)),
        round_rows_(pool.at_once(RowStore::kRowsAtOnce)) {
    const Array<double> before = pool.device(pool.columns.before);
    whole_.start({before.data(), pool.global_rows(), task.request.seed, how.purpose}, weight_.data());
    if (how.rule == RuleKind::variance)
      precision_ = Precision(pool.dim(), task.prior ? task.prior->precision : std::vector<double>{});
  }

  Picked run() {
    if (how_.first && task_.batch > 0) first_pick();
    go_on_from(task_.before());
    for (; log_.size() < task_.batch; ++picked_.rounds) round();
    if (how_.rule == RuleKind::nearest) picked_.farthest = farthest();
    if (how_.rule == RuleKind::race && task_.request.reduce == Reduce::merge) picked_.represents = represented();
    picked_.pairs = static_cast<double>(pool_.comm().sum(pairs_)) + static_cast<double>(log_.pairs());
    return std::move(picked_);
  }

 private:
  void first_pick() {
    const std::int64_t row = how_.first->row;
    const Packed packed = pool_.fetch(std::span(&row, 1));
    picked_.selection.add(row, pool_.fetch_scores(std::span(&row, 1))[0], how_.first->gain);
    log_pick(packed, 0, 0.0);
    mask({&row, 1});
    bring_up_to_date(kNoCandidate.value);  // clocks start with it: keys may rise this once
  }

  // The other picks of a run that was stopped. Rows see them when their keys ask for it.
  void go_on_from(const Progress& before) {
    const auto known = static_cast<std::size_t>(log_.size());
    if (before.selection.rows.size() <= known) return;
    picked_.selection = before.selection;
    const auto rows = std::span(before.selection.rows).subspan(known);
    in_chunks(pool_, rows, [&](const Packed& packed) {
      for (std::int64_t i = 0; i < packed.rows(); ++i)
        log_pick(packed, i, before.moments[static_cast<std::size_t>(log_.size())]);
    });
    mask(rows);
    clock_ = moments_.back();
  }

  void bring_up_to_date(double floor) {
    pairs_ += whole_.apply(pool_.store(), log_.compared_picks(), floor, weight_.data());
  }

  // Until the best of the own rows that `among` accepts are exact: three quarters of `count`, or all there are. The
  // first wave takes about as many rows as the last round needed: some pools lose few bounds to a round, others most.
  void surface(std::int64_t count, const Array<std::uint8_t>& among) {
    for (double wave = std::max(2.0 * static_cast<double>(count), last_wave_ / 2); stop_signal() == 0;
         wave *= kWaveGrowth) {
      const double floor = backend_.nth(whole_.key.data(), among.data(), pool_.own(), static_cast<std::int64_t>(wave));
      bring_up_to_date(floor);
      last_wave_ = wave;
      if (!(floor > kNoCandidate.value)) return;
      if (backend_.at_least(whole_.key.data(), among.data(), pool_.own(), floor) >= (count + 1) * 3 / 4) return;
    }
  }

  void round() {
    const std::int64_t wanted = std::min(round_rows_, std::max<std::int64_t>(32, 2 * (task_.batch - log_.size())));
    if (!filling_) {
      surface(pool_.share_of(wanted), selectable_);
      best_ = pool_.top(whole_.key, selectable_, wanted + 1);
      filling_ = how_.filler && !(best_.front().value > kNoCandidate.value);
    }
    if (filling_) {
      bring_up_to_date(kNoCandidate.value);
      best_ = pool_.top(filler_, selectable_, wanted + 1);
    }
    // The first row whose key is but a bound, or the one behind the last, is what picks have to beat.
    const std::vector<std::uint32_t> applied = fetch<std::uint32_t>(rows_of(best_), whole_.applied.data());
    std::size_t exact = 0;
    while (exact < best_.size() && exact < static_cast<std::size_t>(wanted) && applied[exact] == log_.size()) ++exact;
    const Candidate bound = exact < best_.size() ? best_[exact] : kNoCandidate;
    best_.resize(exact);
    const std::int64_t before = log_.size();
    pick_among(bound);
    task_.keep(pool_.comm(), [&](Progress& progress) {
      progress.selection = picked_.selection;
      progress.moments = moments_;
    });
    require(log_.size() > before, "a round makes at least one pick");
    task_.report(log_.size());
  }

  // Picks among best_, whose rows are fetched and kept up to date on every rank, while `bound` cannot win.
  void pick_among(const Candidate& bound) {
    const std::vector<std::int64_t> rows = rows_of(best_);
    const auto count = static_cast<std::int64_t>(rows.size());
    const Packed packed = pool_.fetch(rows);
    RuleState near(backend_, how_.rule, count);
    near.state.write(pool_.fetch_items(rows, whole_.state.data(), static_cast<std::size_t>(near.bytes())));
    near.key.write(fetch<double>(rows, whole_.key.data()));
    near.applied.write(std::vector<std::uint32_t>(rows.size(), static_cast<std::uint32_t>(log_.size())));
    Array<double> weight, filler;
    if (how_.weight) weight = Array<double>(backend_, std::span<const double>(pool_.fetch_column(rows, *how_.weight)));
    if (filling_) filler = Array<double>(backend_, std::span<const double>(values_of(best_)));
    const std::vector<float> scores = pool_.fetch_scores(rows);
    Array<std::uint8_t> open(backend_, std::span<const std::uint8_t>(std::vector<std::uint8_t>(rows.size(), 1)));
    const Array<std::int64_t> names(backend_, std::span<const std::int64_t>(rows));

    std::vector<std::int64_t> taken;
    double floor = HUGE_VAL;
    while (log_.size() < task_.batch && stop_signal() == 0) {
      const auto winner = backend_.top(filling_ ? filler.data() : near.key.data(), open.data(), names.data(), count, 1);
      if (winner.empty() || !beats(winner[0], bound)) break;
      if (!filling_ && how_.filler && !(winner[0].value > kNoCandidate.value)) break;  // the filler decides
      const std::int64_t at = std::find(rows.begin(), rows.end(), winner[0].row) - rows.begin();
      std::uint32_t seen = 0;
      near.applied.read(std::span(&seen, 1), at);
      if (seen < log_.size()) {
        // A row that the bound beats cannot be picked in this round any more, and few others soon.
        if (!(winner[0].value >= floor))
          floor = std::max(bound.value, backend_.nth(near.key.data(), open.data(), count, kSoonPicked));
        near.apply(packed.vectors(), log_.picks(), filling_ ? kNoCandidate.value : floor, weight.data());
        continue;
      }
      std::vector<std::byte> state(static_cast<std::size_t>(near.bytes()));
      near.state.read(state, at * near.bytes());
      const double value = value_of(how_.rule, state.data());
      picked_.selection.add(winner[0].row, scores[static_cast<std::size_t>(at)], how_.gain(value, how_.noise));
      log_pick(packed, at, moment_of(winner[0].value, value));
      taken.push_back(winner[0].row);
      const std::uint8_t closed = 0;
      open.write(std::span(&closed, 1), at);
    }
    mask(taken);
  }

  void log_pick(const Packed& packed, std::int64_t at, double moment) {
    moments_.push_back(moment);
    if (how_.rule != RuleKind::variance) {
      log_.add(packed.bytes(at).data(), packed.residuals(at), moment);
      return;
    }
    const std::vector<double> vector = precision_.take(packed.row(at), moment);
    log_.add(std::as_bytes(std::span(vector)).data(), nullptr, moment);
  }

  // What a rule wants to know of the pick beside its vector: when it fired, or noise + variance.
  double moment_of(double key, double value) {
    if (how_.rule == RuleKind::variance) return how_.noise + value;
    if (how_.rule == RuleKind::race && !filling_ && key > kNoCandidate.value) clock_ = -key;
    return clock_;
  }

  void mask(std::span<const std::int64_t> rows) {
    const std::uint8_t closed = 0;
    pool_.for_own(rows, [&](std::int64_t own, std::size_t) { selectable_.write(std::span(&closed, 1), own); });
  }

  // The largest key over all rows, candidates or not.
  double farthest() {
    const Array<std::uint8_t> all(
        backend_, std::span<const std::uint8_t>(std::vector<std::uint8_t>(static_cast<std::size_t>(pool_.own()), 1)));
    surface(1, all);
    const auto best = backend_.top(whole_.key.data(), all.data(), pool_.global_rows(), pool_.own(), 1);
    return pool_.comm().max(best.empty() ? kNoCandidate.value : best.front().value);
  }

  // Weight of the pool's rows nearest to each pick, in integers, so that it is the same for every grouping.
  std::vector<double> represented() {
    bring_up_to_date(kNoCandidate.value);
    const std::vector<Race::State> states = from_bytes<Race::State>(whole_.state.to_host());
    const auto& weight = how_.weight;
    const FixedPoint fixed = FixedPoint::for_sum(pool_.rows(), weight ? largest_over(pool_.comm(), *weight) : 1);
    std::vector<std::int64_t> sums(picked_.selection.rows.size());
    for (std::size_t i = 0; i < states.size(); ++i)
      if (states[i].nearest != kNobody) sums[states[i].nearest] += fixed.of(weight ? (*weight)[i] : 1);
    pool_.comm().sum(sums);
    std::vector<double> represents;
    for (const std::int64_t sum : sums) represents.push_back(fixed.value(sum));
    return represents;
  }

  template <class T>
  std::vector<T> fetch(std::span<const std::int64_t> rows, const T* column) const {
    return from_bytes<T>(pool_.fetch_items(rows, column, sizeof(T)));
  }
  static std::vector<double> values_of(std::span<const Candidate> candidates) {
    std::vector<double> values;
    for (const Candidate& candidate : candidates) values.push_back(candidate.value);
    return values;
  }

  Pool& pool_;
  const Falling& how_;
  const Task& task_;
  Backend& backend_;
  RuleState whole_;
  PickLog log_;
  Array<std::uint8_t> selectable_;
  Array<double> weight_, filler_;
  Precision precision_;
  std::vector<Candidate> best_;
  const std::int64_t round_rows_;
  bool filling_ = false;
  double clock_ = 0;
  std::vector<double> moments_;  // of the picks
  std::int64_t pairs_ = 0;
  double last_wave_ = 0;
  Picked picked_;
};

}  // namespace

EngineState falling_state(RuleKind rule, const PoolShape& pool, const Request& request) {
  constexpr std::int64_t kFloat = sizeof(float), kDouble = sizeof(double);
  const std::int64_t picks = std::min(request.batch, pool.rows);
  // State, key, how many picks it has seen, whether it may be picked.
  EngineState state{static_cast<std::int64_t>(state_bytes(rule)) + 13};
  switch (rule) {
    case RuleKind::nearest: {
      if (request.pool.on_device()) break;  // there, bounds of pairs do not pay
      const std::int64_t compared = PickLog::most_compared(pool.rows * pool.dim * kFloat, picks);
      state.beside =
          compared * compared * kFloat + std::min(Backend::kBoundedRows, pool.rows) * Backend::kBoundedRowBytes;
      break;
    }
    case RuleKind::race:
      state.of_row += 2;
      break;
    case RuleKind::variance:
      state.of_row += 16;
      state.beside = picks * pool.dim * kDouble + 4 * pool.dim * pool.dim * kDouble;
      break;
  }
  return state;
}

Picked pick_falling(Pool& pool, const Falling& how, const Task& task) {
  return FallingEngine(pool, how, task).run();
}

}  // namespace seine
