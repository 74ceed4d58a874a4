#include "oracle.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <numeric>

#include "seine/order.hpp"
#include "seine/random.hpp"

namespace seine::test {
namespace {

using Rows = std::vector<std::int64_t>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

double keyed_uniform(std::uint64_t seed, const char* name, std::int64_t row) {
  return uniform(seed, Purpose(name), static_cast<std::uint64_t>(row));
}

double keyed_exponential(std::uint64_t seed, const char* name, int level, std::int64_t row) {
  return exponential(seed, Purpose(name, level), static_cast<std::uint64_t>(row));
}

// The first of `rows` (ascending) with the largest value. NaN never wins.
std::int64_t best_of(const Rows& rows, const std::function<double(std::int64_t)>& value) {
  std::int64_t best = -1;
  double largest = -kInfinity;
  for (const std::int64_t row : rows) {
    const double v = value(row);
    if (best < 0 || v > largest || (v == largest && row < best)) {
      best = row;
      largest = v;
    }
  }
  return best;
}

void erase(Rows& rows, std::int64_t row) {
  rows.erase(std::find(rows.begin(), rows.end(), row));
}

// Lowest class of the largest mean probability.
struct Distribution {
  std::vector<double> mean;
  std::int64_t best = 0;
};
Distribution distribution_of(const View& view, std::int64_t row) {
  Distribution d{std::vector<double>(static_cast<std::size_t>(view.classes), 0.0)};
  for (std::int64_t t = 0; t < view.passes; ++t)
    for (std::int64_t c = 0; c < view.classes; ++c) d.mean[c] += view.p[(row * view.passes + t) * view.classes + c];
  for (double& mean : d.mean) mean /= static_cast<double>(view.passes);
  d.best = std::max_element(d.mean.begin(), d.mean.end()) - d.mean.begin();
  return d;
}

double entropy_of(const double* p, std::int64_t classes) {
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c)
    if (p[c] > 0) sum -= p[c] * log_of(p[c]);
  return std::max(0.0, sum);
}

struct Pick {
  std::int64_t row;
  double gain;
  double weight = 1;  // in the D^2 races: weighted number of the node's rows nearest to it
};

// A node of the merge tree; the exact run is one leaf of all rows.
struct Node {
  Rows rows;                              // of all parts, ascending
  std::map<std::int64_t, double> weight;  // of the rows of nodes above the leaves, in the D^2 races
  int level = 0;
  bool whole = false;  // sees the whole pool: facility location sums over `ground`
};

// Everything that a strategy needs besides the node.
class Oracle {
 public:
  Oracle(const View& view, const Request& request);

  Answer answer() const;
  double objective_of(const Rows& batch) const;

 private:
  bool is(const char* name) const { return request_.strategy == name; }
  std::string parameter(const char* name, const char* otherwise) const {
    const auto found = request_.set.find(name);
    return found == request_.set.end() ? otherwise : found->second;
  }
  bool scores_rows() const { return is("entropy") || is("least_confidence") || is("margin") || is("bald"); }
  bool interacts() const { return !scores_rows() && !is("random"); }

  double weight(std::int64_t row) const;
  double inner(std::int64_t i, std::int64_t j) const;
  double distance2(std::int64_t i, std::int64_t j) const;
  double norm2(std::int64_t i) const { return inner(i, i); }
  float similarity(std::int64_t i, std::int64_t j) const;
  double nearest2(std::int64_t row, const Rows& centres) const;

  std::vector<Pick> run(const Node& node) const;
  std::vector<Pick> run_merge() const;
  std::vector<Pick> pick_random(Rows open) const;
  std::vector<Pick> pick_scores(Rows open) const;
  std::vector<Pick> pick_k_center(const Node& node, Rows open) const;
  std::vector<Pick> pick_race(const Node& node, Rows open) const;
  std::vector<Pick> pick_facility(const Node& node, Rows open) const;
  std::vector<Pick> pick_log_det(Rows open) const;

  Certificate certify(const std::vector<Pick>& picks) const;
  double weighted_radius_bound(const Rows& batch) const;
  double facility(const Rows& chosen) const;
  double f(const Rows& chosen) const { return is("log_det") ? information(chosen) : facility(chosen); }
  double information(const Rows& chosen) const;
  double everything() const;

