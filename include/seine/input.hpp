// From a request to its pools, opened: which files, who owns which row, what each row is.
#pragma once

#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/console.hpp"
#include "seine/ownership.hpp"
#include "seine/pool_files.hpp"
#include "seine/request.hpp"
#include "seine/roles.hpp"

namespace seine {

struct OpenedPool {
  PoolFiles files;
  Ownership own;
  std::vector<Role> roles;  // of the own rows
};

// Collective. The pool of a request, its ids unique, its roles those of labels and lists.
OpenedPool open_pool(const Comm& comm, const PoolRequest& request, const Needs& needs, const Console& console);

// Collective. These files as a pool of unique ids where every row is a candidate, whatever its label.
OpenedPool open_candidates(const Comm& comm, const std::vector<std::string>& paths, const DatasetNames& names,
                           const Needs& needs);

// Collective. The labelled pool of a request, its headers alone or opened; error 65 where what is needed of its rows
// differs in width from the rows of `pool`.
PoolFiles labelled_pool_files(const Comm& comm, const PoolRequest& request, Needs needs, const PoolShape& pool);
OpenedPool open_labelled_pool(const Comm& comm, const PoolRequest& request, const Needs& needs, const PoolShape& pool);

}  // namespace seine
