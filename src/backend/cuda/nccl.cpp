#include "backend/cuda/nccl.hpp"

#include <nccl.h>

#include <cstring>
#include <optional>
#include <thread>
#include <utility>

#include "backend/shared_library.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kOldest = 21400;  // 2.14 waits without blocking

// The functions that are used, of the library that was found.
struct Nccl {
  decltype(&ncclGetVersion) get_version;
  decltype(&ncclGetErrorString) error_string;
  decltype(&ncclGetUniqueId) get_unique_id;
  decltype(&ncclCommInitRankConfig) init_rank;
  decltype(&ncclCommGetAsyncError) async_error;
  decltype(&ncclCommAbort) abort;
  decltype(&ncclGroupStart) group_start;
  decltype(&ncclGroupEnd) group_end;
  decltype(&ncclBroadcast) broadcast;
};

Nccl open_library(const std::string& path) {
  const SharedLibrary library({path.c_str()});
  Nccl nccl{};
  library.find("ncclGetVersion", nccl.get_version);
  library.find("ncclGetErrorString", nccl.error_string);
  library.find("ncclGetUniqueId", nccl.get_unique_id);
  library.find("ncclCommInitRankConfig", nccl.init_rank);
  library.find("ncclCommGetAsyncError", nccl.async_error);
  library.find("ncclCommAbort", nccl.abort);
  library.find("ncclGroupStart", nccl.group_start);
  library.find("ncclGroupEnd", nccl.group_end);
  library.find("ncclBroadcast", nccl.broadcast);
  return nccl;
}

std::string version_of(const Nccl& nccl) {
  int version = 0;
  nccl.get_version(&version);
  const std::string text = "NCCL " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
                           std::to_string(version % 100);
  if (version < kOldest) throw Error(Exit::no_device, text + " was found, 2.14 or later is needed");
  return text;
}

// A wrong call is ours, a fault of the device is the device's, and the rest is between the ranks.
Exit exit_of(ncclResult_t fault) {
  switch (fault) {
    case ncclInvalidArgument:
    case ncclInvalidUsage:
      return Exit::bug;
    case ncclUnhandledCudaError:
      return Exit::no_device;
    default:
      return Exit::io;
  }
}

void check(const Nccl& nccl, ncclResult_t result, const char* while_what) {
  if (result != ncclSuccess && result != ncclInProgress)
    throw Error(exit_of(result), std::string("NCCL: ") + nccl.error_string(result) + ", while " + while_what);
}

class NcclTransport final : public DeviceTransport {
 public:
  NcclTransport(const Nccl& nccl, const DeviceStream& stream, std::chrono::milliseconds patience,
                std::function<bool()> gives_up)
      : nccl_(nccl), stream_(stream), patience_(patience), gives_up_(std::move(gives_up)) {}
  // Every call has ended on all ranks: nobody is left to wait for.
  ~NcclTransport() override { abandon(); }

  void join(const ncclUniqueId& id, int rank, int ranks) {
    rank_ = rank;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    alive([&] {
      check(nccl_, nccl_.init_rank(&comm_, ranks, id, rank, &config), "joining the other ranks");
      wait("joining the other ranks", [] { return true; });
    });
  }

  void gather(const void* mine, std::span<const std::size_t> bytes, void* all) override {
    alive([&] {
      start_gather(mine, bytes, all);
      wait("sending rows", [this] { return stream_.is_idle(); });
    });
  }

 private:
  // A broadcast from each rank that has something. A group must be closed whatever happens inside of it.
  void start_gather(const void* mine, std::span<const std::size_t> bytes, void* all) {
    auto* to = static_cast<std::byte*>(all);
    check(nccl_, nccl_.group_start(), "sending rows");
    ncclResult_t first = ncclSuccess;
    for (std::size_t rank = 0; rank < bytes.size(); to += bytes[rank++]) {
      if (bytes[rank] == 0) continue;
      const void* from = static_cast<int>(rank) == rank_ ? mine : to;
      const ncclResult_t result = nccl_.broadcast(from, to, bytes[rank], ncclInt8, static_cast<int>(rank), comm_,
                                                  static_cast<cudaStream_t>(stream_.handle));
      if (first == ncclSuccess && result != ncclInProgress) first = result;
    }
    const ncclResult_t ended = nccl_.group_end();
    check(nccl_, first, "sending rows");
    check(nccl_, ended, "sending rows");
  }

  // Until the library has nothing under way and `is_done`.
  template <class Done>
  void wait(const char* what, const Done& is_done) {
    const Clock::time_point end = Clock::now() + patience_;
    for (int turn = 0;; ++turn) {
      ncclResult_t state = ncclSuccess;
      check(nccl_, nccl_.async_error(comm_, &state), what);
      check(nccl_, state, what);
      if (state == ncclSuccess && is_done()) return;
      if (gives_up_()) throw Error(Exit::stopped, "another rank has failed");
      if (Clock::now() > end)
        throw Error(Exit::io, std::string("NCCL: no answer of the other ranks in ") +
                                  std::to_string(std::chrono::duration_cast<std::chrono::seconds>(patience_).count()) +
                                  " s, while " + what);
      if (turn > kSpins) std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }

  // A communicator that has failed is of no use, and its kernels may wait for ever.
  template <class Work>
  void alive(const Work& work) {
    if (is_dead_) throw Error(Exit::io, "NCCL: the link has failed before");
    try {
      stream_.enter();
      work();
    } catch (...) {
      abandon();
      throw;
    }
  }

  void abandon() noexcept {
    if (comm_) nccl_.abort(std::exchange(comm_, nullptr));
    is_dead_ = true;
  }

  static constexpr int kSpins = 1000;  // looks before it sleeps: rows are there in some ten microseconds

  Nccl nccl_;
  DeviceStream stream_;
  std::chrono::milliseconds patience_;
  std::function<bool()> gives_up_;
  ncclComm_t comm_ = nullptr;
  int rank_ = 0;
  bool is_dead_ = false;
};

class NcclPort final : public DevicePort {
 public:
  NcclPort(std::string device, DeviceStream stream, std::string library, std::chrono::milliseconds patience)
      : device_(std::move(device)), stream_(std::move(stream)), library_(std::move(library)), patience_(patience) {}

  std::string device() const override { return device_; }

  std::string load() override {
    if (!nccl_) nccl_ = open_library(library_);
    return version_of(*nccl_);
  }

  std::vector<std::byte> invitation() override {
    ncclUniqueId id;
    check(*nccl_, nccl_->get_unique_id(&id), "opening a link");
    std::vector<std::byte> bytes(sizeof id);
    std::memcpy(bytes.data(), &id, sizeof id);
    return bytes;
  }

  std::unique_ptr<DeviceTransport> join(std::span<const std::byte> invitation, int rank, int ranks,
                                        std::function<bool()> gives_up) override {
    ncclUniqueId id;
    if (invitation.size() != sizeof id) throw Error(Exit::bug, "internal error: an invitation of another library");
    std::memcpy(&id, invitation.data(), sizeof id);
    auto transport = std::make_unique<NcclTransport>(*nccl_, stream_, patience_, std::move(gives_up));
    transport->join(id, rank, ranks);
    return transport;
  }

 private:
  std::string device_;
  DeviceStream stream_;
  std::string library_;
  std::chrono::milliseconds patience_;
  std::optional<Nccl> nccl_;
};

}  // namespace

std::unique_ptr<DevicePort> make_nccl_port(std::string device, DeviceStream stream, const std::string& library,
                                           std::chrono::milliseconds patience) {
  return std::make_unique<NcclPort>(std::move(device), std::move(stream), library, patience);
}

}  // namespace seine