  const View& view_;
  const Request& request_;
  std::int64_t batch_ = 0, candidates_ = 0;
  bool unit_rows_ = false, outer_ = false;
  std::vector<double> x_;         // [total, dim], normalised where asked for
  std::vector<float> unit_;       // the same, of facility location
  std::vector<double> residual_;  // [total, classes]
  std::vector<float> steering_;   // of --score; empty without
  Rows seen_;                     // pool rows that strategy and certificate see
  Rows open_;                     // those that may be picked
  Rows covered_;                  // of the pool and of labelled pools
  Rows centres_;                  // covered rows that count as centres
  Rows ground_;                   // of facility location
};

Oracle::Oracle(const View& view, const Request& request) : view_(view), request_(request) {
  outer_ = is("badge");
  for (std::int64_t row = 0; row < view.total(); ++row) {
    if (view.part[row] == Part::candidate) open_.push_back(row);
    if (view.part[row] == Part::covered) covered_.push_back(row);
    if (row < view.rows) seen_.push_back(row);
  }
  candidates_ = static_cast<std::int64_t>(open_.size());
  batch_ = std::min(request.batch, candidates_);

  if (request.score)
    for (std::int64_t row = 0; row < view.total(); ++row)
      steering_.push_back(expected_score(view, *request.score, row));
  if (request.keep) {
    std::stable_sort(open_.begin(), open_.end(),
                     [this](std::int64_t i, std::int64_t j) { return steering_[i] > steering_[j]; });
    const auto kept = static_cast<std::size_t>(std::ceil(*request.keep * static_cast<double>(request.batch)));
    if (kept < open_.size()) open_.resize(kept);
    std::sort(open_.begin(), open_.end());
    std::erase_if(seen_, [this](std::int64_t row) {
      return view_.part[row] != Part::covered && !std::binary_search(open_.begin(), open_.end(), row);
    });
  }

  const bool by_default = request.normalize == Normalize::by_strategy;
  unit_rows_ = request.normalize == Normalize::l2 || (by_default && is("log_det")) || is("facility_location");
  for (std::int64_t row = 0; row < view.total() && view.dim > 0; ++row) {
    const float* from = view.x.data() + row * view.dim;
    double square = 0;
    for (std::int64_t d = 0; d < view.dim; ++d) square += static_cast<double>(from[d]) * from[d];
    for (std::int64_t d = 0; d < view.dim; ++d)
      x_.push_back(unit_rows_ && square > 0 ? static_cast<float>(from[d] / std::sqrt(square)) : from[d]);
  }
  if (is("facility_location")) unit_.assign(x_.begin(), x_.end());
  const bool conditioned = parameter("conditioned", "false") == "true";
  if (!outer_ || conditioned) centres_ = covered_;
  if (outer_) {
    for (std::int64_t row = 0; row < view.total(); ++row) {
      const Distribution d = distribution_of(view, row);
      const bool known = conditioned && view.part[row] == Part::covered && view.y[row] >= 0;
      const std::int64_t y = known ? view.y[row] : d.best;
      for (std::int64_t c = 0; c < view.classes; ++c)
        residual_.push_back(static_cast<float>((c == y ? 1.0 : 0.0) - d.mean[c]));
    }
  }
  ground_ = seen_;
  const std::string ground = parameter("ground", "auto");
  if (is("facility_location") && ground != "auto" && ground != "all") {
    std::stable_sort(ground_.begin(), ground_.end(), [this](std::int64_t i, std::int64_t j) {
      return keyed_uniform(request_.seed, "ground", i) < keyed_uniform(request_.seed, "ground", j);
    });
    const auto count = static_cast<std::size_t>(std::stoll(ground));
    if (count < ground_.size()) ground_.resize(count);
    std::sort(ground_.begin(), ground_.end());
  }
}

double Oracle::weight(std::int64_t row) const {
  return request_.score_power > 0 ? power_of(steering_[row], request_.score_power) : 1.0;
}

double Oracle::inner(std::int64_t i, std::int64_t j) const {
  double x = 0;
  for (std::int64_t d = 0; d < view_.dim; ++d) x += x_[i * view_.dim + d] * x_[j * view_.dim + d];
  if (!outer_) return x;
  double a = 0;
  for (std::int64_t c = 0; c < view_.classes; ++c)
    a += residual_[i * view_.classes + c] * residual_[j * view_.classes + c];
  return a * x;
}

// Of badge over all classes x dim entries of the gradient embeddings, formed one by one.
double Oracle::distance2(std::int64_t i, std::int64_t j) const {
  double sum = 0;
  for (std::int64_t c = 0; c < (outer_ ? view_.classes : 1); ++c) {
    const double a = outer_ ? residual_[i * view_.classes + c] : 1, b = outer_ ? residual_[j * view_.classes + c] : 1;
    for (std::int64_t d = 0; d < view_.dim; ++d) {
      const double difference = a * x_[i * view_.dim + d] - b * x_[j * view_.dim + d];
      sum += difference * difference;
    }
  }
  return sum;
}

// Facility location is defined on float32 cosines by the canonical kernel, so that its exact ties are those of the
// library.
float Oracle::similarity(std::int64_t i, std::int64_t j) const {
  const float dot = canonical_dot(unit_.data() + i * view_.dim, unit_.data() + j * view_.dim, view_.dim);
  return std::clamp(dot, 0.0f, 1.0f);
}

double Oracle::nearest2(std::int64_t row, const Rows& centres) const {
  double nearest = kInfinity;
  for (const std::int64_t centre : centres) nearest = std::min(nearest, distance2(row, centre));
  return nearest;
}

std::vector<Pick> Oracle::pick_random(Rows open) const {
  std::vector<Pick> picks;
  std::stable_sort(open.begin(), open.end(), [this](std::int64_t i, std::int64_t j) {
    return keyed_uniform(request_.seed, "random", i) < keyed_uniform(request_.seed, "random", j);
  });
  for (std::int64_t t = 0; t < batch_; ++t) picks.push_back({open[t], kNaN});
  return picks;
}

std::vector<Pick> Oracle::pick_scores(Rows open) const {
  std::vector<Pick> picks;
  for (std::int64_t t = 0; t < batch_; ++t) {
    const std::int64_t row =
        best_of(open, [this](std::int64_t i) { return expected_score(view_, request_.strategy, i); });
    picks.push_back({row, expected_score(view_, request_.strategy, row)});
    erase(open, row);
  }
  return picks;
}

std::vector<Pick> Oracle::pick_k_center(const Node& node, Rows open) const {
  std::vector<Pick> picks;
  Rows centres = centres_;
  while (static_cast<std::int64_t>(picks.size()) < batch_ && !open.empty()) {
    std::int64_t row = open.front();
    if (!centres.empty()) {
      row = best_of(open,
                    [&](std::int64_t i) { return weight(i) > 0 ? weight(i) * weight(i) * nearest2(i, centres) : 0.0; });
    } else {
      const std::string first = parameter("first", "smallest_row");
      if (first == "random")
        row = best_of(open, [this](std::int64_t i) { return -keyed_uniform(request_.seed, "first", i); });
      if (first == "max_norm") row = best_of(open, [this](std::int64_t i) { return norm2(i); });
      if (first == "farthest_from_mean") {
        std::vector<double> mean(static_cast<std::size_t>(view_.dim), 0.0);
        for (const std::int64_t i : node.rows)
          for (std::int64_t d = 0; d < view_.dim; ++d)
            mean[d] += x_[i * view_.dim + d] / static_cast<double>(node.rows.size());
        row = best_of(open, [&](std::int64_t i) {
          double sum = 0;
          for (std::int64_t d = 0; d < view_.dim; ++d) sum += std::pow(x_[i * view_.dim + d] - mean[d], 2);
          return sum;
        });
      }
    }
    picks.push_back({row, std::sqrt(nearest2(row, centres))});
    centres.push_back(row);
    erase(open, row);
  }
  return picks;
}

// k_means_pp and badge: the race of exponential clocks, with every row's clock brought up to date at every pick.
std::vector<Pick> Oracle::pick_race(const Node& node, Rows open) const {
  struct Clock {
    double left, since, rate, near2;
    double fires() const { return rate > 0 ? since + left / rate : kInfinity; }
  };
  std::map<std::int64_t, Clock> clocks;
  std::map<std::int64_t, double> near2;             // of all rows of the node, to centres and picks
  std::map<std::int64_t, std::int64_t> nearest_to;  // position of the nearest pick; -1: a centre, or nothing
  const auto carried = [&](std::int64_t row) { return node.level > 0 ? node.weight.at(row) : weight(row); };
  for (const std::int64_t row : node.rows) {
    near2[row] = nearest2(row, centres_);
    nearest_to[row] = -1;
  }
  for (const std::int64_t row : open) {
    const double rate = centres_.empty() ? 0 : carried(row) * near2[row];
    clocks[row] = {keyed_exponential(request_.seed, "race", node.level, row), 0, rate, near2[row]};
  }
  std::vector<Pick> picks;
  while (static_cast<std::int64_t>(picks.size()) < batch_ && !open.empty()) {
    const bool free_first = picks.empty() && centres_.empty();
    double now = 0;
    std::int64_t row = -1;
    if (free_first && outer_) {
      row = best_of(open, [this](std::int64_t i) { return norm2(i); });
    } else if (free_first) {
      row = best_of(open, [&](std::int64_t i) {
        const double w = node.level > 0 ? node.weight.at(i) : 1;
        return w > 0 ? -keyed_exponential(request_.seed, "first", node.level, i) / w : -kInfinity;
      });
    } else {
      row = best_of(open, [&](std::int64_t i) { return -clocks[i].fires(); });
      now = clocks[row].fires();
      if (now == kInfinity) {  // nothing is left to draw: the filler
        now = 0;
        row = outer_ ? best_of(open, [this](std::int64_t i) { return norm2(i); }) : open.front();
      }
    }
    picks.push_back({row, near2[row], 0});
    if (free_first) picks.back().gain = outer_ ? norm2(row) : kNaN;
    erase(open, row);
    for (const std::int64_t i : node.rows) {
      const double d2 = distance2(i, row);
      if (!(d2 < near2[i])) continue;  // the older centre keeps a tie
      near2[i] = d2;
      nearest_to[i] = static_cast<std::int64_t>(picks.size()) - 1;
      const auto clock = clocks.find(i);
      if (clock == clocks.end()) continue;
      Clock& c = clock->second;
      c.left = std::max(c.left - c.rate * (now - c.since), 1e-300);
      c.since = now;
      c.rate = carried(i) * d2;
    }
  }
  for (const std::int64_t i : node.rows)
    if (nearest_to[i] >= 0) picks[nearest_to[i]].weight += carried(i);
  return picks;
}

std::vector<Pick> Oracle::pick_facility(const Node& node, Rows open) const {
  const Rows& ground = node.whole || node.level > 0 ? ground_ : node.rows;
  std::map<std::int64_t, float> best;
  double heaviest = 0;
  for (const std::int64_t i : ground) {
    heaviest = std::max(heaviest, weight(i));
    best[i] = 0;
    for (const std::int64_t centre : centres_) best[i] = std::max(best[i], similarity(i, centre));
  }
  const FixedPoint fixed = FixedPoint::for_sum(static_cast<std::int64_t>(ground.size()), heaviest, 30);
  const auto gain = [&](std::int64_t j) {
    std::int64_t sum = 0;
    for (const std::int64_t i : ground) {
      const float s = similarity(i, j);
      if (s > best[i]) sum += fixed.of(weight(i) * s) - fixed.of(weight(i) * best[i]);
    }
    return fixed.value(sum);
  };
  std::vector<Pick> picks;
  while (static_cast<std::int64_t>(picks.size()) < batch_ && !open.empty()) {
    const std::int64_t row = best_of(open, gain);
    picks.push_back({row, gain(row)});
    for (const std::int64_t i : ground) best[i] = std::max(best[i], similarity(i, row));
    erase(open, row);
  }
  return picks;
}

// Spec 3.8, the feature-space form: one row after the other, all rows kept up to date.
class Posterior {
 public:
  Posterior(const std::vector<double>& x, std::int64_t dim, double noise, bool unit)
      : x_(x), dim_(dim), noise_(noise), p_(static_cast<std::size_t>(dim * dim), 0.0L) {
    for (std::int64_t d = 0; d < dim; ++d) p_[d * dim + d] = 1;
    for (std::size_t i = 0; i < x.size() / static_cast<std::size_t>(dim); ++i) {
      long double norm2 = 0;
      for (std::int64_t d = 0; d < dim; ++d) norm2 += static_cast<long double>(x[i * dim + d]) * x[i * dim + d];
      variance_.push_back(unit ? (norm2 > 0 ? 1 : 0) : norm2);
    }
  }
  double variance(std::int64_t row) const { return static_cast<double>(variance_[row]); }
  double gain(std::int64_t row) const { return static_cast<double>(std::log1p(variance_[row] / noise_)); }
  void add(std::int64_t row) {
    const long double g = noise_ + variance_[row];
    std::vector<long double> v(static_cast<std::size_t>(dim_), 0.0L);
    for (std::int64_t c = 0; c < dim_; ++c)
      for (std::int64_t d = 0; d < dim_; ++d) v[c] += p_[c * dim_ + d] * x_[row * dim_ + d];
    for (std::size_t i = 0; i < variance_.size(); ++i) {
      long double product = 0;
      for (std::int64_t d = 0; d < dim_; ++d) product += x_[i * dim_ + d] * v[d];
      variance_[i] = std::max(0.0L, variance_[i] - product * product / g);
    }
    for (std::int64_t c = 0; c < dim_; ++c)
      for (std::int64_t d = 0; d < dim_; ++d) p_[c * dim_ + d] -= v[c] * v[d] / g;
  }

