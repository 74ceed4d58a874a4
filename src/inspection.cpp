// Every rank reads its own rows in blocks and keeps what it finds by tile, so that the answer is the same for every
// number of ranks.
#include "seine/inspection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <tuple>

#include "duplicate_ids.hpp"
#include "pool_header.hpp"
#include "seine/error.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"
#include "seine/pool_paths.hpp"
#include "seine/rules.hpp"

namespace seine {
namespace {

constexpr std::size_t kMostFaults = 20;
constexpr std::int64_t kTile = 256;
constexpr std::size_t kBlockBytes = std::size_t{32} << 20;

struct Fault {
  std::int64_t row;
  int dataset;
  std::string text;
};

// What one rank found in its own rows.
struct Findings {
  std::vector<Fault> faults;
  std::vector<double> tile_norms;  // sum of the norms of each own tile, in order of the rows
  double smallest = std::numeric_limits<double>::infinity(), largest = 0;
  std::int64_t zeros = 0, norms = 0, labelled = 0;
  std::vector<std::int64_t> histogram;
};

std::vector<std::string> expand_on_root(const Comm& comm, const std::vector<std::string>& given) {
  std::string joined;
  comm.agree([&] {
    if (comm.is_root())
      for (const std::string& path : expand_pool_paths(given)) joined += path + '\0';
  });
  comm.broadcast(joined);
  std::vector<std::string> paths;
  for (std::size_t first = 0; first < joined.size(); first = joined.find('\0', first) + 1)
    paths.emplace_back(joined.c_str() + first);
  return paths;
}

// Reads rows [first, first + count) with `read`, halving a range that has a fault until the faulty rows stand alone.
// The same text again is a fault of the dataset, not of a row, and is not followed any further.
template <class Read>
void read_around_faults(std::vector<Fault>& faults, Dataset dataset, std::int64_t first, std::int64_t count,
                        const Read& read) {
  std::vector<Fault> known;
  std::copy_if(faults.begin(), faults.end(), std::back_inserter(known),
               [&](const Fault& fault) { return fault.dataset == static_cast<int>(dataset); });
  if (count == 0 || known.size() >= kMostFaults) return;
  try {
    read(first, count);
    return;
  } catch (const Error& error) {
    if (error.code() != Exit::bad_data) throw;
    if (!known.empty() && known.back().text == error.what()) return;
    if (count == 1) {
      faults.push_back({first, static_cast<int>(dataset), error.what()});
      return;
    }
  }
  read_around_faults(faults, dataset, first, count / 2, read);
  read_around_faults(faults, dataset, first + count / 2, count - count / 2, read);
}

std::int64_t rows_per_block(std::int64_t row_bytes) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(kBlockBytes) / (kTile * row_bytes)) * kTile;
}

void add_to_histogram(std::vector<std::int64_t>& histogram, std::int64_t label) {
  constexpr std::int64_t most = 1 << 20;  // a stray label must not take all memory
  if (label < 0 || label >= most) return;
  if (label >= static_cast<std::int64_t>(histogram.size())) histogram.resize(static_cast<std::size_t>(label) + 1);
  ++histogram[static_cast<std::size_t>(label)];
}

void add_norms(Findings& findings, const float* rows, std::int64_t count, std::int64_t dim, double& tile_sum) {
  for (std::int64_t i = 0; i < count; ++i) {
    const float* row = rows + i * dim;
    double lane[kLanes] = {};
    for (std::int64_t c = 0; c < dim; ++c)
      lane[c % kLanes] = fused(static_cast<double>(row[c]), static_cast<double>(row[c]), lane[c % kLanes]);
    const double norm = std::sqrt(fold_lanes(lane));
    findings.smallest = std::min(findings.smallest, norm);
    findings.largest = std::max(findings.largest, norm);
    findings.zeros += norm == 0;
    ++findings.norms;
    tile_sum += norm;
  }
}

