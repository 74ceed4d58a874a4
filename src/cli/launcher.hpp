// What is known about the other ranks before MPI is up.
#pragma once

namespace seine {

// The rank that the launcher gave this process, from its environment; 0 when started alone. For messages only.
int launcher_rank();

// Error 71 where the launcher has no room for the files by which it speaks to its ranks: MPI would fail at its start
// with pages of text, or hang.
void check_launcher_room();

}  // namespace seine
