#include "seine/pick.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/row_kernel.hpp"
#include "seine/error.hpp"
#include "symmetric.hpp"

namespace seine {
namespace {

// Rows that are fetched at once: enough for long runs of proven picks, little beside the pool.
constexpr std::int64_t kRoundRows = 1024;
// Rows of the global numbering whose second moments are summed in float64 before the sum is rounded to an integer.
constexpr std::int64_t kGramRows = 256;

// The score column at these rows, on every rank.
std::vector<float> scores_of(const Pool& pool, std::span<const std::int64_t> rows) {
  if (!pool.columns.score) return std::vector<float>(rows.size(), std::nanf(""));
  return pool.fetch_column(rows, *pool.columns.score);
}

void report(const Task& task, std::int64_t picked) {
  if (task.console) task.console->progress("select", picked, task.batch);
}

// One rule's state over some rows: those of the pool, or those of a round.
class RuleState {
 public:
  RuleState(Backend& backend, RuleKind rule, std::int64_t rows)
      : key(backend, rows),
        state(backend, rows * static_cast<std::int64_t>(state_bytes(rule))),
        applied(backend, rows),
        backend_(backend),
        rule_(rule),
        rows_(rows) {}

  void start(const Start& how, const double* weight) { backend_.start(rule_, how, rows_, view(weight)); }
  // Brings rows up to date whose key is at least `floor`; how many pairs of row and pick met.
  std::int64_t apply(const Vectors& rows, const Picks& picks, double floor, const double* weight) {
    if (rows_ == 0 || picks.vectors.rows == 0) return 0;
    return backend_.apply(rule_, rows, picks, floor, view(weight));
  }
  // The same for picks that are not kept: every row sees them now, and none is counted.
  void apply_all(const Vectors& rows, const Picks& picks) {
    if (rows_ == 0 || picks.vectors.rows == 0) return;
    backend_.apply(rule_, rows, picks, kNoCandidate.value, {state.data(), key.data(), nullptr, nullptr});
  }
  std::int64_t bytes() const { return static_cast<std::int64_t>(state_bytes(rule_)); }

  Array<double> key;
  Array<std::byte> state;
  Array<std::uint32_t> applied;

 private:
  RowStates view(const double* weight) { return {state.data(), key.data(), applied.data(), weight}; }

  Backend& backend_;
  RuleKind rule_;
  std::int64_t rows_;
};

// The picks so far, in backend memory, in order: their vectors and what a rule wants to know beside them.
class PickLog {
 public:
  PickLog(const Pool& pool, RuleKind rule, std::int64_t most) : backend_(pool.backend()), like_(pool.vectors()) {
    if (rule == RuleKind::variance) like_ = {0, {nullptr, Element::f64, pool.dim()}, {}, nullptr, nullptr};
    x_ = Array<std::byte>(backend_, most * static_cast<std::int64_t>(like_.x.row_bytes()));
    moments_ = Array<double>(backend_, most);
    if (!like_.outer()) return;
    a_ = Array<std::byte>(backend_, most * static_cast<std::int64_t>(like_.a.row_bytes()));
    x2_ = Array<double>(backend_, most);
    a2_ = Array<double>(backend_, most);
  }

  // x and a: one row, as the pool stores it; variance: the vector of the pick.
  void add(std::span<const std::byte> x, std::span<const std::byte> a, double moment) {
    x_.write(x, count_ * static_cast<std::int64_t>(like_.x.row_bytes()));
    moments_.write(std::span(&moment, 1), count_);
    if (like_.outer()) {
      a_.write(a, count_ * static_cast<std::int64_t>(like_.a.row_bytes()));
      const Vectors all = vectors();
      backend_.squared_norms(all.x.from(count_), 1, x2_.data() + count_);
      backend_.squared_norms(all.a.from(count_), 1, a2_.data() + count_);
    }
    ++count_;
  }
  Picks picks() const { return {vectors(), moments_.data()}; }
  std::int64_t size() const { return count_; }

 private:
  Vectors vectors() const {
    return {
        count_, {x_.data(), like_.x.type, like_.x.dim}, {a_.data(), like_.a.type, like_.a.dim}, x2_.data(), a2_.data()};
  }

