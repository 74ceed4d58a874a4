#include "seine/evaluation.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "backend/row_kernel.hpp"
#include "duplicate_ids.hpp"
#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/id_list.hpp"
#include "seine/ids.hpp"
#include "seine/loader.hpp"
#include "seine/ownership.hpp"
#include "seine/pick.hpp"
#include "seine/pool_paths.hpp"
#include "seine/roles.hpp"

namespace seine {
namespace {

constexpr double kUndefined = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kBlockRows = 4096;

const char* const kMetrics[] = {"radius",     "mean_distance", "potential",    "facility_location", "nearest_pair",
                                "duplicates", "class_balance", "mean_entropy", "mean_margin"};

using Rows = std::span<const std::int64_t>;

// Classes and scores of the own rows, from the files.
struct Predictions {
  bool has_classes = false, has_scores = false;  // the same on every rank, whatever it owns
  std::vector<std::int64_t> classes;             // reference classes, else the predicted ones; empty: neither
  std::vector<double> entropy, margin;
  std::int64_t distinct_classes = 0;  // in the whole pool
};

Predictions read_predictions(const Comm& comm, const PoolFiles& files, const Ownership& own) {
  const PoolShape& shape = files.shape();
  Predictions out;
  out.has_classes = shape.reference_classes || shape.classes > 0;
  out.has_scores = shape.classes > 0;
  comm.agree([&] {
    const std::int64_t passes = std::max<std::int64_t>(shape.passes, 1);
    std::vector<double> block;
    for (const Ownership::Run& run : own.runs()) {
      for (std::int64_t first = run.first; first < run.first + run.count; first += kBlockRows) {
        const std::int64_t count = std::min(kBlockRows, run.first + run.count - first);
        if (shape.reference_classes) {
          const std::vector<std::int64_t> classes = files.read_integers(Dataset::classes, first, count);
          out.classes.insert(out.classes.end(), classes.begin(), classes.end());
        }
        if (shape.classes == 0) continue;
        block.resize(static_cast<std::size_t>(count * passes * shape.classes));
        files.read_probabilities(first, count, block);
        for (std::int64_t i = 0; i < count; ++i) {
          const double* p = block.data() + i * passes * shape.classes;
          out.entropy.push_back(static_cast<float>(Entropy{}(p, passes, shape.classes)));
          out.margin.push_back(static_cast<float>(Margin{}(p, passes, shape.classes)));
          if (!shape.reference_classes) out.classes.push_back(top_two(p, passes, shape.classes).best);
        }
      }
    }
  });
  std::set<std::int64_t> distinct(out.classes.begin(), out.classes.end());
  const std::vector<std::int64_t> mine(distinct.begin(), distinct.end());
  for (const std::int64_t value : comm.gather(std::span<const std::int64_t>(mine))) distinct.insert(value);
  out.distinct_classes = static_cast<std::int64_t>(distinct.size());
  return out;
}

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return values.empty() ? kUndefined : sum / static_cast<double>(values.size());
}

// One batch after another against one pool.
class Judge {
 public:
  Judge(Pool& pool, const Predictions& predictions, bool embeddings, const Pool& rest, const Pool& unit,
        const Pool& unit_rest)
      : pool_(pool),
        predictions_(predictions),
        embeddings_(embeddings),
        rest_(rest),
        unit_(unit),
        unit_rest_(unit_rest) {}

  // In the order of kMetrics.
  std::vector<double> operator()(Rows batch) const {
    std::vector<double> values(std::size(kMetrics), kUndefined);
    if (embeddings_) {
      distances(batch, values);
      values[3] = mean_similarity(batch);
      pairs(batch, values);
    }
    if (predictions_.has_classes) values[6] = class_balance(batch);
    if (predictions_.has_scores) {
      values[7] = mean(pool_.fetch_column(batch, predictions_.entropy));
      values[8] = mean(pool_.fetch_column(batch, predictions_.margin));
    }
    return values;
  }

 private:
  void distances(Rows batch, std::vector<double>& values) const {
    std::vector<double> left = distances2_to(rest_, pool_, batch, rest_.columns.before);
    const double rows = static_cast<double>(rest_.rows());
    if (rest_.rows() == 0) return;
    values[0] = std::sqrt(largest_over(rest_.comm(), left));
    values[2] = sum_over(rest_.comm(), left, rest_.rows()) / rows;
    for (double& value : left) value = std::sqrt(value);
    values[1] = sum_over(rest_.comm(), left, rest_.rows()) / rows;
  }

  double mean_similarity(Rows batch) const {
    const std::vector<float> best = similarities_to(unit_rest_, unit_, batch, unit_rest_.columns.before);
    if (unit_rest_.rows() == 0) return kUndefined;
    return sum_over(unit_rest_.comm(), std::vector<double>(best.begin(), best.end()), unit_rest_.rows()) /
           static_cast<double>(unit_rest_.rows());
  }

  // Distances inside the batch: the smallest, and picks that repeat a covered row or an earlier pick.
  void pairs(Rows batch, std::vector<double>& values) const {
    const Packed packed = pool_.fetch(batch);
    const std::int64_t dim = pool_.dim();
    std::vector<float> all;
    for (std::int64_t i = 0; i < packed.rows(); ++i) {
      const std::vector<float> row = packed.row(i);
      all.insert(all.end(), row.begin(), row.end());
    }
    std::vector<double> before(batch.size(), HUGE_VAL);
    if (pool_.columns.before) before = pool_.fetch_column(batch, *pool_.columns.before);
    std::vector<float> earlier(batch.size());
    double nearest = HUGE_VAL;
    std::int64_t duplicates = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const auto count = static_cast<std::int64_t>(i);
      const float* row = all.data() + count * dim;
      row_kernels().distances2(&row, 1, all.data(), count, dim, earlier.data());
      double own_nearest = HUGE_VAL;
      for (std::size_t j = 0; j < i; ++j) own_nearest = std::min<double>(own_nearest, earlier[j]);
      nearest = std::min(nearest, own_nearest);
      duplicates += own_nearest == 0 || before[i] == 0;
    }
    values[4] = batch.size() > 1 ? std::sqrt(nearest) : kUndefined;
    values[5] = static_cast<double>(duplicates);
  }

