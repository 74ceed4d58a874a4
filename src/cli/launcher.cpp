#include "cli/launcher.hpp"

#include <fmt/format.h>
#include <sys/statvfs.h>

#include <cstdlib>
#include <initializer_list>

#include "seine/bytes.hpp"
#include "seine/error.hpp"

namespace seine {

int launcher_rank() {
  // mpirun inside a Slurm job sets its own variable and inherits Slurm's, so Slurm's comes last.
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(name)) return std::atoi(rank);
  return 0;
}

void check_launcher_room() {
  constexpr double needed = 8 * kMiB;  // PMIx 3 and 4
  const char* folder = std::getenv("PMIX_SERVER_TMPDIR");
  struct statvfs system {};
  if (!folder || ::statvfs(folder, &system) != 0) return;
  const double free = static_cast<double>(system.f_bavail) * static_cast<double>(system.f_frsize);
  if (free < needed)
    throw Error(Exit::system, fmt::format("{}: MPI needs {:.0f} MiB for its temporary files, {:.1f} are free; $TMPDIR "
                                          "names another place",
                                          folder, needed / kMiB, free / kMiB));
}

}  // namespace seine