void inspect_embeddings(const PoolFiles& files, std::int64_t first, std::int64_t count, Findings& findings) {
  const std::int64_t dim = files.shape().dim;
  std::vector<float> rows(static_cast<std::size_t>(count * dim));
  std::vector<std::uint8_t> usable(static_cast<std::size_t>(count));
  read_around_faults(findings.faults, Dataset::embeddings, first, count, [&](std::int64_t from, std::int64_t n) {
    const std::int64_t at = from - first;
    files.read_embeddings(
        from, n, std::span(rows).subspan(static_cast<std::size_t>(at * dim), static_cast<std::size_t>(n * dim)));
    std::fill_n(usable.begin() + at, n, std::uint8_t{1});
  });
  for (std::int64_t tile = 0; tile < count; tile += kTile) {
    double sum = 0;
    for (std::int64_t i = tile; i < std::min(tile + kTile, count); ++i)
      if (usable[static_cast<std::size_t>(i)]) add_norms(findings, rows.data() + i * dim, 1, dim, sum);
    findings.tile_norms.push_back(sum);
  }
}

void inspect_probabilities(const PoolFiles& files, std::int64_t first, std::int64_t count, Findings& findings) {
  const std::int64_t classes = files.shape().classes, passes = std::max<std::int64_t>(files.shape().passes, 1);
  std::vector<double> p(static_cast<std::size_t>(count * classes * passes));
  read_around_faults(findings.faults, Dataset::probabilities, first, count, [&](std::int64_t from, std::int64_t n) {
    const auto size = static_cast<std::size_t>(n * classes * passes);
    files.read_probabilities(from, n, std::span(p).first(size));
    for (std::int64_t i = 0; !files.shape().reference_classes && i < n; ++i)
      add_to_histogram(findings.histogram, top_two(p.data() + i * classes * passes, passes, classes).best);
  });
}

template <class Visit>
void inspect_integers(const PoolFiles& files, Dataset dataset, const Ownership::Run& run, Findings& findings,
                      Visit visit) {
  read_around_faults(findings.faults, dataset, run.first, run.count, [&](std::int64_t from, std::int64_t n) {
    for (std::int64_t value : files.read_integers(dataset, from, n)) visit(value);
  });
}

void inspect_columns(const PoolFiles& files, const Ownership::Run& run, Findings& findings) {
  const PoolShape& shape = files.shape();
  if (shape.ids && shape.text_ids)
    read_around_faults(findings.faults, Dataset::ids, run.first, run.count,
                       [&](std::int64_t from, std::int64_t n) { files.read_text_ids(from, n); });
  if (shape.ids && !shape.text_ids) inspect_integers(files, Dataset::ids, run, findings, [](std::int64_t) {});
  if (shape.labels)
    inspect_integers(files, Dataset::labels, run, findings,
                     [&](std::int64_t label) { findings.labelled += label >= 0; });
  if (shape.reference_classes)
    inspect_integers(files, Dataset::classes, run, findings,
                     [&](std::int64_t label) { add_to_histogram(findings.histogram, label); });
  if (shape.costs)
    read_around_faults(findings.faults, Dataset::costs, run.first, run.count,
                       [&](std::int64_t from, std::int64_t n) { files.read_costs(from, n); });
  if (shape.groups) inspect_integers(files, Dataset::groups, run, findings, [](std::int64_t) {});
}

// Calls work(first, count) over a run in blocks of whole tiles.
template <class Work>
void in_blocks(const Ownership::Run& run, std::int64_t block, const Work& work) {
  for (std::int64_t at = 0; at < run.count; at += block) work(run.first + at, std::min(block, run.count - at));
}

Findings read_everything(const PoolFiles& files, const Ownership& own, bool reports, const Console& console) {
  const PoolShape& shape = files.shape();
  Findings findings;
  if (shape.classes > 0 && !shape.reference_classes) findings.histogram.resize(static_cast<std::size_t>(shape.classes));
  const std::int64_t distribution = shape.classes * std::max<std::int64_t>(shape.passes, 1);
  std::int64_t done = 0;
  for (const Ownership::Run& run : own.runs()) {
    inspect_columns(files, run, findings);
    if (shape.dim > 0)
      in_blocks(run, rows_per_block(shape.dim * 4),
                [&](std::int64_t first, std::int64_t count) { inspect_embeddings(files, first, count, findings); });
    if (shape.classes > 0)
      in_blocks(run, rows_per_block(distribution * 8),
                [&](std::int64_t first, std::int64_t count) { inspect_probabilities(files, first, count, findings); });
    done += run.count;
    if (reports) console.progress("read", done, own.own());
  }
  return findings;
}

