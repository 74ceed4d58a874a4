#include "seine/input.hpp"

#include <fmt/format.h>

#include <string_view>

#include "reading/duplicate_ids.hpp"
#include "seine/error.hpp"
#include "seine/pool_paths.hpp"

namespace seine {
namespace {

// Nothing is known of the ids.
OpenedPool opened(const Comm& comm, PoolFiles files, Role role) {
  const Ownership own(files.shape().rows, comm);
  return {std::move(files), own, std::vector<Role>(static_cast<std::size_t>(own.own()), role)};
}

void check_width(const std::string& path, std::string_view what, std::int64_t expected, std::int64_t found) {
  if (found != expected)
    throw Error(Exit::bad_data,
                fmt::format("{}: expected {} {} as in the pool, found {}", path, expected, what, found));
}

}  // namespace

OpenedPool open_candidates(const Comm& comm, const std::vector<std::string>& paths, const DatasetNames& names,
                           const Needs& needs) {
  OpenedPool pool = opened(comm, PoolFiles(comm, paths, names, needs), Role::candidate);
  check_ids_unique(comm, pool.files, pool.own);
  return pool;
}

OpenedPool open_pool(const Comm& comm, const PoolRequest& request, const Needs& needs, const Console& console) {
  OpenedPool pool = open_candidates(comm, pool_paths(comm, request.pool), request.names, needs);
  pool.roles = read_roles(comm, pool.files, pool.own, request, console.warn);
  return pool;
}

PoolFiles labelled_pool_files(const Comm& comm, const PoolRequest& request, Needs needs, const PoolShape& pool) {
  needs.passes = false;
  PoolFiles labelled(comm, pool_paths(comm, request.labelled_pool), request.names, needs);
  comm.agree([&] {
    const PoolShape& shape = labelled.shape();
    const std::string& path = labelled.paths().front();
    if (needs.embeddings) check_width(path, "columns of embeddings", pool.dim, shape.dim);
    if (needs.probabilities) check_width(path, "classes", pool.classes, shape.classes);
  });
  return labelled;
}

OpenedPool open_labelled_pool(const Comm& comm, const PoolRequest& request, const Needs& needs, const PoolShape& pool) {
  return opened(comm, labelled_pool_files(comm, request, needs, pool), Role::labelled);
}

}  // namespace seine
