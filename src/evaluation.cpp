#include "seine/evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "reading/csv.hpp"
#include "reading/id_list.hpp"
#include "reading/loader.hpp"
#include "scores/score_kernel.hpp"
#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/ids.hpp"
#include "seine/input.hpp"

namespace seine {
namespace {

using Rows = std::vector<std::int64_t>;

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();

// What is said of one batch.
struct Metrics {
  double radius = kUndefined, mean_distance = kUndefined, potential = kUndefined, facility_location = kUndefined,
         nearest_pair = kUndefined, duplicates = kUndefined, class_balance = kUndefined, mean_entropy = kUndefined,
         mean_margin = kUndefined;
};

struct Metric {
  const char* name;
  double Metrics::*value;
};

// In the order of the table.
constexpr Metric kMetrics[] = {
    {"radius", &Metrics::radius},
    {"mean_distance", &Metrics::mean_distance},
    {"potential", &Metrics::potential},
    {"facility_location", &Metrics::facility_location},
    {"nearest_pair", &Metrics::nearest_pair},
    {"duplicates", &Metrics::duplicates},
    {"class_balance", &Metrics::class_balance},
    {"mean_entropy", &Metrics::mean_entropy},
    {"mean_margin", &Metrics::mean_margin},
};

// Classes and scores of the own rows, from the files.
struct Predictions {
  bool has_classes = false, has_scores = false;  // the same on every rank, whatever it owns
  std::vector<std::int64_t> classes;             // reference classes, else the predicted ones; empty: neither
  std::vector<double> entropy, margin;
  std::int64_t distinct_classes = 0;  // in the whole pool
};

// Collective. How many different values all ranks have together.
std::int64_t count_distinct(const Comm& comm, const std::vector<std::int64_t>& values) {
  const std::set<std::int64_t> mine(values.begin(), values.end());
  const std::vector<std::int64_t> all = comm.gather(std::span<const std::int64_t>(Rows(mine.begin(), mine.end())));
  return static_cast<std::int64_t>(std::set(all.begin(), all.end()).size());
}

Predictions read_predictions(const Comm& comm, const OpenedPool& opened) {
  const PoolShape& shape = opened.files.shape();
  const std::int64_t passes = std::max<std::int64_t>(shape.passes, 1), width = passes * shape.classes;
  Predictions out;
  out.has_classes = shape.reference_classes || shape.classes > 0;
  out.has_scores = shape.classes > 0;
  std::vector<double> block;
  std::vector<float> scores;
  ExactScores exact;
  const auto read_block = [&](std::int64_t first, std::int64_t count) {
    if (shape.reference_classes) {
      const std::vector<std::int64_t> classes = opened.files.read_integers(Dataset::classes, first, count);
      out.classes.insert(out.classes.end(), classes.begin(), classes.end());
    }
    if (!out.has_scores) return;
    block.resize(static_cast<std::size_t>(count * width));
    opened.files.read_probabilities(first, count, block);
    scores.resize(static_cast<std::size_t>(count));
    for (auto& [kind, column] : {std::pair{ScoreKind::entropy, &out.entropy}, {ScoreKind::margin, &out.margin}}) {
      exact(kind, block.data(), count, passes, shape.classes, scores.data());
      column->insert(column->end(), scores.begin(), scores.end());
    }
    if (shape.reference_classes) return;
    for (std::int64_t i = 0; i < count; ++i)
      out.classes.push_back(top_two(block.data() + i * width, passes, shape.classes).best);
  };
  comm.agree([&] { for_blocks(opened.own, width * static_cast<std::int64_t>(sizeof(double)), read_block); });
  out.distinct_classes = count_distinct(comm, out.classes);
  return out;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? kUndefined : sum / static_cast<double>(values.size());
}

// A pool, and those of its rows that sums go over: the uncovered ones, or a sample of them.
struct Ground {
  Pool pool, rest;
};

// The embeddings as given (or asked for), and of length 1.
struct Grounds {
  Ground given, unit;
};

// One batch after another against one pool.
class Judge {
 public:
  Judge(const Grounds& grounds, const Predictions& predictions)
      : given_(grounds.given), unit_(grounds.unit), predictions_(predictions) {}

  Metrics operator()(const Rows& batch) const {
    Metrics metrics;
    if (given_.pool.dim() > 0) {
      measure_distances(batch, metrics);
      metrics.facility_location = mean_similarity(batch);
      measure_pairs(batch, metrics);
    }
    if (predictions_.has_classes) metrics.class_balance = class_balance(batch);
    if (predictions_.has_scores) {
      metrics.mean_entropy = mean(given_.pool.fetch_column(batch, predictions_.entropy));
      metrics.mean_margin = mean(given_.pool.fetch_column(batch, predictions_.margin));
    }
    return metrics;
  }

 private:
  static double mean_over(const Pool& rest, const std::vector<double>& values) {
    return sum_over(rest.comm(), values, rest.rows()) / static_cast<double>(rest.rows());
  }