// Collective. The mean norm: sums of tiles, added in the order of the tiles.
double mean_norm(const Comm& comm, const Ownership& own, std::int64_t rows, const Findings& findings,
                 std::int64_t norms) {
  const std::vector<double> all = comm.gather(std::span<const double>(findings.tile_norms));
  std::vector<std::size_t> next;  // of each rank, into `all`
  std::vector<Ownership> ranks;
  std::size_t at = 0;
  for (int rank = 0; rank < comm.size(); ++rank) {
    ranks.emplace_back(rows, rank, comm.size());
    next.push_back(at);
    for (const Ownership::Run& run : ranks.back().runs())
      at += static_cast<std::size_t>((run.count + kTile - 1) / kTile);
  }
  double sum = 0;
  for (std::int64_t row = 0; row < rows; row += kTile) sum += all[next[static_cast<std::size_t>(own.owner(row))]++];
  return norms > 0 ? sum / static_cast<double>(norms) : 0;
}

std::string joined_faults(const std::vector<Fault>& faults) {
  std::string text;
  for (const Fault& fault : faults) text += fmt::format("{} {} {}", fault.row, fault.dataset, fault.text) + '\n';
  return text;
}

// Collective. The first faults of all ranks in order of the rows, on every rank.
std::vector<std::string> gather_faults(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                       std::vector<Fault> mine) {
  const auto in_order = [](const Fault& a, const Fault& b) {
    return std::tie(a.row, a.dataset) < std::tie(b.row, b.dataset);
  };
  const std::int64_t unreadable_ids = comm.sum(static_cast<std::int64_t>(std::count_if(
      mine.begin(), mine.end(), [](const Fault& fault) { return fault.dataset == static_cast<int>(Dataset::ids); })));
  std::sort(mine.begin(), mine.end(), in_order);
  if (mine.size() > kMostFaults) mine.resize(kMostFaults);
  std::vector<Fault> all;
  const std::string own_text = joined_faults(mine);
  const std::vector<char> text = comm.gather(std::span<const char>(own_text));
  for (auto line = text.begin(); line != text.end();) {
    const auto end = std::find(line, text.end(), '\n');
    const std::string one(line, end);
    const std::size_t first = one.find(' '), second = one.find(' ', first + 1);
    all.push_back({std::stoll(one), std::stoi(one.substr(first)), one.substr(second + 1)});
    line = end + 1;
  }
  if (unreadable_ids == 0)
    for (const DuplicateId& duplicate : duplicate_ids(comm, files, own, kMostFaults))
      all.push_back({duplicate.row, static_cast<int>(Dataset::ids), duplicate.describe(files)});
  std::sort(all.begin(), all.end(), in_order);
  std::vector<std::string> texts;
  for (const Fault& fault : all)
    if (std::find(texts.begin(), texts.end(), fault.text) == texts.end()) texts.push_back(fault.text);
  return texts;
}

void describe_types(const PoolShape& shape, Inspection& inspection) {
  const auto add = [&](bool there, const std::string& name, const std::string& type) {
    if (there) inspection.types.emplace_back(name, type);
  };
  add(shape.dim > 0, "embeddings", shape.embeddings_type);
  add(shape.classes > 0, shape.logits ? "logits" : "probabilities", shape.probabilities_type);
  add(shape.ids, "ids", inspection.ids);
  add(shape.labels, "labels", "integer");
  add(shape.reference_classes, "classes", "integer");
  add(shape.costs, "costs", "float");
  add(shape.groups, "groups", "integer");
}

