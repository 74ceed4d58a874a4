// Signals that ask a run to stop, and how that becomes the wish of all ranks.
//
// A handler sets a flag and nothing else. A rank that sees its flag tells the others, so that all of them cut long work
// short; then the next collective call of Comm throws Exit::stopped on every rank together. What was cut short has no
// result, so whatever is kept for later is kept after a collective call that has returned.
#pragma once

#include <csignal>
#include <string>

#include "seine/comm.hpp"

namespace seine {

// The signal that was seen first, here or on another rank; 0: go on. From any thread, and cheap enough to ask for every
// tile of a loop.
int stop_signal();
// Ends rank-local work inside Comm::agree, by Exit::stopped, where a signal asks for it.
void stop_if_asked();
void note_stop(int signal);          // another rank has seen it
std::string stopped_by(int signal);  // "stopped by SIGTERM"

// From now on a first signal of those below waits until a StopSignals lives, for a process that is only starting.
void hold_stop_signals();

// While it lives, SIGTERM, SIGINT, SIGUSR1 and SIGUSR2 ask the job to stop, and a second one ends the process as it
// would have. One at a time, in the thread that initialised MPI.
class StopSignals {
 public:
  explicit StopSignals(const Comm& comm);  // collective
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // Collective. Nobody stops any more: what follows is short, and must be done.
  void close();

  // Of this rank: posts what it has seen, and looks for what others have posted.
  void exchange();

 private:
  Notice notice_;
  bool posted_ = false;
  struct sigaction before_[4];
};

}  // namespace seine
