// What this process may use of its node: processor, CPUs, memory, device.
#pragma once

#include <memory>
#include <optional>

#include "cli/terminal.hpp"
#include "seine/backend.hpp"
#include "seine/comm.hpp"
#include "seine/device_link.hpp"
#include "seine/request.hpp"

namespace seine {

// Error 71 where the processor lacks the instructions that all of this program is compiled for.
void check_processor();

// The CPUs that this process may use.
int own_cpus();

// What one of so many ranks that share a device may use of its memory: no more than it was given of the host's. Absent
// where the device has none of its own.
std::optional<double> own_device_gib(const DeviceMemory& memory, int sharers, std::optional<double> given);

// Collective. Fills `threads`, `memory_gib` and `device_gib` where the request leaves them open, and makes the backend
// it asks for.
std::unique_ptr<Backend> take_resources(PoolRequest& request, const Comm& comm, Terminal& terminal);

// Collective. Links the devices of all ranks where that is possible, and lets the backend use it; says in the log what
// was done where there is a choice.
std::unique_ptr<DeviceLink> link_devices(const Comm& comm, Backend& backend, Terminal& terminal);

}  // namespace seine
