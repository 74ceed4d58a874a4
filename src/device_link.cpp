#include "seine/device_link.hpp"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "atomic_file.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

constexpr int kFailed = 1;  // the word of a notice

// The first of the ranks' texts that is not empty, with its rank; empty where all are.
std::string first_of(const Comm& comm, const std::string& mine) {
  const std::vector<std::string> all = comm.gather(std::span(&mine, 1));
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (!all[rank].empty()) return fmt::format("rank {}: {}", rank, all[rank]);
  return "";
}

// What `work` throws, as text; empty where it returns, or gives up because another rank has something to say.
template <class Work>
std::string fault_of(const Work& work) {
  try {
    work();
  } catch (...) {
    const Error error = current_error();
    if (error.code() != Exit::stopped) return error.what();
  }
  return "";
}

// Two ranks of one device, in words; empty where each has its own.
std::string shared_device(const Comm& comm, const std::string& device) {
  const std::string mine = host_name() + " " + device;
  const std::vector<std::string> all = comm.gather(std::span(&mine, 1));
  std::map<std::string, std::size_t> owner;
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (const auto [first, is_new] = owner.try_emplace(all[rank], rank); !is_new)
      return fmt::format("ranks {} and {} share {} of {}", first->second, rank,
                         all[rank].substr(all[rank].find(' ') + 1), all[rank].substr(0, all[rank].find(' ')));
  return "";
}

}  // namespace

template <class Work>
void DeviceLink::attempt(const Work& work) const {
  try {
    work();
  } catch (...) {
    if (current_error().code() != Exit::stopped) failure_.post(kFailed);
    throw;
  }
}

std::unique_ptr<DeviceLink> DeviceLink::open(const Comm& comm, DevicePort* port, std::string& why) {
  why.clear();
  if (comm.size() == 1) return nullptr;
  const std::int64_t ports = comm.sum(std::int64_t{port != nullptr});
  if (ports == 0) return nullptr;
  const auto through_host = [&](const std::string& reason) {
    why = "rows of other ranks come through the memory of the host: " + reason;
    return nullptr;
  };
  if (ports < comm.size())
    return through_host(fmt::format("{} of {} ranks have no GPU", comm.size() - ports, comm.size()));
  if (const std::string shared = shared_device(comm, port->device()); !shared.empty()) return through_host(shared);
  std::string library;
  if (const std::string fault = first_of(comm, fault_of([&] { library = port->load(); })); !fault.empty())
    return through_host(fault);

  std::string invitation;
  const std::string no_invitation = fault_of([&] {
    if (!comm.is_root()) return;
    const std::vector<std::byte> bytes = port->invitation();
    invitation.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  if (const std::string fault = first_of(comm, no_invitation); !fault.empty()) return through_host(fault);
  comm.broadcast(invitation);

  std::unique_ptr<DeviceLink> link(new DeviceLink(comm));
  const std::string not_joined = fault_of([&] {
    link->attempt([&] {
      link->transport_ = port->join(std::as_bytes(std::span(invitation)), comm.rank(), comm.size(),
                                    [&notice = link->failure_] { return notice.seen() != 0; });
    });
  });
  if (const std::string fault = first_of(comm, not_joined); !fault.empty()) {
    link->failure_.settle();
    return through_host(fault);
  }
  why = fmt::format("rows of other ranks come by {} between {} GPUs", library, comm.size());
  return link;
}

void DeviceLink::gather(const void* mine, std::span<const std::size_t> bytes, void* all) const {
  comm_.agree([&] { attempt([&] { transport_->gather(mine, bytes, all); }); });
}

}  // namespace seine
