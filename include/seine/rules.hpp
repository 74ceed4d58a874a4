// Arithmetic per row, one struct each: scores, which the host computes while it reads, and what a pick does to a row,
// on any device. A new kind is a struct here, a word in its enumeration and a case in the switch that goes over it.
#pragma once

#include <cstdint>
#include <limits>

#include "seine/order.hpp"
#include "seine/random.hpp"
#include "seine/row_math.hpp"

namespace seine {

// --- Scores: one value per row, in float64; larger is queried first. `p` is [passes, classes]. ---

SEINE_HD inline double x_log_x(double p) {
  return p > 0 ? p * log_of(p) : 0;
}

// Probability of class c averaged over the passes.
SEINE_HD inline double mean_probability(const double* p, std::int64_t passes, std::int64_t classes, std::int64_t c) {
  if (passes == 1) return p[c];
  double sum = 0;
  for (std::int64_t t = 0; t < passes; ++t) sum += p[t * classes + c];
  return sum / static_cast<double>(passes);
}

// Prediction entropy in nats; 0 when certain, log(classes) when undecided.
struct Entropy {
  SEINE_HD double operator()(const double* p, std::int64_t passes, std::int64_t classes) const {
    double sum = 0;
    for (std::int64_t c = 0; c < classes; ++c) sum += x_log_x(mean_probability(p, passes, classes, c));
    return sum < 0 ? -sum : 0;
  }
};

struct TopTwo {
  double first, second;
  std::int64_t best;  // class of `first`, the lowest on a tie
};
SEINE_HD inline TopTwo top_two(const double* p, std::int64_t passes, std::int64_t classes) {
  TopTwo top{-1, -1, 0};
  for (std::int64_t c = 0; c < classes; ++c) {
    const double value = mean_probability(p, passes, classes, c);
    if (value > top.first) {
      top.second = top.first;
      top.first = value;
      top.best = c;
    } else if (value > top.second) {
      top.second = value;
    }
  }
  return top;
}

struct LeastConfidence {
  SEINE_HD double operator()(const double* p, std::int64_t passes, std::int64_t classes) const {
    const double score = 1 - top_two(p, passes, classes).first;
    return score > 0 ? score : 0;
  }
};

struct Margin {
  SEINE_HD double operator()(const double* p, std::int64_t passes, std::int64_t classes) const {
    const TopTwo top = top_two(p, passes, classes);
    const double score = 1 - (top.first - top.second);
    return score > 0 ? score : 0;
  }
};

// Mutual information of prediction and model: entropy of the mean minus mean of the entropies, clamped at 0.
struct Bald {
  SEINE_HD double operator()(const double* p, std::int64_t passes, std::int64_t classes) const {
    double expected = 0;
    for (std::int64_t t = 0; t < passes; ++t) expected += Entropy{}(p + t * classes, 1, classes);
    const double information = Entropy{}(p, passes, classes) - expected / static_cast<double>(passes);
    return information > 0 ? information : 0;
  }
};

enum class ScoreKind : int { entropy, least_confidence, margin, bald };

// Calls `visit` with the struct of `kind`.
template <class Visit>
decltype(auto) with_score(ScoreKind kind, Visit&& visit) {
  switch (kind) {
    case ScoreKind::entropy:
      return visit(Entropy{});
    case ScoreKind::least_confidence:
      return visit(LeastConfidence{});
    case ScoreKind::margin:
      return visit(Margin{});
    case ScoreKind::bald:
      break;
  }
  return visit(Bald{});
}

// Residual of the prediction, e_y - mean p, for the gradient embedding of BADGE; y < 0: the predicted class.
SEINE_HD inline void residual(const double* p, std::int64_t passes, std::int64_t classes, std::int64_t y, float* out) {
  if (y < 0) y = top_two(p, passes, classes).best;
  for (std::int64_t c = 0; c < classes; ++c) {
    const double mean = mean_probability(p, passes, classes, c);
    out[c] = static_cast<float>(c == y ? 1 - mean : -mean);
  }
}

// --- Rules: what a pick does to a row. `key` is what the row competes with: it only ever falls as picks are applied,
// so a stale key is an upper bound. A rule has
//   State                      per-row state
//   start(before, ...)         state before the first pick, `before` from the covered rows (see each rule)
//   apply(state, weight, interaction, moment, ordinal)   one pick; picks are applied in order of selection
//   key(state, weight)
// `interaction` is the squared distance of the row to the pick, or their inner product. ---

inline constexpr std::uint32_t kNobody = 0xffffffffu;  // nearest centre: none of the batch

// Squared distance to the nearest of covered and batch, times a weight (k-center, coverage).
struct Nearest {
  struct State {
    double distance2;
    std::uint32_t nearest;  // ordinal of the pick; the older one on a tie; kNobody: a covered row, or nothing
  };
  static constexpr bool uses_distance = true;
  // before: squared distance to the nearest covered row, infinity without any.
  SEINE_HD static State start(double before, double, std::uint64_t, Purpose, std::int64_t) { return {before, kNobody}; }
  SEINE_HD static void apply(State& s, double, double distance2, double, std::uint32_t ordinal) {
    if (distance2 < s.distance2) s = {distance2, ordinal};
  }
  SEINE_HD static double key(const State& s, double weight) { return weight > 0 ? weight * s.distance2 : 0; }
};

// A race of exponential clocks: rows are drawn in proportion to weight * squared distance, where the distance changes
// with every pick. `moment` is the time at which the pick fired. The key is minus the firing time.
struct Race {
  struct State {
    double distance2;
    double left;   // of the unit exponential
    double since;  // time of the last change
    double fires;  // infinity while the rate is 0
    std::uint32_t nearest;
  };
  static constexpr bool uses_distance = true;
  // before: as for Nearest; infinity (nothing to be near to) means that the clock starts with the first pick.
  SEINE_HD static State start(double before, double weight, std::uint64_t seed, Purpose purpose, std::int64_t row) {
    State s{before, exponential(seed, purpose, static_cast<std::uint64_t>(row)), 0, HUGE_VAL, kNobody};
    if (before < HUGE_VAL) s.fires = firing_time(s, weight);
    return s;
  }
  SEINE_HD static void apply(State& s, double weight, double distance2, double moment, std::uint32_t ordinal) {
    if (!(distance2 < s.distance2)) return;
    const double earlier = s.fires;
    if (s.distance2 < HUGE_VAL) {
      s.left = fma(-(weight * s.distance2), moment - s.since, s.left);
      if (!(s.left > 1e-300)) s.left = 1e-300;
    }
    s.since = moment;
    const bool ran = s.distance2 < HUGE_VAL;
    s.distance2 = distance2;
    s.nearest = ordinal;
    s.fires = firing_time(s, weight);
    if (ran && s.fires < earlier) s.fires = earlier;  // rounding must not make a stale bound wrong
  }
  SEINE_HD static double key(const State& s, double) { return -s.fires; }
  SEINE_HD static double firing_time(const State& s, double weight) {
    const double rate = weight * s.distance2;
    if (!(rate > 0)) return HUGE_VAL;
    const double fires = s.since + s.left / rate;
    return fires < 1e300 ? fires : 1e300;
  }
};

// Posterior variance of a linear Gaussian model: a <- a - (x . v)^2 / g, where v = P x_pick and g = noise + a_pick =
// moment (greedy log-determinant in feature space).
struct Variance {
  struct State {
    double variance;
  };
  static constexpr bool uses_distance = false;
  // before: variance given the covered rows.
  SEINE_HD static State start(double before, double, std::uint64_t, Purpose, std::int64_t) { return {before}; }
  SEINE_HD static void apply(State& s, double, double product, double moment, std::uint32_t) {
    const double left = s.variance - product * product / moment;
    s.variance = left > 0 ? left : 0;
  }
  SEINE_HD static double key(const State& s, double) { return s.variance; }
};

enum class RuleKind : int { nearest, race, variance };

// Calls `visit` with the struct of `kind`.
template <class Visit>
decltype(auto) with_rule(RuleKind kind, Visit&& visit) {
  switch (kind) {
    case RuleKind::nearest:
      return visit(Nearest{});
    case RuleKind::race:
      return visit(Race{});
    case RuleKind::variance:
      break;
  }
  return visit(Variance{});
}

inline std::size_t state_bytes(RuleKind kind) {
  return with_rule(kind, [](auto rule) { return sizeof(typename decltype(rule)::State); });
}

// --- Coverage by similarity (facility location). ---

// Cosine of two unit rows clipped to [0, 1].
SEINE_HD inline float clipped_cosine(float dot) {
  return dot > 0 ? (dot < 1 ? dot : 1.0f) : 0.0f;
}

// What a similarity adds to a row's coverage between two levels, rounded once to the fixed point: an integer. Sums of
// it stay below 2^53, so float64 adds it exactly, and on vector units.
SEINE_HD inline double gain_between(float above, float below, float similarity, double weight, FixedPoint fixed) {
  const float s = similarity < below ? similarity : below;
  const double gain =
      fixed.rounded(weight * static_cast<double>(s)) - fixed.rounded(weight * static_cast<double>(above));
  return s > above ? gain : 0;
}

}  // namespace seine
