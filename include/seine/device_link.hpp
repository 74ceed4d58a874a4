// Rows from the memory of one GPU to the others, beside what Comm moves between hosts. Pool uses it where there is one;
// nothing above a pool knows.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "seine/comm.hpp"
#include "seine/device_port.hpp"

namespace seine {

class DeviceLink {
 public:
  // Collective. Null where a link is impossible; `why` gets one line that says what is there or why nothing is, and
  // stays empty for one rank, and where no rank has a port: memory of the host needs none.
  static std::unique_ptr<DeviceLink> open(const Comm& comm, DevicePort* port, std::string& why);

  const Comm& comm() const { return comm_; }
  // Collective, as DeviceTransport::gather. What fails on one rank is one AgreedError on all.
  void gather(const void* mine, std::span<const std::size_t> bytes, void* all) const;

 private:
  explicit DeviceLink(const Comm& comm) : comm_(comm), failure_(comm) {}
  // Runs `work` here; where it fails the other ranks are told, who may be waiting inside of theirs.
  template <class Work>
  void attempt(const Work& work) const;

  const Comm& comm_;
  mutable Notice failure_;
  std::unique_ptr<DeviceTransport> transport_;
};

}  // namespace seine
