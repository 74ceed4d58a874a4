#include "seine/stop.hpp"

#include <atomic>
#include <chrono>

#include "seine/error.hpp"

namespace seine {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};

// What handlers and other threads touch; a handler may use no more than lock-free atomics.
std::atomic<int> caught = 0, told = 0;
std::atomic<bool> listening = false;
static_assert(std::atomic<int>::is_always_lock_free);

StopSignals* current = nullptr;  // of the thread that speaks MPI
thread_local bool speaks_mpi = false;

extern "C" void catch_signal(int number) {
  int none = 0;
  if (caught.compare_exchange_strong(none, number)) return;
  std::signal(number, SIG_DFL);
  std::raise(number);
}

bool is_time() {
  using Clock = std::chrono::steady_clock;
  static Clock::time_point last{};
  const Clock::time_point now = Clock::now();
  if (now - last < std::chrono::milliseconds(5)) return false;
  last = now;
  return true;
}

void catch_all(struct sigaction* before) {
  struct sigaction how {};
  how.sa_handler = catch_signal;
  how.sa_flags = SA_RESTART;  // reads and writes go on
  for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &how, before ? before + i : nullptr);
}

}  // namespace

void hold_stop_signals() {
  catch_all(nullptr);
}

int stop_signal() {
  if (!listening.load(std::memory_order_relaxed)) return 0;
  if (speaks_mpi && current && is_time()) current->exchange();
  const int own = caught.load(std::memory_order_relaxed);
  return own ? own : told.load(std::memory_order_relaxed);
}

void stop_if_asked() {
  if (const int signal = stop_signal()) throw Error(Exit::stopped, stopped_by(signal));
}

void note_stop(int signal) {
  int none = 0;
  told.compare_exchange_strong(none, signal);
}

std::string stopped_by(int signal) {
  switch (signal) {
    case SIGTERM:
      return "stopped by SIGTERM";
    case SIGINT:
      return "stopped by SIGINT";
    case SIGUSR1:
      return "stopped by SIGUSR1";
    case SIGUSR2:
      return "stopped by SIGUSR2";
    default:
      return "stopped";
  }
}

StopSignals::StopSignals(const Comm& comm) : notice_(comm) {
  require(current == nullptr, "one run at a time listens to signals");
  told = 0;
  speaks_mpi = true;
  current = this;
  catch_all(before_);
  listening = true;
}

StopSignals::~StopSignals() {
  listening = false;
  current = nullptr;
  for (std::size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  caught = 0;
}

void StopSignals::close() {
  listening = false;
  current = nullptr;
  notice_.settle();
}

void StopSignals::exchange() {
  const int own = caught.load(std::memory_order_relaxed);
  if (own && !posted_) {
    notice_.post(own);
    posted_ = true;
  }
  if (const int other = notice_.seen()) note_stop(other);
}

}  // namespace seine
