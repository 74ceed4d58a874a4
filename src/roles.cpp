#include "seine/roles.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>
#include <utility>

#include "reading/id_list.hpp"
#include "seine/error.hpp"
#include "seine/ids.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

struct Lists {
  static constexpr std::array<const char*, 4> options{"--labelled", "--pending", "--exclude", "--candidates"};
  static constexpr std::array<Role, 4> roles{Role::labelled, Role::pending, Role::bystander, Role::candidate};

  std::vector<std::string> ids;  // of all lists, one option after the other
  std::array<std::int64_t, 4> sizes{};
};

// Collective. Read on rank 0, known to all.
Lists read_lists(const Comm& comm, const PoolRequest& request) {
  const std::array<const std::vector<std::string>*, 4> paths{&request.labelled, &request.pending, &request.exclude,
                                                             &request.candidates};
  Lists lists;
  comm.agree([&] {
    if (!comm.is_root()) return;
    for (std::size_t kind = 0; kind < paths.size(); ++kind)
      for (const std::string& path : *paths[kind])
        for (std::string& id : read_id_list(path)) {
          lists.ids.push_back(std::move(id));
          ++lists.sizes[kind];
        }
  });
  comm.broadcast(std::span<std::int64_t>(lists.sizes));
  lists.ids = comm.gather(std::span<const std::string>(lists.ids));  // only rank 0 has any
  return lists;
}

void report_unknown(const Comm& comm, const Lists& lists, std::span<const std::int64_t> rows, bool strict,
                    const std::function<void(const std::string&)>& warn) {
  std::size_t first = 0;
  for (std::size_t kind = 0; kind < Lists::options.size(); ++kind) {
    const auto listed = rows.subspan(first, static_cast<std::size_t>(lists.sizes[kind]));
    if (const auto unknown = std::count(listed.begin(), listed.end(), -1); unknown > 0) {
      const auto example = static_cast<std::size_t>(std::find(listed.begin(), listed.end(), -1) - listed.begin());
      const std::string line = fmt::format("{}: {} of {} ids are not in the pool (first: \"{}\")", Lists::options[kind],
                                           unknown, listed.size(), lists.ids[first + example]);
      if (strict) throw Error(Exit::bad_data, line);
      if (comm.is_root()) warn(line);
    }
    first += listed.size();
  }
}

// Collective. The role of each own row by the lists alone.
std::vector<Role> roles_by_lists(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                 const PoolRequest& request, const std::function<void(const std::string&)>& warn) {
  const Lists lists = read_lists(comm, request);
  const std::vector<std::int64_t> rows = rows_of_ids(comm, files, own, lists.ids);
  const bool restricted = !request.candidates.empty();
  std::vector<Role> roles(static_cast<std::size_t>(own.own()), restricted ? Role::bystander : Role::candidate);
  std::size_t end = rows.size();
  for (std::size_t kind = Lists::options.size(); kind-- > 0;) {  // candidates first: every other role is stronger
    const auto size = static_cast<std::size_t>(lists.sizes[kind]);
    const auto listed = std::span(rows).subspan(end -= size, size);
    for (std::int64_t row : listed) {
      if (row < 0 || !own.owns(row)) continue;
      Role& role = roles[static_cast<std::size_t>(own.local(row))];
      role = Lists::roles[kind] == Role::candidate ? Role::candidate : std::max(role, Lists::roles[kind]);
    }
  }
  comm.agree([&] { report_unknown(comm, lists, rows, request.strict_ids, warn); });
  return roles;
}

std::int64_t count_candidates(const Comm& comm, const std::vector<Role>& roles) {
  return comm.sum(static_cast<std::int64_t>(std::count(roles.begin(), roles.end(), Role::candidate)));
}

// `by_lists`: how many candidates the lists of ids alone would leave.
[[noreturn]] void fail_without_candidates(const PoolFiles& files, const PoolRequest& request, std::int64_t by_lists) {
  const std::string line = fmt::format("no candidate is left of {} rows", files.shape().rows);
  if (by_lists == 0) throw Error(Exit::bad_data, line + ": the lists of ids leave none");
  throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\": {}: {} have a label (--labels none ignores labels)",
                                          files.paths()[0], request.names.labels, line, by_lists));
}

}  // namespace

void check_id_lists(const Comm& comm, const PoolRequest& request) {
  read_lists(comm, request);
}

std::vector<Role> read_roles(const Comm& comm, const PoolFiles& files, const Ownership& own, const PoolRequest& request,
                             const std::function<void(const std::string&)>& warn) {
  std::vector<Role> roles = roles_by_lists(comm, files, own, request, warn);
  const std::int64_t by_lists = count_candidates(comm, roles);
  comm.agree([&] {
    std::size_t local = 0;
    for (const Ownership::Run& run : files.shape().labels ? own.runs() : std::vector<Ownership::Run>()) {
      stop_if_asked();
      for (std::int64_t label : files.read_integers(Dataset::labels, run.first, run.count)) {
        if (label >= 0) roles[local] = Role::labelled;
        ++local;
      }
    }
  });
  const std::int64_t left = count_candidates(comm, roles);
  comm.agree([&] {
    if (left == 0) fail_without_candidates(files, request, by_lists);
  });
  return roles;
}

}  // namespace seine