  void measure_distances(const Rows& batch, Metrics& metrics) const {
    const Pool& rest = given_.rest;
    if (rest.rows() == 0) return;
    std::vector<double> left = distances2_to(rest, given_.pool, batch, rest.columns.before);
    metrics.radius = std::sqrt(largest_over(rest.comm(), left));
    metrics.potential = mean_over(rest, left);
    for (double& value : left) value = std::sqrt(value);
    metrics.mean_distance = mean_over(rest, left);
  }

  double mean_similarity(const Rows& batch) const {
    const Pool& rest = unit_.rest;
    if (rest.rows() == 0) return kUndefined;
    const std::vector<float> best = similarities_to(rest, unit_.pool, batch, rest.columns.before);
    return mean_over(rest, {best.begin(), best.end()});
  }

  // Distances inside the batch: the smallest, and picks that repeat a covered row or an earlier pick.
  void measure_pairs(const Rows& batch, Metrics& metrics) const {
    const Pool& pool = given_.pool;
    std::vector<double> before(batch.size(), HUGE_VAL);
    if (pool.columns.before) before = pool.fetch_column(batch, *pool.columns.before);
    double nearest = HUGE_VAL;
    std::int64_t duplicates = 0;
    for_earlier_distances2(pool, batch, [&](std::size_t i, std::span<const float> earlier) {
      const double own_nearest = earlier.empty() ? HUGE_VAL : *std::min_element(earlier.begin(), earlier.end());
      nearest = std::min(nearest, own_nearest);
      duplicates += own_nearest == 0 || before[i] == 0;
    });
    if (batch.size() > 1) metrics.nearest_pair = std::sqrt(nearest);
    metrics.duplicates = static_cast<double>(duplicates);
  }

  // Entropy of the picked classes in units of the largest that the pool's classes allow.
  double class_balance(const Rows& batch) const {
    std::vector<std::int64_t> classes = given_.pool.fetch_column(batch, predictions_.classes);
    if (predictions_.distinct_classes < 2 || classes.empty()) return kUndefined;
    std::sort(classes.begin(), classes.end());
    double entropy = 0;
    for (auto first = classes.begin(); first != classes.end();) {
      const auto last = std::upper_bound(first, classes.end(), *first);
      entropy -= x_log_x(static_cast<double>(last - first) / static_cast<double>(classes.size()));
      first = last;
    }
    return std::max(0.0, entropy) / log_of(static_cast<double>(predictions_.distinct_classes));
  }

  const Ground &given_, &unit_;
  const Predictions& predictions_;
};

// The rows that nobody covered, or a sample of them.
Pool uncovered(const Pool& pool, const EvaluationRequest& request) {
  const auto is_open = [&](std::int64_t own) { return !is_covered(pool.columns.role[static_cast<std::size_t>(own)]); };
  std::vector<std::uint8_t> keep(static_cast<std::size_t>(pool.own()));
  if (request.sample) {
    const std::vector<std::int64_t> rows =
        draw_rows(pool, request.seed, Purpose("evaluation"), *request.sample, is_open);
    pool.for_own(rows, [&](std::int64_t own, std::size_t) { keep[static_cast<std::size_t>(own)] = 1; });
  } else {
    for (std::int64_t i = 0; i < pool.own(); ++i) keep[static_cast<std::size_t>(i)] = is_open(i);
  }
  return pool.where(keep);
}

Pool unit_copy(const Pool& pool) {
  Pool unit = pool.where(std::vector<std::uint8_t>(static_cast<std::size_t>(pool.own()), 1));
  unit.make_unit();
  return unit;
}

// Collective. What covered rows, in the pool and outside of it, leave of both geometries.
void cover(Pool& given, Pool& unit, const std::optional<Pool>& outside) {
  Prior prior, unit_prior;
  std::optional<Pool> unit_outside;
  if (outside) {
    unit_outside.emplace(unit_copy(*outside));
    prior.outside = &*outside;
    unit_prior.outside = &*unit_outside;
  }
  cover_by_distance(given, prior);
  cover_by_similarity(unit, unit_prior);
}

Grounds load_grounds(const EvaluationRequest& request, const Comm& comm, Backend& backend, const OpenedPool& opened,
                     const std::vector<Rows>& batches, const Console& console) {
  Wanted wanted;
  wanted.embeddings = opened.files.shape().dim > 0;
  wanted.unit_rows = request.normalize == Normalize::l2;
  wanted.copies = 4;
  wanted.threads = std::max(1, request.pool.threads);
  const PoolShape& shape = opened.files.shape();
  for (const Rows& batch : batches)  // whose pairs are measured
    wanted.state.beside = std::max(wanted.state.beside, std::ssize(batch) * row_format(shape, wanted).row_bytes());
  std::optional<OpenedPool> labelled;
  if (wanted.embeddings && !request.pool.labelled_pool.empty())
    labelled.emplace(open_labelled_pool(comm, request.pool, {.embeddings = true}, shape));
  MemoryNeed need = memory_need(shape, opened.own.own(), wanted);
  if (labelled) need = with_labelled_pool(need, labelled->files.shape(), labelled->own.own(), wanted);
  const Memory memory = memory_for(comm, need, request.pool);
  Pool given = load(comm, backend, opened, wanted, memory, comm.is_root() ? &console : nullptr).pool;
  Pool unit = unit_copy(given);
  std::optional<Pool> outside;
  if (labelled) outside.emplace(load(comm, backend, *labelled, wanted, memory, nullptr).pool);
  if (wanted.embeddings) cover(given, unit, outside);
  Pool rest = uncovered(given, request), unit_rest = uncovered(unit, request);
  return {{std::move(given), std::move(rest)}, {std::move(unit), std::move(unit_rest)}};
}

// Collective. The global rows of one batch file or id list; it is read on rank 0.
Rows read_batch(const std::string& path, const Comm& comm, const OpenedPool& opened, bool strict,
                const Console& console) {
  const auto mine = comm.agree([&] { return comm.is_root() ? read_id_list(path) : std::vector<std::string>(); });
  const std::vector<std::string> ids = comm.gather(std::span<const std::string>(mine));
  Rows rows = rows_of_ids(comm, opened.files, opened.own, ids);
  const auto unknown = std::count(rows.begin(), rows.end(), -1);
  std::erase(rows, -1);
  comm.agree([&] {
    if (unknown > 0 && strict)
      throw Error(Exit::bad_data, fmt::format("{}: {} of {} ids are not in the pool", path, unknown, ids.size()));
    if (rows.empty()) throw Error(Exit::bad_data, fmt::format("{}: expected ids of the pool, found none", path));
  });
  if (unknown > 0 && comm.is_root())
    console.warn(fmt::format("{}: {} of {} ids are not in the pool", path, unknown, ids.size()));
  return rows;
}

std::vector<double> values_of(const Metric& metric, const std::vector<Metrics>& batches) {
  std::vector<double> values;
  for (const Metrics& batch : batches) values.push_back(batch.*metric.value);
  return values;
}

struct Spread {
  double mean, deviation;
};

Spread spread_of(const std::vector<double>& values) {
  if (values.empty()) return {kUndefined, kUndefined};
  const double centre = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - centre) * (value - centre);
  return {centre, std::sqrt(squares / static_cast<double>(values.size()))};
}

// JSON has no NaN: undefined is null.
nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

}  // namespace

