// Every rank reads its own rows in blocks and keeps what it finds by tile, so that the answer is the same for every
// number of ranks.
#include "seine/inspection.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <compare>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>

#include "host_rows.hpp"
#include "reading/duplicate_ids.hpp"
#include "reading/pool_header.hpp"
#include "seine/error.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"
#include "seine/pool_paths.hpp"
#include "seine/rules.hpp"

namespace seine {
namespace {

constexpr std::size_t kMostFaults = 20;
struct Place {
  std::int64_t row;
  Dataset dataset;
  auto operator<=>(const Place&) const = default;
};

struct Fault {
  Place place;
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

// Reads rows [first, first + count) with `read`, halving a range that has a fault until the faulty rows stand alone.
// The same text again is a fault of the dataset, not of a row, and is not followed any further.
template <class Read>
void read_around_faults(std::vector<Fault>& faults, Dataset dataset, std::int64_t first, std::int64_t count,
                        const Read& read) {
  std::vector<Fault> known;
  std::copy_if(faults.begin(), faults.end(), std::back_inserter(known),
               [&](const Fault& fault) { return fault.place.dataset == dataset; });
  if (count == 0 || known.size() >= kMostFaults) return;
  try {
    read(first, count);
    return;
  } catch (const Error& error) {
    if (error.code() != Exit::bad_data) throw;
    if (!known.empty() && known.back().text == error.what()) return;
    if (count == 1) {
      faults.push_back({{first, dataset}, error.what()});
      return;
    }
  }
  read_around_faults(faults, dataset, first, count / 2, read);
  read_around_faults(faults, dataset, first + count / 2, count - count / 2, read);
}

void add_to_histogram(std::vector<std::int64_t>& histogram, std::int64_t label) {
  constexpr std::int64_t most = 1 << 20;  // a stray label must not take all memory
  if (label < 0 || label >= most) return;
  if (label >= static_cast<std::int64_t>(histogram.size())) histogram.resize(static_cast<std::size_t>(label) + 1);
  ++histogram[static_cast<std::size_t>(label)];
}

void add_norm(Findings& findings, double norm) {
  findings.smallest = std::min(findings.smallest, norm);
  findings.largest = std::max(findings.largest, norm);
  findings.zeros += norm == 0;
  ++findings.norms;
  findings.tile_norms.back() += norm;
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
  std::vector<double> wide;
  for (std::int64_t i = 0; i < count; ++i) {
    if ((first + i) % Ownership::kTileRows == 0) findings.tile_norms.push_back(0);
    if (usable[static_cast<std::size_t>(i)])
      add_norm(findings, std::sqrt(squared_norm(rows.data() + i * dim, dim, wide)));
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

void inspect_columns(const PoolFiles& files, std::int64_t first, std::int64_t count, Findings& findings) {
  const PoolShape& shape = files.shape();
  const auto inspect = [&](Dataset dataset, const auto& read) {
    read_around_faults(findings.faults, dataset, first, count, read);
  };
  const auto inspect_integers = [&](Dataset dataset, const auto& visit) {
    inspect(dataset, [&](std::int64_t from, std::int64_t n) {
      for (const std::int64_t value : files.read_integers(dataset, from, n)) visit(value);
    });
  };
  const auto nothing = [](std::int64_t) {};
  if (shape.ids && shape.text_ids)
    inspect(Dataset::ids, [&](std::int64_t from, std::int64_t n) { files.read_text_ids(from, n); });
  if (shape.ids && !shape.text_ids) inspect_integers(Dataset::ids, nothing);
  if (shape.labels) inspect_integers(Dataset::labels, [&](std::int64_t label) { findings.labelled += label >= 0; });
  if (shape.reference_classes)
    inspect_integers(Dataset::classes, [&](std::int64_t label) { add_to_histogram(findings.histogram, label); });
  if (shape.costs) inspect(Dataset::costs, [&](std::int64_t from, std::int64_t n) { files.read_costs(from, n); });
  if (shape.groups) inspect_integers(Dataset::groups, nothing);
}

Findings read_everything(const PoolFiles& files, const Ownership& own, bool reports, const Console& console) {
  const PoolShape& shape = files.shape();
  Findings findings;
  if (shape.classes > 0 && !shape.reference_classes) findings.histogram.resize(static_cast<std::size_t>(shape.classes));
  const std::int64_t row_bytes = shape.dim * 4 + shape.classes * std::max<std::int64_t>(shape.passes, 1) * 8;
  std::int64_t done = 0;
  for_blocks(own, row_bytes, [&](std::int64_t first, std::int64_t count) {
    inspect_columns(files, first, count, findings);
    if (shape.dim > 0) inspect_embeddings(files, first, count, findings);
    if (shape.classes > 0) inspect_probabilities(files, first, count, findings);
    done += count;
    if (reports) console.progress("read", done, own.own());
  });
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
      at += static_cast<std::size_t>((run.count + Ownership::kTileRows - 1) / Ownership::kTileRows);
  }
  double sum = 0;
  for (std::int64_t row = 0; row < rows; row += Ownership::kTileRows)
    sum += all[next[static_cast<std::size_t>(own.owner(row))]++];
  return norms > 0 ? sum / static_cast<double>(norms) : 0;
}

// Collective. Everybody's faults, on every rank.
std::vector<Fault> gather_faults(const Comm& comm, const std::vector<Fault>& mine) {
  std::vector<Place> places;
  std::vector<std::string> texts;
  for (const Fault& fault : mine) {
    places.push_back(fault.place);
    texts.push_back(fault.text);
  }
  places = comm.gather(std::span<const Place>(places));
  texts = comm.gather(std::span<const std::string>(texts));
  std::vector<Fault> all;
  for (std::size_t i = 0; i < places.size(); ++i) all.push_back({places[i], std::move(texts[i])});
  return all;
}

// Collective. The first faults of all ranks in order of the rows, on every rank.
std::vector<std::string> first_faults(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                      std::vector<Fault> mine) {
  const auto in_order = [](const Fault& a, const Fault& b) { return a.place < b.place; };
  const std::int64_t unreadable_ids = comm.sum(static_cast<std::int64_t>(
      std::count_if(mine.begin(), mine.end(), [](const Fault& fault) { return fault.place.dataset == Dataset::ids; })));
  std::sort(mine.begin(), mine.end(), in_order);
  if (mine.size() > kMostFaults) mine.resize(kMostFaults);
  std::vector<Fault> all = gather_faults(comm, mine);
  if (unreadable_ids == 0)
    for (const DuplicateId& duplicate : duplicate_ids(comm, files, own, kMostFaults))
      all.push_back({{duplicate.row, Dataset::ids}, duplicate.describe(files)});
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
  inspection.faults = first_faults(comm, files, own, std::move(findings.faults));
}

// Collective. A pool whose headers are at fault is described by these faults alone.
std::optional<PoolFiles> open_files(const Comm& comm, const std::vector<std::string>& paths, const DatasetNames& names,
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
  inspection.files = pool_paths(comm, request.pool);
  const std::optional<PoolFiles> files = open_files(comm, inspection.files, request.names, inspection.faults);
  if (!files) return inspection;
  const PoolShape& shape = files->shape();
  inspection.rows = shape.rows;
  inspection.dim = shape.dim;
  inspection.classes = shape.classes;
  inspection.passes = shape.passes;
  inspection.ids = !shape.ids ? "row number" : shape.text_ids ? "text" : "integer";
  describe_types(shape, inspection);
  const Ownership own(shape.rows, comm);
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
