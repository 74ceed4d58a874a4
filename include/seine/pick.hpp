// The engines that strategies are made of. Each is the plain sequential algorithm, exactly, in rounds: the rows that
// may still win are fetched, picks are made among them as long as the bound left behind proves them, and all picks of
// the round are applied to the pool in one pass.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "seine/bytes.hpp"
#include "seine/console.hpp"
#include "seine/pool.hpp"
#include "seine/request.hpp"
#include "seine/resume.hpp"
#include "seine/strategy.hpp"

namespace seine {

struct Prior;

// The scores of a pool of which only the best were wanted.
struct BestScores {
  std::vector<Candidate> mine;  // this rank's best candidates, as many as the batch
  std::function<std::vector<float>(std::span<const std::int64_t> rows)> of;  // collective: of any rows of the pool
};

// One run of a strategy on one pool: the whole of it, a partition, or a union of picks.
struct Task {
  const Request& request;
  const Entry& entry;
  std::int64_t batch = 0;  // at most the pool's candidates
  int level = 0;           // 0: the pool or a partition; above: nodes of the merge tree
  bool unit_rows = false;  // embeddings were divided by their 2-norm
  const Prior* prior = nullptr;
  std::int64_t memory = kGiB;        // bytes that an engine may use beside its pools, on this rank
  const Pool* ground = nullptr;      // rows whose coverage counts; null: the pool itself
  const BestScores* best = nullptr;  // instead of the pool's scores
  const Console* console = nullptr;  // on rank 0 of the job, else null
  Resume* resume = nullptr;          // keeps what is known of the selection at `place`; null: nobody does
  Place place = {};

  std::string parameter(std::string_view name) const { return seine::parameter(entry, request.set, name); }
  void report(std::int64_t picked) const {
    if (console) console->progress("select", picked, batch);
  }
  // What an earlier run knew of this selection; empty at first.
  const Progress& before() const { return resume ? resume->of(place) : kNoProgress; }
  // Collective. A step of the selection is over; Resume::step.
  void keep(const Comm& comm, const Resume::Update& picks, const Resume::Update& columns = {}) const {
    if (resume) resume->step(comm, place, picks, columns);
  }
};

struct Picked {
  Selection selection;
  double pairs = 0;                      // inner products and distances by the canonical kernel, of rows * batch
  std::int64_t rounds = 0;               // of falling scores
  std::vector<double> represents;        // D^2 races: weight of the pool's rows nearest to each pick
  double farthest = Certificate::kNone;  // largest key that is left over all rows, candidates or not
};

// Collective. The `count` best (score, row) among the candidates, best first, wherever the scores are.
std::vector<Candidate> best_by_score(const Pool& pool, const BestScores* best, std::int64_t count);

// A pick that the strategy makes by its own rule, before the engine takes over.
struct FirstPick {
  std::int64_t row;
  double gain;
};

// Scores that fall row by row as picks arrive: k-center, D^2 races, log-determinant.
struct Falling {
  RuleKind rule;
  std::optional<std::vector<double>> weight;  // per own row, of the squared distance; absent: 1
  Purpose purpose{"none"};                    // of the draws of a race
  std::optional<FirstPick> first;
  std::optional<std::vector<double>> filler;  // per own row: what decides when no key is left; absent: the row alone
  double noise = 0;                           // of RuleKind::variance
  double (*gain)(double value, double noise) = nullptr;  // from squared distance or variance at the pick
};
Picked pick_falling(Pool& pool, const Falling& how, const Task& task);
EngineState falling_state(RuleKind rule, const PoolShape& pool, const Request& request);

// Gains that need all ground rows: facility location with similarity = cosine clipped at 0. Lazy, in fixed point.
Picked pick_covering(Pool& pool, const Pool& ground, const Task& task);
EngineState covering_state(const PoolShape& pool, std::int64_t ground_rows);
// Bytes, beside, of its lists of near ground rows, out of the `memory` that it may use. At most: how much of it they
// take is a matter of the data.
std::int64_t covering_lists(std::int64_t own_ground_rows, std::int64_t candidates, std::int64_t memory);

// Collective. In what unit the coverage of each ground row is rounded; a sum over all stays below 2^53, so that it is
// exact as a float64 too.
FixedPoint coverage_fixed_point(const Pool& ground);

}  // namespace seine