Evaluation evaluate(const EvaluationRequest& request, const Comm& comm, Backend& backend, const Console& console) {
  const OpenedPool opened = open_pool(comm, request.pool, {}, console);
  std::vector<Rows> batches;
  for (const std::string& path : request.picked)
    batches.push_back(read_batch(path, comm, opened, request.pool.strict_ids, console));
  const Grounds grounds = load_grounds(request, comm, backend, opened, batches, console);
  const Predictions predictions = read_predictions(comm, opened);
  const Judge judge(grounds, predictions);
  std::vector<Metrics> picked, random;
  for (const Rows& batch : batches) picked.push_back(judge(batch));
  const auto size = static_cast<std::int64_t>(batches.front().size());
  for (int r = 1; r <= request.random; ++r)
    random.push_back(judge(draw_batch(grounds.given.pool, request.seed + static_cast<std::uint64_t>(r), size)));

  Evaluation result;
  result.files = request.picked;
  for (const Metric& metric : kMetrics) {
    const Spread spread = spread_of(values_of(metric, random));
    result.metrics.push_back(metric.name);
    result.values.push_back(values_of(metric, picked));
    result.random_mean.push_back(spread.mean);
    result.random_sd.push_back(spread.deviation);
  }
  return result;
}

std::string Evaluation::to_json() const {
  nlohmann::ordered_json json;
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    for (std::size_t f = 0; f < files.size(); ++f) json[metrics[m]][files[f]] = number(values[m][f]);
    json[metrics[m]]["random_mean"] = number(random_mean[m]);
    json[metrics[m]]["random_sd"] = number(random_sd[m]);
  }
  return json.dump(2) + "\n";
}

std::string Evaluation::to_csv() const {
  std::string csv = "metric";
  for (const std::string& file : files) csv += fmt::format(",{}", csv_field(file));
  csv += ",random_mean,random_sd\n";
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    csv += metrics[m];
    for (const double value : values[m]) csv += "," + number_text(value);
    csv += fmt::format(",{},{}\n", number_text(random_mean[m]), number_text(random_sd[m]));
  }
  return csv;
}

std::string Evaluation::to_table() const {
  std::size_t width = 14;
  for (const std::string& file : files) width = std::max(width, file.size() + 2);
  std::string table = fmt::format("{:<18}", "metric");
  for (const std::string& file : files) table += fmt::format("{:>{}}", file, width);
  table += fmt::format("{:>14}{:>14}\n", "random_mean", "random_sd");
  for (std::size_t m = 0; m < metrics.size(); ++m) {
    table += fmt::format("{:<18}", metrics[m]);
    for (const double value : values[m]) table += fmt::format("{:>{}}", number_text(value, 6), width);
    table += fmt::format("{:>14}{:>14}\n", number_text(random_mean[m], 6), number_text(random_sd[m], 6));
  }
  return table;
}

}  // namespace seine
