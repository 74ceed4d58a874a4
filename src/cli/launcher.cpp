#include "cli/launcher.hpp"

#include <cstdlib>
#include <initializer_list>

namespace seine {

int launcher_rank() {
  // mpirun inside a Slurm job sets its own variable and inherits Slurm's, so Slurm's comes last.
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
    if (const char* rank = std::getenv(name)) return std::atoi(rank);
  return 0;
}

}  // namespace seine
