#include "reading/pool_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "seine/error.hpp"

namespace seine {
namespace {

bool is_needed(Dataset dataset, const Needs& needs) {
  if (dataset == Dataset::embeddings) return needs.embeddings;
  if (dataset == Dataset::probabilities) return needs.probabilities || needs.passes;
  return dataset == Dataset::ids || dataset == Dataset::labels;  // every command reads them where they are
}

// Whether its rows count for the file: not those of large datasets that nobody reads.
bool counts_rows(Dataset dataset, const Needs& needs) {
  const bool large = dataset == Dataset::embeddings || dataset == Dataset::probabilities;
  return !large || is_needed(dataset, needs);
}

}  // namespace

std::int64_t band_rows(const Column& column) {
  const std::int64_t bytes = std::max<std::int64_t>(column.chunk_rows * column.row_bytes(), 1);
  return column.chunk_rows * std::max<std::int64_t>(static_cast<std::int64_t>(kPieceBytes) / bytes, 1);
}

Chunks chunks_of(const Column& column) {
  if (column.chunk_bytes == 0) return {};
  Chunks chunks;
  chunks.all = std::min(band_rows(column), column.rows) * column.row_bytes();
  chunks.fewest = std::min(chunks.all, std::max(column.chunk_bytes, static_cast<std::int64_t>(kSlabBytes)));
  // A filter turns a chunk into another one. Rows of whole width take the place of the first.
  chunks.inflating = column.narrow_chunks ? 2 * column.chunk_bytes : column.chunk_bytes;
  return chunks;
}

PoolLayout::PoolLayout(std::vector<std::string> paths, const DatasetNames& names, std::vector<FileHeader> headers,
                       const Needs& needs)
    : paths_(std::move(paths)), names_(names), headers_(std::move(headers)) {
  std::optional<std::size_t> reference;  // the first file with rows: others must look like it
  for (std::size_t file = 0; file < paths_.size(); ++file) {
    const FileHeader& header = headers_[file];
    if (!header.fault.empty()) throw Error(header.header.fault_code, header.fault);
    for (Dataset which : kEveryDataset)
      if (!header.fault_of(which).empty())
        fault(which, needs, Error(header.column(which).fault_code, header.fault_of(which)));
    settle_rows(file, needs);
    first_rows_.push_back(first_rows_.back() + headers_[file].rows);
    if (headers_[file].rows == 0) continue;
    settle_needs(file, needs);
    if (!reference) reference = file;
    for (Dataset which : kEveryDataset) compare(file, *reference, which, needs);
  }
  if (!reference)
    throw Error(Exit::bad_data,
                fmt::format("{}: the pool is empty: expected at least one row in {} file{}, found none",
                            paths_.empty() ? "--pool" : paths_[0], paths_.size(), paths_.size() == 1 ? "" : "s"));
  describe(needs);
}

void PoolLayout::settle_rows(std::size_t file, const Needs& needs) {
  FileHeader& header = headers_[file];
  std::optional<Dataset> counted;
  const auto is_usable = [&](Dataset which) { return header.column(which).present && header.fault_of(which).empty(); };
  for (Dataset which : kEveryDataset)
    if (!counted && is_usable(which) && counts_rows(which, needs)) counted = which;
  for (Dataset which : kEveryDataset)
    if (!counted && is_usable(which)) counted = which;
  for (Dataset which : kEveryDataset)
    if (!counted && header.column(which).present) throw Error(header.column(which).fault_code, header.fault_of(which));
  if (!counted)
    throw Error(Exit::bad_data, fmt::format("{}: expected a dataset \"{}\", found neither it nor another one of a pool",
                                            paths_[file], name_in(names_, Dataset::embeddings)));
  header.rows = header.column(*counted).rows;
  for (Dataset which : kEveryDataset) {
    if (!is_usable(which) || header.column(which).rows == header.rows) continue;
    const Error error(Exit::bad_data,
                      fmt::format("{}: dataset \"{}\": expected {} rows as in dataset \"{}\", found {}", paths_[file],
                                  name(file, which), header.rows, name(file, *counted), header.column(which).rows));
    if (counts_rows(which, needs)) throw error;
    fault(which, needs, error);
  }
}

void PoolLayout::settle_needs(std::size_t file, const Needs& needs) {
  const FileHeader& header = headers_[file];
  if (needs.embeddings && !header.column(Dataset::embeddings).present)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", paths_[file], names_.embeddings));
  const Column& probabilities = header.column(Dataset::probabilities);
  if (is_needed(Dataset::probabilities, needs) && !probabilities.present)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing, and so is \"{}\"", paths_[file],
                                            names_.probabilities, names_.logits));
  if (needs.passes && probabilities.passes < kFewestPasses)
    throw Error(
        Exit::bad_data,
        fmt::format("{}: dataset \"{}\": expected passes, [N,T,C] with T >= {}, found {}", paths_[file],
                    name(file, Dataset::probabilities), kFewestPasses,
                    probabilities.passes == 0 ? fmt::format("[N,C] = [{},{}]", probabilities.rows, probabilities.width)
                                              : fmt::format("[{},1,{}]", probabilities.rows, probabilities.width)));
}