 private:
  const std::vector<double>& x_;
  std::int64_t dim_;
  double noise_;
  std::vector<long double> p_, variance_;
};

std::vector<Pick> Oracle::pick_log_det(Rows open) const {
  Posterior posterior(x_, view_.dim, std::stod(parameter("noise", "0.01")), unit_rows_);
  for (const std::int64_t row : centres_) posterior.add(row);
  std::vector<Pick> picks;
  while (static_cast<std::int64_t>(picks.size()) < batch_ && !open.empty()) {
    const std::int64_t row = best_of(open, [&](std::int64_t i) { return posterior.variance(i); });
    picks.push_back({row, posterior.gain(row)});
    posterior.add(row);
    erase(open, row);
  }
  return picks;
}

std::vector<Pick> Oracle::run(const Node& node) const {
  Rows open;
  for (const std::int64_t row : node.rows)
    if (std::binary_search(open_.begin(), open_.end(), row)) open.push_back(row);
  if (open.empty()) return {};
  if (is("random")) return pick_random(open);
  if (scores_rows()) return pick_scores(open);
  if (is("k_center")) return pick_k_center(node, open);
  if (is("facility_location")) return pick_facility(node, open);
  if (is("log_det")) return pick_log_det(open);
  return pick_race(node, open);
}

std::vector<Pick> Oracle::run_merge() const {
  const auto n = static_cast<std::int64_t>(seen_.size());
  const std::int64_t partitions =
      std::max<std::int64_t>(1, std::min<std::int64_t>(request_.partitions, n / (4 * batch_)));
  if (partitions == 1) return run({.rows = seen_, .weight = {}, .level = 0, .whole = true});
  std::vector<Node> leaves(static_cast<std::size_t>(partitions));
  for (const std::int64_t row : seen_) {
    const std::uint64_t bits =
        random_bits(request_.seed, Purpose("partition").key, static_cast<std::uint64_t>(row / 64));
    leaves[bits % static_cast<std::uint64_t>(partitions)].rows.push_back(row);
  }
  std::vector<std::vector<Pick>> children;
  for (const Node& leaf : leaves) children.push_back(run(leaf));
  for (int level = 1; children.size() > 1; ++level) {
    std::vector<std::vector<Pick>> above;
    for (std::size_t first = 0; first < children.size(); first += static_cast<std::size_t>(request_.fan_in)) {
      Node node{.rows = {}, .weight = {}, .level = level};
      const std::size_t last = std::min(children.size(), first + static_cast<std::size_t>(request_.fan_in));
      for (std::size_t child = first; child < last; ++child)
        for (const Pick& pick : children[child]) {
          node.rows.push_back(pick.row);
          node.weight[pick.row] = pick.weight;
        }
      std::sort(node.rows.begin(), node.rows.end());
      above.push_back(run(node));
    }
    children = std::move(above);
  }
  return children.front();
}

double Oracle::facility(const Rows& chosen) const {
  double sum = 0;
  for (const std::int64_t i : ground_) {
    float best = 0;
    for (const std::int64_t j : covered_) best = std::max(best, similarity(i, j));
    const float before = best;
    for (const std::int64_t j : chosen) best = std::max(best, similarity(i, j));
    sum += weight(i) * (double{best} - before);
  }
  return sum;
}

double Oracle::information(const Rows& chosen) const {
  Posterior posterior(x_, view_.dim, std::stod(parameter("noise", "0.01")), unit_rows_);
  for (const std::int64_t row : covered_) posterior.add(row);
  double sum = 0;
  for (const std::int64_t row : chosen) {
    if (std::find(covered_.begin(), covered_.end(), row) != covered_.end()) continue;
    sum += posterior.gain(row);
    posterior.add(row);
  }
  return sum;
}

// log det after all rows less that after the covered ones, as determinants: no order, no convention on norms.
double Oracle::everything() const {
  View rounded = view_;
  rounded.x.assign(x_.begin(), x_.end());
  const double noise = std::stod(parameter("noise", "0.01"));
  Rows all = covered_;
  for (const std::int64_t row : seen_)
    if (view_.part[row] != Part::covered) all.push_back(row);
  return log_det_of(rounded, all, noise, false) - log_det_of(rounded, covered_, noise, false);
}

double Oracle::objective_of(const Rows& batch) const {
  if (scores_rows()) {
    double sum = 0;
    for (const std::int64_t row : batch) sum += expected_score(view_, request_.strategy, row);
    return sum;
  }
  if (is("facility_location") || is("log_det")) return f(batch);
  if (is("random")) return kNaN;
  Rows centres = centres_;
  centres.insert(centres.end(), batch.begin(), batch.end());
  double radius = 0, sum = 0;
  for (const std::int64_t row : seen_) {
    const double d2 = nearest2(row, centres);
    radius = std::max(radius, weight(row) * std::sqrt(d2));
    sum += weight(row) * d2;
  }
  return is("k_center") ? radius : sum / static_cast<double>(seen_.size());
}

// Spec 1.5, over the batch and the worst row.
double Oracle::weighted_radius_bound(const Rows& batch) const {
  Rows centres = covered_;
  centres.insert(centres.end(), batch.begin(), batch.end());
  Rows q = batch;
  q.push_back(best_of(seen_, [&](std::int64_t i) { return weight(i) * weight(i) * nearest2(i, centres); }));
  double bound = kInfinity;
  for (std::size_t a = 0; a < q.size(); ++a) {
    if (!covered_.empty()) bound = std::min(bound, weight(q[a]) * std::sqrt(nearest2(q[a], covered_)));
    for (std::size_t b = 0; b < a; ++b) {
      const double w = weight(q[a]), v = weight(q[b]);
      bound = std::min(bound, w + v > 0 ? std::sqrt(distance2(q[a], q[b])) * w * v / (w + v) : 0.0);
    }
  }
  return bound;
}

Certificate Oracle::certify(const std::vector<Pick>& picks) const {
  Certificate certificate;
  if (is("random")) return certificate;
  Rows batch;
  for (const Pick& pick : picks) batch.push_back(pick.row);
  certificate.value = objective_of(batch);
  certificate.rows = static_cast<std::int64_t>(seen_.size());
  certificate.random = 0;
  View drawn = view_;
  for (std::int64_t row = 0; row < view_.total(); ++row)
    drawn.part[row] = std::binary_search(open_.begin(), open_.end(), row) ? Part::candidate : Part::bystander;
  for (std::uint64_t s = 1; s <= 5; ++s)
    certificate.random += objective_of(expected_random(drawn, request_.seed + s, batch_)) / 5;

  if (scores_rows()) {
    certificate.kind = "scores";
    certificate.bound = certificate.value;
  } else if (is("k_center")) {
    certificate.kind = "radius";
    certificate.bound = certificate.value;
    for (const Pick& pick : picks) certificate.bound = std::min(certificate.bound, pick.gain);
    certificate.bound /= 2;
    if (request_.score_power > 0) certificate.bound = weighted_radius_bound(batch);
  } else if (is("facility_location") || is("log_det")) {
    certificate.kind = "submodular";
    certificate.rows = is("log_det") ? certificate.rows : static_cast<std::int64_t>(ground_.size());
    if (request_.reduce == Reduce::exact) {
      certificate.bound = is("log_det") ? everything() : f(seen_);
      double prefix = 0;
      for (const Pick& pick : picks) {
        certificate.bound = std::min(certificate.bound, prefix + static_cast<double>(batch_) * pick.gain);
        prefix += pick.gain;
      }
    }
  } else {
    certificate.kind = "potential";
    certificate.bound = certificate.random;
  }
  const bool both_zero = certificate.value == 0 && certificate.bound == 0;
  certificate.ratio = both_zero ? 1 : certificate.value / certificate.bound;
  return certificate;
}

Answer Oracle::answer() const {
  Answer answer;
  answer.candidates = candidates_;
  answer.truncated = request_.batch > candidates_;
  const std::vector<Pick> picks = request_.reduce == Reduce::merge && interacts()
                                      ? run_merge()
                                      : run({.rows = seen_, .weight = {}, .level = 0, .whole = true});
  for (const Pick& pick : picks) {
    answer.rows.push_back(pick.row);
    answer.gains.push_back(pick.gain);
    float score = std::numeric_limits<float>::quiet_NaN();
    if (scores_rows()) score = expected_score(view_, request_.strategy, pick.row);
    if (request_.score) score = steering_[pick.row];
    if (outer_) score = static_cast<float>(norm2(pick.row));
    answer.scores.push_back(score);
  }
  answer.certificate = certify(picks);
  return answer;
}

}  // namespace

