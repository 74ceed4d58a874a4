// Preloaded into a program, this is a machine whose clock is wrong: by SEINE_CLOCK_OFFSET seconds, or, without that
// variable, by something else at every look. Clocks that only run forward stay as they are.
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <ctime>

namespace {

time_t offset() {
  if (const char* fixed = std::getenv("SEINE_CLOCK_OFFSET")) return std::atol(fixed);
  constexpr time_t kDay = 86400;
  constexpr std::array<time_t, 5> kJumps = {0, 3650 * kDay, -365 * kDay, kDay, -3600};
  static std::atomic<std::size_t> looks = 0;
  return kJumps[looks++ % kJumps.size()];
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* now) {
  const auto status = static_cast<int>(syscall(SYS_clock_gettime, clock, now));
  if (status == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += offset();
  return status;
}

int gettimeofday(timeval* now, void*) {
  timespec exact{};
  const int status = clock_gettime(CLOCK_REALTIME, &exact);
  now->tv_sec = exact.tv_sec;
  now->tv_usec = exact.tv_nsec / 1000;
  return status;
}

time_t time(time_t* now) {
  timespec exact{};
  clock_gettime(CLOCK_REALTIME, &exact);
  if (now) *now = exact.tv_sec;
  return exact.tv_sec;
}
}