void PoolLayout::compare(std::size_t file, std::size_t reference, Dataset which, const Needs& needs) {
  const Column& here = headers_[file].column(which);
  const Column& there = headers_[reference].column(which);
  const auto differs = [&](std::string_view what, const std::string& expected, const std::string& found) {
    fault(which, needs,
          Error(Exit::bad_data, fmt::format("{}: dataset \"{}\": expected {}{} as in {}, found {}", paths_[file],
                                            name(file, which), what, expected, paths_[reference], found)));
  };
  if (here.present != there.present)
    differs("", there.present ? "one" : "none", here.present ? "one" : "none");
  else if (here.width != there.width)
    differs(which == Dataset::embeddings ? "D = " : "C = ", std::to_string(there.width), std::to_string(here.width));
  else if (here.passes != there.passes)
    differs("T = ", there.passes == 0 ? "none" : std::to_string(there.passes),
            here.passes == 0 ? "none" : std::to_string(here.passes));
  else if (here.present && (here.kind == Kind::text) != (there.kind == Kind::text))
    differs("", there.kind == Kind::text ? "strings" : "integers", here.kind == Kind::text ? "strings" : "integers");
}

std::string PoolLayout::type_of(Dataset which) const {
  std::string type;
  for (const FileHeader& header : headers_) {
    const Column& column = header.column(which);
    if (!column.present || column.rows == 0) continue;
    if (!type.empty() && type != name_of(column.kind)) return "mixed";
    type = name_of(column.kind);
  }
  return type;
}

void PoolLayout::describe(const Needs& needs) {
  shape_.rows = first_rows_.back();
  for (const FileHeader& header : headers_) {
    if (header.rows == 0) continue;
    const auto has = [&](Dataset which) { return header.column(which).present; };
    const Column& probabilities = header.column(Dataset::probabilities);
    if (has(Dataset::embeddings) && shape_.dim == 0) shape_.dim = header.column(Dataset::embeddings).width;
    if (has(Dataset::probabilities) && shape_.classes == 0) {
      shape_.classes = probabilities.width;
      shape_.passes = probabilities.passes;
    }
    shape_.logits = shape_.logits || (has(Dataset::probabilities) && probabilities.alternative);
    shape_.ids = shape_.ids || has(Dataset::ids);
    shape_.text_ids = shape_.text_ids || (has(Dataset::ids) && header.column(Dataset::ids).kind == Kind::text);
    shape_.labels = shape_.labels || has(Dataset::labels);
    shape_.reference_classes = shape_.reference_classes || has(Dataset::classes);
    shape_.costs = shape_.costs || has(Dataset::costs);
    shape_.groups = shape_.groups || has(Dataset::groups);
  }
  shape_.embeddings_type = type_of(Dataset::embeddings);
  shape_.probabilities_type = type_of(Dataset::probabilities);
  shape_.half_embeddings = shape_.embeddings_type == name_of(Kind::f16);
  for (Dataset which : kEveryDataset) {
    Chunks largest;
    for (const FileHeader& header : headers_) {
      const Chunks chunks = chunks_of(header.column(which));
      largest.inflating = std::max(largest.inflating, chunks.inflating);
      largest.fewest = std::max(largest.fewest, chunks.fewest);
      largest.all = std::max(largest.all, chunks.all);
    }
    const auto add = [&](Chunks& sum) {
      sum = {std::max(sum.inflating, largest.inflating), sum.fewest + largest.fewest, sum.all + largest.all};
    };
    if (is_needed(which, needs)) add(shape_.chunks);
    if (which == Dataset::ids || which == Dataset::labels) add(shape_.id_chunks);
  }
}

void PoolLayout::fault(Dataset dataset, const Needs& needs, const Error& error) {
  if (is_needed(dataset, needs)) throw error;
  auto& kept = faults_[static_cast<std::size_t>(dataset)];
  if (!kept) kept = error;
}

std::size_t PoolLayout::file_of(std::int64_t row) const {
  require(row >= 0 && row < shape_.rows, "the row lies in the pool");
  return static_cast<std::size_t>(std::upper_bound(first_rows_.begin(), first_rows_.end(), row) - first_rows_.begin() -
                                  1);
}

bool PoolLayout::reads_rows_alone(Dataset dataset) const {
  return std::all_of(headers_.begin(), headers_.end(),
                     [&](const FileHeader& header) { return header.rows == 0 || header.column(dataset).offset >= 0; });
}

}  // namespace seine