Answer expected(const View& view, const Request& request) {
  return Oracle(view, request).answer();
}

double objective(const View& view, const Request& request, const std::vector<std::int64_t>& batch) {
  return Oracle(view, request).objective_of(batch);
}

float expected_score(const View& view, const std::string& name, std::int64_t row) {
  const Distribution d = distribution_of(view, row);
  std::vector<double> sorted = d.mean;
  std::sort(sorted.rbegin(), sorted.rend());
  double score = kNaN;
  if (name == "entropy") score = entropy_of(d.mean.data(), view.classes);
  if (name == "least_confidence") score = 1 - sorted[0];
  if (name == "margin") score = 1 - (sorted[0] - sorted[1]);
  if (name == "bald") {
    double expected_entropy = 0;
    for (std::int64_t t = 0; t < view.passes; ++t)
      expected_entropy += entropy_of(view.p.data() + (row * view.passes + t) * view.classes, view.classes);
    score = entropy_of(d.mean.data(), view.classes) - expected_entropy / static_cast<double>(view.passes);
  }
  return static_cast<float>(score < 0 ? 0 : score);
}

std::vector<std::int64_t> expected_random(const View& view, std::uint64_t seed, std::int64_t batch) {
  Rows rows;
  for (std::int64_t row = 0; row < view.rows; ++row)
    if (view.part[row] == Part::candidate) rows.push_back(row);
  std::stable_sort(rows.begin(), rows.end(), [seed](std::int64_t i, std::int64_t j) {
    return keyed_uniform(seed, "random", i) < keyed_uniform(seed, "random", j);
  });
  rows.resize(static_cast<std::size_t>(std::min<std::int64_t>(batch, static_cast<std::int64_t>(rows.size()))));
  return rows;
}

double log_det_of(const View& view, const std::vector<std::int64_t>& rows, double noise, bool unit_rows) {
  const std::size_t n = rows.size();
  std::vector<long double> x;
  for (const std::int64_t row : rows) {
    long double square = 0;
    for (std::int64_t d = 0; d < view.dim; ++d)
      square += static_cast<long double>(view.x[row * view.dim + d]) * view.x[row * view.dim + d];
    for (std::int64_t d = 0; d < view.dim; ++d)
      x.push_back(view.x[row * view.dim + d] / (unit_rows && square > 0 ? std::sqrt(square) : 1.0L));
  }
  std::vector<long double> l(n * n, 0.0L);  // lower Cholesky factor
  long double sum = 0;
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j <= i; ++j) {
      long double entry = i == j ? 1.0L : 0.0L;
      const auto dim = static_cast<std::size_t>(view.dim);
      for (std::size_t d = 0; d < dim; ++d) entry += x[i * dim + d] * x[j * dim + d] / noise;
      for (std::size_t k = 0; k < j; ++k) entry -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = i == j ? std::sqrt(entry) : entry / l[j * n + j];
    }
    sum += 2 * std::log(l[i * n + i]);
  }
  return static_cast<double>(sum);
}

}  // namespace seine::test
