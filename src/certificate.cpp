// How good is the batch? One function per kind of objective (contract, section 6).
#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

#include "engines/log_determinant.hpp"
#include "seine/certificate.hpp"
#include "seine/cover.hpp"
#include "seine/pick.hpp"

namespace seine {
namespace {

using Rows = std::span<const std::int64_t>;

double below(double bound) {
  return bound > 0 ? std::nextafter(bound, 0) : bound;
}
double above(double bound) {
  return std::isfinite(bound) ? std::nextafter(bound, HUGE_VAL) : bound;
}

class Certifier {
 public:
  Certifier(const Pool& pool, const Task& task, const Picked& picked, bool exact)
      : pool_(pool), task_(task), batch_(picked.selection), picked_(picked), exact_(exact) {
    certificate_.kind = certificate_kind(task.entry.objective);
  }

  Certificate run() {
    switch (task_.entry.objective) {
      case Objective::none:
        break;
      case Objective::scores:
        scores();
        break;
      case Objective::radius:
        radius();
        break;
      case Objective::potential:
        potential();
        break;
      case Objective::coverage:
        coverage();
        break;
      case Objective::log_determinant:
        log_determinants();
        break;
    }
    return certificate_;
  }

 private:
  void scores() {
    certificate_.objective = "sum of the scores of the batch";
    certificate_.rows = pool_.rows();
    const auto sum = [](std::span<const float> scores) {
      double total = 0;
      for (const float score : scores) total += score;
      return total;
    };
    std::vector<float> best;
    for (const Candidate& candidate : best_by_score(pool_, task_.best, batch_size()))
      best.push_back(static_cast<float>(candidate.value));
    certificate_.random = random_mean([&](Rows rows) {
      return sum(task_.best ? task_.best->of(rows) : pool_.fetch_column(rows, *pool_.columns.score));
    });
    conclude(sum(batch_.scores), sum(best), "sum of the best scores");
  }

  // Largest weight * distance to covered and batch.
  void radius() {
    certificate_.objective = pool_.columns.weight
                                 ? "largest weight * distance of a row to the nearest of covered and batch"
                                 : "largest distance of a row to the nearest of covered and batch";
    certificate_.rows = pool_.rows();
    const auto radius_on = [&](const Pool& on, Rows rows) {
      std::vector<double> values = distances2_to(on, pool_, rows, on.columns.before);
      for (std::size_t i = 0; i < values.size(); ++i) values[i] = weighted_twice(on, i, values[i]);
      return std::sqrt(largest_over(on.comm(), values));
    };
    const double value = exact_ ? std::sqrt(picked_.farthest) : radius_on(pool_, batch_.rows);
    const std::optional<Pool> sample = sample_of(pool_);
    certificate_.random = random_mean([&](Rows rows) { return radius_on(sample ? *sample : pool_, rows); });
    if (pool_.columns.weight) {
      conclude(value, weighted_radius_bound() * (1 - canonical_error(pool_.dim())),
               "no batch of this size has a smaller one (Dyer and Frieze)");
      return;
    }
    // Batch and farthest row are B + 1 points that are at least `apart` from each other and from what is covered, so
    // two of them share a centre of any other batch, or one lies at a covered row.
    double apart = value;
    for (const double gain : batch_.gains) apart = std::min(apart, gain);
    conclude(value, below(apart / 2), "no batch of this size has a smaller one (pigeonhole)");
    const bool nothing_excluded = pool_.candidates() + pool_.covered() == pool_.rows();
    if (exact_ && nothing_excluded)
      certificate_.ratio = std::min(certificate_.ratio, 2.0);  // Gonzalez; not its rounding
  }

  // spec diversity 1.5: over batch and worst row Q, the smaller of d(p,q) w_p w_q / (w_p + w_q) over pairs and
  // w_p d(p, covered) over rows.
  double weighted_radius_bound() const {
    const std::vector<double> distances2 = distances2_to(pool_, pool_, batch_.rows, pool_.columns.before);
    Candidate worst = kNoCandidate;
    for (std::size_t i = 0; i < distances2.size(); ++i) {
      const Candidate here{weighted_twice(pool_, i, distances2[i]), pool_.columns.rows[i]};
      if (beats(here, worst)) worst = here;
    }
    std::vector<std::int64_t> rows = batch_.rows;
    const std::int64_t farthest = best_of(pool_.comm(), {worst}, 1).front().row;
    if (std::find(rows.begin(), rows.end(), farthest) != rows.end()) return 0;
    rows.push_back(farthest);
    const std::vector<double> weight = pool_.fetch_column(rows, *pool_.columns.weight);
    double bound = HUGE_VAL;
    if (pool_.columns.before) {
      const std::vector<double> before = pool_.fetch_column(rows, *pool_.columns.before);
      for (std::size_t i = 0; i < rows.size(); ++i) bound = std::min(bound, weight[i] * std::sqrt(before[i]));
    }
    for_earlier_distances2(pool_, rows, [&](std::size_t i, std::span<const float> distances2_to_earlier) {
      for (std::size_t j = 0; j < i; ++j) {
        const double both = weight[i] + weight[j];
        const double distance = std::sqrt(static_cast<double>(distances2_to_earlier[j]));
        bound = std::min(bound, both > 0 ? weight[i] * weight[j] / both * distance : 0);
      }
    });
    return bound;
  }

