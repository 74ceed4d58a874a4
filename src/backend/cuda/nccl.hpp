// The port of a CUDA device to those of other ranks: NCCL, loaded where it is asked for, so that without the library
// there is a reason and no failure to start.
//
// This file needs no CUDA: what it must know of the stream it is told, so that tests run it on the memory of the host.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "seine/device_port.hpp"

namespace seine {

// The stream on which the device works in order.
struct DeviceStream {
  void* handle = nullptr;
  std::function<void()> enter;    // makes the device that of the calling thread
  std::function<bool()> is_idle;  // whether all that was asked of it is done; throws the device's fault
};

// `device`: its name on this host. Where this was built without nccl.h, the port says so. `patience`: how long a call
// waits for the other ranks.
std::unique_ptr<DevicePort> make_nccl_port(std::string device, DeviceStream stream,
                                           const std::string& library = "libnccl.so.2",
                                           std::chrono::milliseconds patience = std::chrono::minutes(1));

}  // namespace seine
