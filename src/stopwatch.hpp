// Seconds by the clock.
#pragma once

#include <chrono>

namespace seine {

// Seconds since it was made or last read.
class Stopwatch {
 public:
  double lap() {
    const Clock::time_point before = since_;
    since_ = Clock::now();
    return std::chrono::duration<double>(since_ - before).count();
  }

 private:
  using Clock = std::chrono::steady_clock;

  Clock::time_point since_ = Clock::now();
};

}  // namespace seine