// Collective.
void combine(const Comm& comm, const PoolFiles& files, const Ownership& own, Findings& findings,
             Inspection& inspection) {
  inspection.labelled = comm.sum(findings.labelled);
  inspection.zero_norms = comm.sum(findings.zeros);
  const std::int64_t norms = comm.sum(findings.norms);
  if (norms > 0) {
    inspection.smallest_norm = -comm.max(-findings.smallest);
    inspection.largest_norm = comm.max(findings.largest);
    inspection.mean_norm = mean_norm(comm, own, files.shape().rows, findings, norms);
  }
  const double classes = comm.max(static_cast<double>(findings.histogram.size()));
  inspection.class_histogram = std::move(findings.histogram);
  inspection.class_histogram.resize(static_cast<std::size_t>(classes));
  comm.sum(std::span<std::int64_t>(inspection.class_histogram));
  inspection.faults = gather_faults(comm, files, own, std::move(findings.faults));
}

// Collective. A pool whose headers are at fault is described by these faults alone.
std::optional<PoolFiles> open_pool(const Comm& comm, const std::vector<std::string>& paths, const DatasetNames& names,
                                   std::vector<std::string>& faults) {
  try {
    return PoolFiles(comm, paths, names, Needs{});
  } catch (const Error& error) {
    if (error.code() != Exit::bad_data) throw;
    faults = header_faults(comm, paths, names);
    if (std::find(faults.begin(), faults.end(), error.what()) == faults.end()) faults.push_back(error.what());
    if (faults.size() > kMostFaults) faults.resize(kMostFaults);
    return {};
  }
}

}  // namespace

Inspection inspect(const PoolRequest& request, const Comm& comm, const Console& console) {
  Inspection inspection;
  inspection.files = expand_on_root(comm, request.pool);
  const std::optional<PoolFiles> files = open_pool(comm, inspection.files, request.names, inspection.faults);
  if (!files) return inspection;
  const PoolShape& shape = files->shape();
  inspection.rows = shape.rows;
  inspection.dim = shape.dim;
  inspection.classes = shape.classes;
  inspection.passes = shape.passes;
  inspection.ids = !shape.ids ? "row number" : shape.text_ids ? "text" : "integer";
  describe_types(shape, inspection);
  const Ownership own(shape.rows, comm.rank(), comm.size());
  Findings findings = comm.agree([&] { return read_everything(*files, own, comm.is_root(), console); });
  combine(comm, *files, own, findings, inspection);
  if (shape.dim == 0 && shape.classes == 0)
    inspection.faults.insert(
        inspection.faults.begin(),
        fmt::format("{}: expected a dataset \"{}\", \"{}\" or \"{}\", found none of them", inspection.files[0],
                    request.names.embeddings, request.names.probabilities, request.names.logits));
  if (inspection.faults.size() > kMostFaults) inspection.faults.resize(kMostFaults);
  return inspection;
}

std::string Inspection::to_json() const {
  nlohmann::ordered_json json;
  json["rows"] = rows;
  json["files"] = files;
  json["dim"] = dim;
  json["classes"] = classes;
  json["passes"] = passes;
  json["types"] = nlohmann::ordered_json::object();
  for (const auto& [dataset, type] : types) json["types"][dataset] = type;
  json["labelled"] = labelled;
  json["ids"] = ids;
  json["norms"] = {{"min", smallest_norm}, {"mean", mean_norm}, {"max", largest_norm}, {"zero", zero_norms}};
  json["class_histogram"] = class_histogram;
  json["faults"] = faults;
  return json.dump(2, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::string Inspection::to_text() const {
  std::string text = fmt::format("rows      {}\nfiles     {}\n", rows, files.size());
  for (const std::string& file : files) text += fmt::format("          {}\n", file);
  const auto or_none = [](std::int64_t extent) { return extent > 0 ? std::to_string(extent) : "none"; };
  text += fmt::format("D         {}\nC         {}\nT         {}\n", or_none(dim), or_none(classes), or_none(passes));
  for (const auto& [dataset, type] : types) text += fmt::format("type      {} {}\n", dataset, type);
  text += fmt::format("labelled  {}\nids       {}\n", labelled, ids);
  if (dim > 0)
    text += fmt::format("norms     min {:.6g}, mean {:.6g}, max {:.6g}, zero {}\n", smallest_norm, mean_norm,
                        largest_norm, zero_norms);
  for (std::size_t label = 0; label < class_histogram.size(); ++label)
    text += fmt::format("class     {} {}\n", label, class_histogram[label]);
  text += fmt::format("faults    {}\n", faults.size());
  return text;
}

}  // namespace seine
