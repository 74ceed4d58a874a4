// Errors that a user sees: one sentence and an exit code (sysexits; README, "Exit codes").
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>

namespace seine {

enum class Exit : int {
  done = 0,
  usage = 64,
  bad_data = 65,
  no_input = 66,
  no_device = 69,
  bug = 70,
  system = 71,
  cannot_create = 73,
  io = 74,
  stopped = 75,
};

// The caller's mistake, bad input or a failing system. The text is one line that names file, dataset and row where
// there are any, what was expected and what was found.
class Error : public std::runtime_error {
 public:
  Error(Exit code, const std::string& text) : std::runtime_error(text), code_(code) {}
  Exit code() const { return code_; }

 private:
  Exit code_;
};

// An error that `ranks` ranks throw together, by Comm::agree: none of them waits for another.
class AgreedError : public Error {
 public:
  AgreedError(const Error& error, int ranks) : Error(error), ranks_(ranks) {}
  int ranks() const { return ranks_; }

 private:
  int ranks_;
};

// A broken invariant of our own: exit code 70, with the place in the source.
void require(bool holds, std::string_view invariant, std::source_location at = std::source_location::current());

}  // namespace seine
