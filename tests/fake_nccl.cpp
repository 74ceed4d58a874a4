// NCCL's functions over MPI and the memory of the host, for nccl_test: a library that works, or fails as the
// environment variable SEINE_FAKE_NCCL says. The communicator is that of all processes.
//   old          its version is too old
//   join_fails   rank 1 cannot join
//   join_hangs   rank 1 never hears from the others
//   rows_fail    rank 1 loses the others while rows are sent; the others hear nothing
#include <mpi.h>
#include <nccl.h>

#include <cstdlib>
#include <string_view>

struct ncclComm {
  MPI_Comm mpi = MPI_COMM_NULL;
  int rank = 0;
  int looks = 0;  // that are left until what is under way has ended
  bool sends = false;
};

namespace {

int broadcasts = 0, aborts = 0, inside_of_groups = 0;
constexpr int kLooks = 3;

bool mode_is(std::string_view mode) {
  const char* chosen = std::getenv("SEINE_FAKE_NCCL");
  return chosen && mode == chosen;
}

}  // namespace

extern "C" {

int fake_nccl_broadcasts() {
  return broadcasts;
}
int fake_nccl_aborts() {
  return aborts;
}

ncclResult_t ncclGetVersion(int* version) {
  *version = mode_is("old") ? 21305 : 22809;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  return result == ncclUnhandledCudaError ? "no such GPU" : result == ncclRemoteError ? "a rank is gone" : "unknown";
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  *id = {};
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int, ncclUniqueId, int rank, ncclConfig_t* config) {
  if (config->blocking != 0) return ncclInvalidArgument;
  if (mode_is("join_fails") && rank == 1) return ncclUnhandledCudaError;
  *comm = new ncclComm{MPI_COMM_NULL, rank, kLooks, false};
  if (!mode_is("join_fails") && !mode_is("join_hangs") && !mode_is("rows_fail"))
    MPI_Comm_dup(MPI_COMM_WORLD, &(*comm)->mpi);
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* error) {
  const bool joins = !comm->sends;
  *error = comm->looks > 0 ? ncclInProgress : ncclSuccess;
  if (comm->looks > 0) --comm->looks;
  if (joins && mode_is("join_fails")) *error = ncclInProgress;
  if (joins && mode_is("join_hangs") && comm->rank == 1) *error = ncclInProgress;
  if (!joins && mode_is("rows_fail")) *error = comm->rank == 1 && comm->looks == 0 ? ncclRemoteError : ncclInProgress;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  ++aborts;
  if (comm->mpi != MPI_COMM_NULL) MPI_Comm_free(&comm->mpi);
  delete comm;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  ++inside_of_groups;
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  return --inside_of_groups == 0 ? ncclInProgress : ncclInvalidUsage;
}

ncclResult_t ncclBroadcast(const void* from, void* to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t) {
  if (inside_of_groups != 1 || type != ncclInt8) return ncclInvalidUsage;
  ++broadcasts;
  comm->sends = true;
  comm->looks = kLooks;
  if (comm->mpi == MPI_COMM_NULL) return ncclSuccess;
  if (comm->rank == root)
    for (size_t i = 0; i < count; ++i) static_cast<char*>(to)[i] = static_cast<const char*>(from)[i];
  MPI_Bcast(to, static_cast<int>(count), MPI_BYTE, root, comm->mpi);
  return ncclSuccess;
}

}  // extern "C"
