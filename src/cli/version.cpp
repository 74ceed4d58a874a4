#include "cli/version.hpp"

#include <fmt/format.h>
#include <hdf5.h>
#include <mpi.h>

#include <string_view>

#include "seine/backend.hpp"

namespace seine {

std::string version_text() {
  // Of every target (CMakeLists.txt, seine_flags).
  constexpr std::string_view kBuildFlags = "-march=x86-64-v3 -ffp-contract=off";
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);

  char mpi[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(mpi, &length);  // one of the few calls that are allowed before MPI_Init
  const std::string_view mpi_text(mpi, static_cast<std::size_t>(length));

  return fmt::format(
      "seine {}\n"
      "build: {}, g++ {}, {}\n"
      "HDF5: {}.{}.{}\n"
      "MPI: {}\n"
      "CUDA: {}\n",
      SEINE_VERSION, SEINE_BUILD_TYPE, __VERSION__, kBuildFlags, major, minor, release,
      mpi_text.substr(0, mpi_text.find_first_of(",\n")), cuda_build_info());
}

}  // namespace seine
