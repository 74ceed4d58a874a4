#include "seine/score_files.hpp"

#include <algorithm>
#include <filesystem>
#include <map>

#include <fmt/format.h>

#include "atomic_file.hpp"
#include "reading/hdf5.hpp"
#include "reading/loader.hpp"
#include "seine/error.hpp"
#include "seine/input.hpp"
#include "seine/pool_paths.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

namespace fs = std::filesystem;

// Where the scores of each pool file go; error 64 where two would be one.
std::vector<std::string> output_paths(const std::vector<std::string>& pool, const std::string& folder) {
  std::map<std::string, std::string> seen;
  std::vector<std::string> outputs;
  for (const std::string& path : pool) {
    const std::string base = fs::path(path).filename();
    const auto [earlier, is_new] = seen.emplace(base, path);
    if (!is_new)
      throw Error(Exit::usage,
                  fmt::format("{} and {}: two pool files of one base name; their scores would overwrite each other",
                              earlier->second, path));
    const fs::path output = fs::path(folder) / base;
    std::error_code ignored;
    if (fs::exists(output, ignored) && fs::equivalent(output, path, ignored))
      throw Error(Exit::usage, fmt::format("--out {}: the scores would overwrite the pool file {}", folder, path));
    outputs.push_back(output);
  }
  return outputs;
}

// Written like every output: whole at a temporary name, then renamed.
void write_file(const std::string& path, const ScoreRequest& request, const std::string& fingerprint,
                std::span<const float> scores) {
  h5::Id file = h5::create_file_in_memory();
  h5::write_dataset(file.get(), "score", scores, path);
  h5::write_attribute(file.get(), "strategy", request.strategy, path);
  h5::write_attribute(file.get(), "request", request.to_json(), path);
  h5::write_attribute(file.get(), "pool_fingerprint", fingerprint, path);
  AtomicFile output(path);
  output.write_text(h5::bytes_of(file.get()));
  output.commit();
}

const Entry& checked_strategy(const ScoreRequest& request) {
  const Entry& entry = strategy(request.strategy);
  if (!entry.score)
    throw Error(Exit::usage, fmt::format("strategy {} has no score per row; see `seine strategies`", entry.name));
  check_parameters(entry, request.set);
  return entry;
}

// Collective. The scores of one file, on rank 0; they lie on the ranks that own its rows.
std::vector<float> gather_scores(const Pool& pool, const PoolFiles& files, std::size_t file) {
  struct Scored {
    std::int64_t row;
    float score;
  };
  const Comm& comm = pool.comm();
  const std::vector<std::int64_t>& rows = pool.columns.rows;
  const std::int64_t first = files.first_row_of(file), last = files.first_row_of(file + 1);
  std::vector<std::vector<Scored>> to(static_cast<std::size_t>(comm.size()));
  for (auto row = std::lower_bound(rows.begin(), rows.end(), first); row != rows.end() && *row < last; ++row)
    to[0].push_back({*row, (*pool.columns.score)[static_cast<std::size_t>(row - rows.begin())]});
  std::vector<float> scores(comm.is_root() ? static_cast<std::size_t>(last - first) : 0);
  for (const std::vector<Scored>& part : comm.exchange(to))
    for (const Scored& scored : part) scores[static_cast<std::size_t>(scored.row - first)] = scored.score;
  return scores;
}

}  // namespace

std::vector<std::string> write_scores(const ScoreRequest& request, const Comm& comm, Backend& backend,
                                      const Console& console) {
  const Entry& entry = comm.agree([&] { return std::cref(checked_strategy(request)); });
  const std::vector<std::string> paths = pool_paths(comm, request.pool.pool);
  const std::vector<std::string> outputs = comm.agree([&] { return output_paths(paths, request.out); });
  const OpenedPool opened = open_candidates(comm, paths, request.pool.names, entry.needs);
  comm.agree([&] {
    if (comm.is_root()) make_folder(request.out);
  });
  Wanted wanted;
  wanted.score = entry.score;
  wanted.threads = std::max(1, request.pool.threads);
  const Loaded loaded = load(comm, backend, opened, wanted, request.pool, comm.is_root() ? &console : nullptr);
  for (std::size_t file = 0; file < outputs.size(); ++file) {
    const std::vector<float> scores = gather_scores(loaded.pool, opened.files, file);
    comm.agree([&] {
      if (comm.is_root()) write_file(outputs[file], request, loaded.fingerprint, scores);
    });
    if (comm.is_root())
      console.progress("write", static_cast<std::int64_t>(file) + 1, static_cast<std::int64_t>(outputs.size()));
  }
  return outputs;
}

}  // namespace seine