  // Entropy of the picked classes in units of the largest that the pool's classes allow.
  double class_balance(Rows batch) const {
    std::vector<std::int64_t> classes = pool_.fetch_column(batch, predictions_.classes);
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

  const Pool& pool_;
  const Predictions& predictions_;
  const bool embeddings_;
  const Pool &rest_, &unit_, &unit_rest_;
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

// The global rows of one batch file or id list.
std::vector<std::int64_t> read_batch(const std::string& path, const Comm& comm, const PoolFiles& files,
                                     const Ownership& own, bool strict, const Console& console) {
  const std::vector<std::string> ids = comm.agree([&] { return read_id_list(path); });
  std::vector<std::int64_t> rows = rows_of_ids(comm, files, own, ids);
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

struct Spread {
  double mean, deviation;
};

Spread spread_of(const std::vector<double>& values) {
  const double centre = mean(values);
  double squares = 0;
  for (const double value : values) squares += (value - centre) * (value - centre);
  return {centre, std::sqrt(squares / static_cast<double>(values.size()))};
}

// JSON has no NaN: undefined is null.
nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nlohmann::ordered_json();
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

}  // namespace

Evaluation evaluate(const EvaluationRequest& request, const Comm& comm, Backend& backend, const Console& console) {
  const std::vector<std::string> paths = comm.agree([&] { return expand_pool_paths(request.pool.pool); });
  const PoolFiles files(comm, paths, request.pool.names, {});
  const Ownership own(files.shape().rows, comm.rank(), comm.size());
  check_ids_unique(comm, files, own);
  const std::vector<Role> roles = read_roles(comm, files, own, request.pool, console.warn);
  std::vector<std::vector<std::int64_t>> batches;
  for (const std::string& path : request.picked)
    batches.push_back(read_batch(path, comm, files, own, request.pool.strict_ids, console));

  Wanted wanted;
  wanted.embeddings = files.shape().dim > 0;
  wanted.unit_rows = request.normalize == Normalize::l2;
  wanted.copies = 4;
  Pool pool =
      load(comm, backend, {files, own, roles}, wanted, request.pool.memory_gib, comm.is_root() ? &console : nullptr)
          .pool;
  std::optional<PoolFiles> outside_files;
  std::optional<Loaded> outside;
  std::optional<Pool> unit_outside;
  if (!request.pool.labelled_pool.empty() && wanted.embeddings) {
    Needs needs;
    needs.embeddings = true;
    outside_files.emplace(comm, comm.agree([&] { return expand_pool_paths(request.pool.labelled_pool); }),
                          request.pool.names, needs);
    const Ownership outside_own(outside_files->shape().rows, comm.rank(), comm.size());
    comm.agree([&] {
      if (outside_files->shape().dim != files.shape().dim)
        throw Error(Exit::bad_data,
                    fmt::format("{}: expected embeddings of {} columns as in the pool, found {}",
                                outside_files->paths().front(), files.shape().dim, outside_files->shape().dim));
    });
    const std::vector<Role> labelled(static_cast<std::size_t>(outside_own.own()), Role::labelled);
    outside.emplace(
        load(comm, backend, {*outside_files, outside_own, labelled}, wanted, request.pool.memory_gib, nullptr));
    unit_outside.emplace(unit_copy(outside->pool));
  }
  Pool unit = unit_copy(pool);
  if (wanted.embeddings) {
    Prior prior, unit_prior;
    if (outside) prior.outside = &outside->pool;
    if (unit_outside) unit_prior.outside = &*unit_outside;
    cover_by_distance(pool, prior);
    cover_by_similarity(unit, unit_prior);
  }
  const Pool rest = uncovered(pool, request), unit_rest = uncovered(unit, request);
  const Predictions predictions = read_predictions(comm, files, own);
  const Judge judge(pool, predictions, wanted.embeddings, rest, unit, unit_rest);

  Evaluation result;
  result.files = request.picked;
  result.metrics.assign(std::begin(kMetrics), std::end(kMetrics));
  result.values.resize(result.metrics.size());
  for (const auto& batch : batches) {
    const std::vector<double> values = judge(batch);
    for (std::size_t m = 0; m < values.size(); ++m) result.values[m].push_back(values[m]);
  }
  std::vector<std::vector<double>> random(result.metrics.size());
  for (int r = 1; r <= request.random; ++r) {
    const std::vector<std::int64_t> rows =
        draw_rows(pool, request.seed + static_cast<std::uint64_t>(r), Purpose("random"),
                  static_cast<std::int64_t>(batches.front().size()),
                  [&](std::int64_t i) { return pool.columns.role[static_cast<std::size_t>(i)] == Role::candidate; });
    const std::vector<double> values = judge(rows);
    for (std::size_t m = 0; m < values.size(); ++m) random[m].push_back(values[m]);
  }
  for (const auto& values : random) {
    const Spread spread = spread_of(values);
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
    for (const double value : values[m]) csv += fmt::format(",{}", value);
    csv += fmt::format(",{},{}\n", random_mean[m], random_sd[m]);
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
    for (const double value : values[m]) table += fmt::format("{:>{}.6g}", value, width);
    table += fmt::format("{:>14.6g}{:>14.6g}\n", random_mean[m], random_sd[m]);
  }
  return table;
}

}  // namespace seine
