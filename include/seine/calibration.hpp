// Measures the constants of a machine.
#pragma once

#include "seine/console.hpp"
#include "seine/machine.hpp"

namespace seine {

// About five seconds of processor time; what else runs on the machine does not count, as far as that can be. Needs
// 128 MiB of memory, and 64 MiB in the folder for temporary files, whose storage is measured too. Alone, without other
// ranks.
Machine calibrate(const Console& console);

}  // namespace seine
