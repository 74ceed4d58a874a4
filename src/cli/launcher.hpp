// What is known about the other ranks before MPI is up.
#pragma once

namespace seine {

// The rank that the launcher gave this process, from its environment; 0 when started alone. For messages only.
int launcher_rank();

}  // namespace seine