  void potential() {
    certificate_.objective =
        "mean over all rows of the squared distance to the nearest of the batch (and of covered rows, where they "
        "count)";
    const std::optional<Pool> sample = sample_of(pool_);
    const Pool& on = sample ? *sample : pool_;
    certificate_.rows = on.rows();
    const auto mean = [&](Rows rows) {
      std::vector<double> values = distances2_to(on, pool_, rows, on.columns.before);
      if (on.columns.weight)
        for (std::size_t i = 0; i < values.size(); ++i) values[i] *= (*on.columns.weight)[i];
      return sum_over(on.comm(), values, on.rows()) / static_cast<double>(on.rows());
    };
    certificate_.random = random_mean(mean);
    conclude(mean(batch_.rows), certificate_.random, "mean of 5 random batches");
  }

  void coverage() {
    certificate_.objective = "sum over ground rows of the largest cosine to the batch, above what covered rows give";
    const Pool& ground = task_.ground ? *task_.ground : pool_;
    certificate_.rows = ground.rows();
    const std::optional<Pool> sample = sample_of(ground);
    const Pool& on = sample ? *sample : ground;
    const double scale = static_cast<double>(ground.rows()) / static_cast<double>(on.rows());
    certificate_.random = random_mean([&](Rows rows) {
      const std::vector<float> best = similarities_to(on, pool_, rows, on.columns.before);
      return scale * gained(on, [&](std::size_t i) { return best[i]; });
    });
    const std::vector<double> norms = ground.squared_norms().to_host();
    const double everything = gained(ground, [&](std::size_t i) { return norms[i] > 0 ? 1.0 : 0.0; });
    // Each row's share of a gain was rounded to the nearest unit.
    const double rounding = static_cast<double>(ground.rows()) * coverage_fixed_point(ground).unit() / 2;
    conclude_submodular(everything, rounding);
  }

  void log_determinants() {
    certificate_.objective = "log det(I + K / noise) of covered rows and batch, above that of the covered rows";
    certificate_.rows = pool_.rows();
    certificate_.random =
        random_mean([&](Rows rows) { return log_determinant(pool_, rows, task_.unit_rows, *task_.prior); });
    const double everything = log_determinant_of_all(pool_, task_.unit_rows, *task_.prior);
    conclude_submodular(everything, 1e-12 * everything);
  }

  // The smallest of f(everything) and, for exact gains, f(S_t) + B gain_{t+1} over the prefixes.
  void conclude_submodular(double everything, double rounding) {
    double value = 0, bound = everything;
    std::string kind = "f(everything) - f(covered)";
    for (const double gain : batch_.gains) {
      const double prefix = value + static_cast<double>(batch_size()) * gain;
      if (exact_ && prefix < bound) {
        bound = prefix;
        kind = "f(prefix) + B * next gain, the smallest over the prefixes";
      }
      value += gain;
    }
    // Nothing to gain is exact, and 0 / 0 is 1.
    conclude(value, bound > 0 ? std::max(above(bound + rounding), value) : value, kind);
  }

  // Sum over the rows of weight * (similarity - what covered rows give).
  static double gained(const Pool& on, const std::function<double(std::size_t)>& similarity) {
    std::vector<double> values(on.columns.rows.size());
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double before = on.columns.before ? (*on.columns.before)[i] : 0;
      const double weight = on.columns.weight ? (*on.columns.weight)[i] : 1;
      values[i] = weight * std::max(0.0, similarity(i) - before);
    }
    return sum_over(on.comm(), values, on.rows());
  }

  static double weighted_twice(const Pool& pool, std::size_t own, double distance2) {
    if (!pool.columns.weight) return distance2;
    const double weight = (*pool.columns.weight)[own];
    return weight > 0 ? weight * weight * distance2 : 0;
  }

  std::int64_t batch_size() const { return static_cast<std::int64_t>(batch_.rows.size()); }

  // What is dear is measured on a sample of a large pool; absent: on all rows.
  std::optional<Pool> sample_of(const Pool& pool) const {
    if (task_.request.certificate == CertificateMode::full || pool.rows() <= kEvaluationRows) return std::nullopt;
    const std::vector<std::int64_t> rows =
        draw_rows(pool, task_.request.seed, Purpose("evaluation"), kEvaluationRows, [](std::int64_t) { return true; });
    return pool.only(rows);
  }

  double random_mean(const std::function<double(Rows)>& measure) const {
    double sum = 0;
    for (int k = 1; k <= kRandomBatches; ++k)
      sum += measure(draw_batch(pool_, task_.request.seed + static_cast<std::uint64_t>(k), batch_size()));
    return sum / kRandomBatches;
  }

  void conclude(double value, double bound, const std::string& kind) {
    certificate_.value = value;
    certificate_.bound = bound;
    certificate_.bound_kind = kind;
    certificate_.ratio = certificate_ratio(value, bound);
  }

  const Pool& pool_;
  const Task& task_;
  const Selection& batch_;
  const Picked& picked_;
  const bool exact_;
  Certificate certificate_;
};

}  // namespace

double certificate_ratio(double value, double bound) {
  return value == 0 && bound == 0 ? 1 : value / bound;
}

Certificate certify(const Pool& pool, const Task& task, const Picked& picked, bool exact) {
  return Certifier(pool, task, picked, exact).run();
}

}  // namespace seine
