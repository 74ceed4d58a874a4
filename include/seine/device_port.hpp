// How a device meets those of other ranks: what a backend offers for it, and device_link.hpp makes use of. No MPI here:
// the plug-in knows none.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace seine {

// One rank's end of a link, in the plug-in. Its calls wait for the other ranks, but not for ever: they throw an Error
// after a while or where the library reports a fault, and one with Exit::stopped where `gives_up` says that another
// rank has failed. Then the link is dead.
class DeviceTransport {
 public:
  virtual ~DeviceTransport() = default;
  // bytes[r] of rank r: from `mine` there, to `all` everywhere, in rank order. Backend memory; complete on return.
  virtual void gather(const void* mine, std::span<const std::size_t> bytes, void* all) = 0;
};

// How a device joins others. Errors are those of this rank alone.
class DevicePort {
 public:
  virtual ~DevicePort() = default;
  virtual std::string device() const = 0;           // which one it is, among those of its host
  virtual std::string load() = 0;                   // the library, by name and version; an Error says why there is none
  virtual std::vector<std::byte> invitation() = 0;  // from one rank; what the others need to find it
  virtual std::unique_ptr<DeviceTransport> join(std::span<const std::byte> invitation, int rank, int ranks,
                                                std::function<bool()> gives_up) = 0;
};

}  // namespace seine
