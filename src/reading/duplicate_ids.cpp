#include "reading/duplicate_ids.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "reading/stored_ids.hpp"
#include "seine/error.hpp"
#include "seine/ids.hpp"

namespace seine {
namespace {

struct HashedRow {
  std::uint64_t hash;
  std::int64_t row;
  bool operator<(const HashedRow& other) const { return hash != other.hash ? hash < other.hash : row < other.row; }
};

struct Suspect {
  std::int64_t row, earlier;  // equal hashes
  bool operator<(const Suspect& other) const { return row != other.row ? row < other.row : earlier < other.earlier; }
};

// Collective. The rows of the whole pool whose hash belongs to this rank and to this pass over the ids, in steps that
// bound what is under way.
std::vector<HashedRow> exchange_hashes(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                       std::uint64_t pass, std::uint64_t passes) {
  constexpr std::size_t runs_per_step = 16;  // at most 2^20 rows
  const auto ranks = static_cast<std::uint64_t>(comm.size());
  const auto most_runs = static_cast<std::size_t>(comm.max(static_cast<double>(own.runs().size())));
  std::vector<HashedRow> mine;
  for (std::size_t step = 0; step < most_runs; step += runs_per_step) {
    const auto to = comm.agree([&] {
      std::vector<std::vector<HashedRow>> out(ranks);
      for (std::size_t i = step; i < std::min(step + runs_per_step, own.runs().size()); ++i)
        visit_ids(files, own.runs()[i].first, own.runs()[i].count, [&](std::int64_t row, const auto& id) {
          const std::uint64_t hash = hash_of(id);
          if ((hash >> 32) % passes == pass) out[hash % ranks].push_back({hash, row});
        });
      return out;
    });
    const auto from = comm.exchange(to);
    comm.agree([&] {
      for (const std::vector<HashedRow>& rows : from) mine.insert(mine.end(), rows.begin(), rows.end());
    });
  }
  std::sort(mine.begin(), mine.end());
  return mine;
}

// Both the first and the previous row of the same hash, so that one accidental equality of hashes hides nothing.
void add_suspects(const std::vector<HashedRow>& sorted, std::vector<Suspect>& suspects) {
  std::size_t first = 0;
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].hash != sorted[first].hash) {
      first = i;
      continue;
    }
    suspects.push_back({sorted[i].row, sorted[first].row});
    if (i - 1 != first) suspects.push_back({sorted[i].row, sorted[i - 1].row});
  }
}

void keep_smallest(std::vector<Suspect>& suspects, std::size_t count) {
  std::sort(suspects.begin(), suspects.end());
  if (suspects.size() > count) suspects.resize(count);
}

}  // namespace

std::string DuplicateId::describe(const PoolFiles& files) const {
  return fmt::format("{}: expected unique ids, found \"{}\" again, first at {}", files.where(row, Dataset::ids), id,
                     files.where(earlier));
}

std::vector<DuplicateId> duplicate_ids(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                       std::size_t limit) {
  if (!files.shape().ids) return {};
  constexpr std::int64_t rows_per_pass = std::int64_t{1} << 24;  // and rank: 256 MiB of hashes
  const auto passes = static_cast<std::uint64_t>(1 + files.shape().rows / comm.size() / rows_per_pass);
  const std::size_t kept = 4 * limit + 16;
  std::vector<Suspect> suspects;
  for (std::uint64_t pass = 0; pass < passes; ++pass) {
    add_suspects(exchange_hashes(comm, files, own, pass, passes), suspects);
    keep_smallest(suspects, kept);
  }
  suspects = comm.gather(std::span<const Suspect>(suspects));
  keep_smallest(suspects, kept);
  std::vector<std::int64_t> rows;
  for (const Suspect& suspect : suspects) rows.insert(rows.end(), {suspect.row, suspect.earlier});
  const IdColumn ids = fetch_ids(comm, files, rows);
  std::vector<DuplicateId> duplicates;
  for (std::size_t i = 0; i < suspects.size() && duplicates.size() < limit; ++i) {
    if (ids.as_text(2 * i) != ids.as_text(2 * i + 1)) continue;
    if (duplicates.empty() || duplicates.back().row != suspects[i].row)
      duplicates.push_back({suspects[i].row, suspects[i].earlier, ids.as_text(2 * i)});
  }
  return duplicates;
}

void check_ids_unique(const Comm& comm, const PoolFiles& files, const Ownership& own) {
  const std::vector<DuplicateId> duplicates = duplicate_ids(comm, files, own, 1);
  comm.agree([&] {
    if (!duplicates.empty()) throw Error(Exit::bad_data, duplicates[0].describe(files));
  });
}

}  // namespace seine