  Backend& backend_;
  Vectors like_;
  Array<std::byte> x_, a_;
  Array<double> x2_, a2_, moments_;
  std::int64_t count_ = 0;
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

// Largest clipped cosine so far: 0 without covered rows.
Array<float> similarities_before(const Pool& pool, const std::optional<std::vector<double>>& before) {
  std::vector<float> best(static_cast<std::size_t>(pool.own()), 0.0f);
  if (before) best.assign(before->begin(), before->end());
  return Array<float>(pool.backend(), std::span<const float>(best));
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
        filler_(pool.device(how.filler)) {
    const Array<double> before = pool.device(pool.columns.before);
    whole_.start({before.data(), pool.global_rows(), task.request.seed, how.purpose}, weight_.data());
    if (how.rule == RuleKind::variance)
      precision_ = Precision(pool.dim(), task.prior ? task.prior->precision : std::vector<double>{});
  }

  Picked run() {
    if (how_.first && task_.batch > 0) first_pick();
    while (log_.size() < task_.batch) round();
    picked_.farthest = farthest();
    if (how_.rule == RuleKind::race && task_.request.reduce == Reduce::merge) picked_.represents = represented();
    picked_.pairs = static_cast<double>(pool_.comm().sum(pairs_));
    return std::move(picked_);
  }

 private:
  void first_pick() {
    const std::int64_t row = how_.first->row;
    const Packed packed = pool_.fetch(std::span(&row, 1));
    picked_.selection.add(row, scores_of(pool_, std::span(&row, 1))[0], how_.first->gain);
    log_.add(packed.bytes(0), packed.residual_bytes(0), 0.0);
    mask({&row, 1});
    bring_up_to_date(kNoCandidate.value);  // clocks start with it: keys may rise this once
  }

  void bring_up_to_date(double floor) { pairs_ += whole_.apply(pool_.vectors(), log_.picks(), floor, weight_.data()); }

  // Until the best `count` of the own rows that `among` accepts are exact. Each wave takes twice as many rows as the
  // last, and the first about as many as the last round needed: some pools lose few bounds to a round, others most.
  void surface(std::int64_t count, const Array<std::uint8_t>& among) {
    std::int64_t wave = std::max(2 * count, last_wave_ / 2);
    while (stale_among(backend_.top(whole_.key.data(), among.data(), pool_.global_rows(), pool_.own(), count)) > 0) {
      bring_up_to_date(backend_.nth(whole_.key.data(), among.data(), pool_.own(), wave));
      last_wave_ = wave;
      wave *= 2;
    }
  }

  std::int64_t stale_among(std::span<const Candidate> own_rows) const {
    std::vector<std::int64_t> rows, positions;
    for (const Candidate& candidate : own_rows) rows.push_back(candidate.row);
    pool_.for_own(rows, [&](std::int64_t own, std::size_t) { positions.push_back(own); });
    std::vector<std::uint32_t> applied(positions.size());
    backend_.gather(whole_.applied.data(), sizeof applied[0], positions, applied.data());
    return std::count_if(applied.begin(), applied.end(), [&](std::uint32_t seen) { return seen < log_.size(); });
  }

  void round() {
    const std::int64_t wanted = std::min(kRoundRows, std::max<std::int64_t>(32, 2 * (task_.batch - log_.size())));
    if (!filling_) {
      surface(wanted / pool_.comm().size() + 1, selectable_);
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
    pick_among(bound);
    report(task_, log_.size());
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
    const std::vector<float> scores = scores_of(pool_, rows);
    Array<std::uint8_t> open(backend_, std::span<const std::uint8_t>(std::vector<std::uint8_t>(rows.size(), 1)));
    const Array<std::int64_t> names(backend_, std::span<const std::int64_t>(rows));

    std::vector<std::int64_t> taken;
    while (log_.size() < task_.batch) {
      const auto winner = backend_.top(filling_ ? filler.data() : near.key.data(), open.data(), names.data(), count, 1);
      if (winner.empty() || !beats(winner[0], bound)) break;
      if (!filling_ && how_.filler && !(winner[0].value > kNoCandidate.value)) break;  // the filler decides
      const std::int64_t at = std::find(rows.begin(), rows.end(), winner[0].row) - rows.begin();
      std::vector<std::byte> state(static_cast<std::size_t>(near.bytes()));
      near.state.read(state, at * near.bytes());
      const double value = value_of(how_.rule, state.data());
      picked_.selection.add(winner[0].row, scores[static_cast<std::size_t>(at)], how_.gain(value, how_.noise));
      log_pick(packed, at, moment_of(winner[0].value, value));
      taken.push_back(winner[0].row);
      const std::uint8_t closed = 0;
      open.write(std::span(&closed, 1), at);
      near.apply(packed.vectors(), log_.picks(), kNoCandidate.value, weight.data());
    }
    require(!taken.empty(), "a round makes at least one pick");
    mask(taken);
  }

  void log_pick(const Packed& packed, std::int64_t at, double moment) {
    if (how_.rule != RuleKind::variance) {
      log_.add(packed.bytes(at), packed.residual_bytes(at), moment);
      return;
    }
    const std::vector<double> vector = precision_.take(packed.row(at), moment);
    log_.add(std::as_bytes(std::span(vector)), {}, moment);
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
    return pool_.comm().max(best.empty() ? 0 : best.front().value);
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
  static std::vector<std::int64_t> rows_of(std::span<const Candidate> candidates) {
    std::vector<std::int64_t> rows;
    for (const Candidate& candidate : candidates) rows.push_back(candidate.row);
    return rows;
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
  bool filling_ = false;
  double clock_ = 0;
  std::int64_t pairs_ = 0;
  std::int64_t last_wave_ = 0;
  Picked picked_;
};

}  // namespace

double log_one_plus(double x) {
  const double sum = 1 + x;
  if (sum == 1) return x;
  return log_of(sum) * (x / (sum - 1));
}

Picked pick_best(Pool& pool, const std::function<Candidate(std::int64_t own)>& value, const Task& task,
                 const std::function<double(const Candidate&)>& gain) {
  std::vector<Candidate> mine;
  for (std::int64_t i = 0; i < pool.own(); ++i)
    if (pool.columns.role[static_cast<std::size_t>(i)] == Role::candidate) mine.push_back(value(i));
  const std::vector<Candidate> best = best_of(pool.comm(), std::move(mine), task.batch);
  std::vector<std::int64_t> rows;
  for (const Candidate& candidate : best) rows.push_back(candidate.row);
  const std::vector<float> scores = scores_of(pool, rows);
  Picked picked;
  for (std::size_t i = 0; i < rows.size(); ++i) picked.selection.add(rows[i], scores[i], gain(best[i]));
  return picked;
}

Picked pick_falling(Pool& pool, const Falling& how, const Task& task) {
  return FallingEngine(pool, how, task).run();
}

// Lazy greedy (Minoux 1978) over blocks of candidates: gains are integers that only fall, so a stale gain is an upper
// bound, and a candidate whose fresh gain is the best of all bounds is the plain greedy pick.
Picked pick_covering(Pool& pool, const Pool& ground, const Task& task) {
  const Comm& comm = pool.comm();
  Backend& backend = pool.backend();
  require(ground.comm().size() == comm.size(), "candidates and ground rows live on the same ranks");
  const double largest_weight = ground.columns.weight ? largest_over(comm, *ground.columns.weight) : 1;
  // At most 2^53, so that a gain is exact as a float64 too.
  int terms = 0;
  std::frexp(static_cast<double>(ground.rows()), &terms);
  const FixedPoint fixed = FixedPoint::for_sum(ground.rows(), largest_weight, std::min(30, 52 - terms));
  const Array<double> weight = ground.device(ground.columns.weight);
  Array<float> best = similarities_before(ground, ground.columns.before);

  const auto own = static_cast<std::size_t>(pool.own());
  std::vector<double> stale(own, HUGE_VAL);
  std::vector<std::int64_t> fresh_at(own, -1);  // number of picks when the gain was computed
  std::vector<std::uint8_t> open(own);
  for (std::size_t i = 0; i < own; ++i) open[i] = pool.columns.role[i] == Role::candidate;

  const auto refresh = [&](std::span<const std::int64_t> rows, std::int64_t epoch) {
    const Packed packed = pool.fetch(rows);
    std::vector<std::int64_t> gains(rows.size());
    backend.gains(ground.vectors().x, ground.own(), weight.data(), best.data(), fixed, packed.vectors().x,
                  packed.rows(), gains.data());
    comm.sum(gains);
    pool.for_own(rows, [&](std::int64_t i, std::size_t j) {
      stale[static_cast<std::size_t>(i)] = static_cast<double>(gains[j]);
      fresh_at[static_cast<std::size_t>(i)] = epoch;
    });
  };
  const auto best_bounds = [&](std::int64_t count) {
    std::vector<Candidate> mine;
    for (std::size_t i = 0; i < own; ++i)
      if (open[i]) mine.push_back({stale[i], pool.columns.rows[i]});
    return best_of(comm, std::move(mine), count);
  };

  Picked picked;
  std::int64_t block = kRoundRows;  // the first pass takes every candidate; after it few are enough
  for (std::int64_t epoch = 0; epoch < task.batch;) {
    const std::vector<Candidate> top = best_bounds(block);
    std::vector<std::int64_t> rows;
    for (const Candidate& candidate : top) rows.push_back(candidate.row);
    const std::vector<std::int64_t> computed = pool.fetch_column(rows, fresh_at);
    if (computed.front() != epoch) {
      std::vector<std::int64_t> outdated;
      for (std::size_t i = 0; i < rows.size(); ++i)
        if (computed[i] != epoch) outdated.push_back(rows[i]);
      refresh(outdated, epoch);
      block = top.front().value == HUGE_VAL ? kRoundRows : std::min<std::int64_t>(2 * block, 256);
      continue;
    }
    const std::int64_t winner = rows.front();
    picked.selection.add(winner, scores_of(pool, std::span(&winner, 1))[0],
                         fixed.value(static_cast<std::int64_t>(top.front().value)));
    pool.for_own(std::span(&winner, 1), [&](std::int64_t i, std::size_t) { open[static_cast<std::size_t>(i)] = 0; });
    const Packed pick = pool.fetch(std::span(&winner, 1));
    backend.raise(ground.vectors().x, ground.own(), pick.vectors().x, 1, best.data());
    ++epoch;
    block = 16;
    report(task, epoch);
  }
  return picked;
}

namespace {

// Calls visit(packed, first) for the rows of `of` in chunks, in order.
void in_chunks(const Pool& of, std::span<const std::int64_t> rows, const std::function<void(const Packed&)>& visit) {
  for (std::size_t first = 0; first < rows.size(); first += kRoundRows)
    visit(of.fetch(rows.subspan(first, std::min<std::size_t>(kRoundRows, rows.size() - first))));
}

// Global numbers of the rows that `accept` takes, on every rank, ascending.
std::vector<std::int64_t> rows_with(const Pool& pool, const std::function<bool(Role)>& accept) {
  std::vector<std::int64_t> mine;
  for (std::size_t i = 0; i < pool.columns.rows.size(); ++i)
    if (accept(pool.columns.role[i])) mine.push_back(pool.columns.rows[i]);
  std::vector<std::int64_t> all = pool.comm().gather(std::span<const std::int64_t>(mine));
  std::sort(all.begin(), all.end());
  return all;
}

// Covered rows in chunks: those of the pool, then those outside of it.
void in_covered_chunks(const Pool& pool, const Prior& prior, const std::function<void(const Packed&)>& visit) {
  in_chunks(pool, rows_with(pool, is_covered), visit);
  if (prior.outside) in_chunks(*prior.outside, rows_with(*prior.outside, [](Role) { return true; }), visit);
}

std::int64_t covered_rows(const Pool& pool, const Prior& prior) {
  return pool.covered() + (prior.outside ? prior.outside->rows() : 0);
}

// State of the rule `Nearest` that `chunks` feeds with centres.
std::vector<double> nearest_distances2(const Pool& on, const std::optional<std::vector<double>>& before,
                                       const std::function<void(const std::function<void(const Packed&)>&)>& chunks) {
  Backend& backend = on.backend();
  RuleState state(backend, RuleKind::nearest, on.own());
  const Array<double> start = on.device(before);
  state.start({start.data(), on.global_rows(), 0, Purpose("none")}, nullptr);
  chunks([&](const Packed& centres) { state.apply_all(on.vectors(), {centres.vectors(), nullptr}); });
  return state.key.to_host();
}

std::vector<float> largest_similarities(const Pool& on, const std::optional<std::vector<double>>& before,
                                        const std::function<void(const std::function<void(const Packed&)>&)>& chunks) {
  Array<float> best = similarities_before(on, before);
  chunks([&](const Packed& centres) {
    on.backend().raise(on.vectors().x, on.own(), centres.vectors().x, centres.rows(), best.data());
  });
  return best.to_host();
}

// Sum of x x^T over all rows of the pool, lower triangle, the same for every number of ranks.
void add_second_moments(const Pool& pool, std::vector<double>& sums) {
  const double largest2 = largest_over(pool.comm(), pool.squared_norms().to_host());
  const FixedPoint fixed = FixedPoint::for_sum(pool.rows(), largest2);
  std::vector<std::int64_t> groups{0};
  for (std::int64_t i = 1; i < pool.own(); ++i) {
    const auto& rows = pool.columns.rows;
    if (rows[static_cast<std::size_t>(i)] / kGramRows != rows[static_cast<std::size_t>(i - 1)] / kGramRows)
      groups.push_back(i);
  }
  if (pool.own() > 0) groups.push_back(pool.own());
  std::vector<std::int64_t> moments(sums.size());
  if (groups.size() > 1) pool.backend().gram(pool.vectors().x, groups, fixed, moments.data());
  pool.comm().sum(moments);
  for (std::size_t i = 0; i < sums.size(); ++i) sums[i] += fixed.value(moments[i]);
}

// I + sum x x^T / noise over the rows of these pools.
std::vector<double> information(std::int64_t dim, double noise, std::span<const Pool* const> pools) {
  std::vector<double> matrix(static_cast<std::size_t>(dim * dim));
  for (const Pool* pool : pools)
    if (pool) add_second_moments(*pool, matrix);
  for (double& value : matrix) value /= noise;
  for (std::int64_t c = 0; c < dim; ++c) matrix[static_cast<std::size_t>(c * dim + c)] += 1;
  return matrix;
}

struct Taken {
  std::vector<double> vector;  // P x
  double moment;               // noise + variance
  double gain;                 // log(1 + variance / noise)
};

// One row into the precision, with the variance that it has by then; a unit row counts with a squared norm of 1.
Taken take_row(Precision& precision, const std::vector<float>& x, double noise, bool unit) {
  const std::vector<double> wide(x.begin(), x.end());
  const auto dim = static_cast<std::int64_t>(x.size());
  const std::vector<double> v = precision.times(x);
  const double norm2 = canonical_dot(wide.data(), wide.data(), dim);
  const double counted = unit ? (norm2 > 0 ? 1.0 : 0.0) : norm2;
  const double variance = std::max(0.0, canonical_dot(wide.data(), v.data(), dim) + (counted - norm2));
  return {precision.take(x, noise + variance), noise + variance, log_one_plus(variance / noise)};
}

// Applies vectors with their moments to the variances of the pool's rows.
void lower_variances(const Pool& pool, std::vector<double>& variances, const std::vector<double>& vectors,
                     const std::vector<double>& moments) {
  Backend& backend = pool.backend();
  RuleState state(backend, RuleKind::variance, pool.own());
  const Array<double> before(backend, std::span<const double>(variances));
  const Array<double> x(backend, std::span<const double>(vectors));
  const Array<double> moment(backend, std::span<const double>(moments));
  state.start({before.data(), pool.global_rows(), 0, Purpose("none")}, nullptr);
  const Vectors picks{
      static_cast<std::int64_t>(moments.size()), {x.data(), Element::f64, pool.dim()}, {}, nullptr, nullptr};
  state.apply_all(pool.vectors(), {picks, moment.data()});
  state.key.read(variances);
}

// Few covered rows: each is a pick that comes before the first.
void condition_one_by_one(const Pool& pool, double noise, bool unit, std::vector<double>& variances, Prior& prior) {
  Precision precision(pool.dim(), {});
  in_covered_chunks(pool, prior, [&](const Packed& chunk) {
    std::vector<double> vectors, moments;
    for (std::int64_t i = 0; i < chunk.rows(); ++i) {
      const Taken taken = take_row(precision, chunk.row(i), noise, unit);
      vectors.insert(vectors.end(), taken.vector.begin(), taken.vector.end());
      moments.push_back(taken.moment);
      prior.covered_value += taken.gain;
    }
    lower_variances(pool, variances, vectors, moments);
  });
  prior.precision = precision.matrix();
}

// More covered rows than dimensions: by their second moments. With L L^T = I + X^T X / noise, the variance of x given
// them is |L^-1 x|^2: the rows of L^-1 add their squared products.
void condition_by_moments(const Pool& pool, double noise, std::vector<double>& variances, Prior& prior) {
  std::vector<std::uint8_t> covered;
  for (const Role role : pool.columns.role) covered.push_back(is_covered(role));
  const Pool inside = pool.where(covered);
  const Pool* pools[] = {&inside, prior.outside};
  const Cholesky factor(information(pool.dim(), noise, pools), pool.dim());
  const std::vector<double> inverse = factor.inverse_factor();
  prior.covered_value = factor.log_determinant();
  prior.precision = gram_of_lower(inverse, pool.dim());
  std::vector<double> given(variances.size(), 0.0);
  lower_variances(pool, given, inverse, std::vector<double>(static_cast<std::size_t>(pool.dim()), -1.0));
  const std::vector<double> norms = pool.squared_norms().to_host();
  for (std::size_t i = 0; i < variances.size(); ++i) variances[i] = std::max(0.0, given[i] + (variances[i] - norms[i]));
}

// The squared norms that log_det counts with: exactly 1 for unit rows, 0 for a zero row.
std::vector<double> counted_norms(const Pool& pool, bool unit) {
  std::vector<double> norms = pool.squared_norms().to_host();
  if (unit)
    for (double& value : norms) value = value > 0 ? 1 : 0;
  return norms;
}

}  // namespace

std::vector<double> distances2_to(const Pool& on, const Pool& of, std::span<const std::int64_t> centres,
                                  const std::optional<std::vector<double>>& before) {
  return nearest_distances2(on, before, [&](const auto& visit) { in_chunks(of, centres, visit); });
}

std::vector<float> similarities_to(const Pool& on, const Pool& of, std::span<const std::int64_t> centres,
                                   const std::optional<std::vector<double>>& before) {
  return largest_similarities(on, before, [&](const auto& visit) { in_chunks(of, centres, visit); });
}

void cover_by_distance(Pool& pool, const Prior& prior) {
  if (covered_rows(pool, prior) == 0) return;
  pool.columns.before = nearest_distances2(pool, {}, [&](const auto& visit) { in_covered_chunks(pool, prior, visit); });
}

void cover_by_similarity(Pool& pool, const Prior& prior) {
  if (covered_rows(pool, prior) == 0) return;
  const std::vector<float> best =
      largest_similarities(pool, {}, [&](const auto& visit) { in_covered_chunks(pool, prior, visit); });
  pool.columns.before.emplace(best.begin(), best.end());
}

void cover_by_variance(Pool& pool, double noise, bool unit, Prior& prior) {
  const std::int64_t dim = pool.dim();
  std::vector<double> norms = counted_norms(pool, unit);
  const std::int64_t covered = covered_rows(pool, prior);
  if (covered > 0 && covered <= dim) {
    condition_one_by_one(pool, noise, unit, norms, prior);
  } else if (covered > 0) {
    condition_by_moments(pool, noise, norms, prior);
  }
  pool.columns.before = std::move(norms);
}

double log_determinant(const Pool& pool, std::span<const std::int64_t> rows, double noise, bool unit,
                       const Prior& prior) {
  Precision precision(pool.dim(), prior.precision);
  double sum = 0;
  in_chunks(pool, rows, [&](const Packed& chunk) {
    for (std::int64_t i = 0; i < chunk.rows(); ++i) sum += take_row(precision, chunk.row(i), noise, unit).gain;
  });
  return sum;
}

double log_determinant_of_all(const Pool& pool, double noise, bool unit, const Prior& prior) {
  const Pool* pools[] = {&pool, prior.outside};
  const double whole = Cholesky(information(pool.dim(), noise, pools), pool.dim()).log_determinant();
  // Unit rows count with a squared norm of exactly 1; what rounding left them short of it can add at most its trace.
  double short_of_one = 0;
  for (const Pool* part : pools) {
    if (!part || !unit) continue;
    std::vector<double> missing = part->squared_norms().to_host();
    for (double& value : missing) value = value > 0 && value < 1 ? 1 - value : 0;
    short_of_one += sum_over(part->comm(), missing, part->rows());
  }
  return whole + short_of_one / noise - prior.covered_value;
}

}  // namespace seine
