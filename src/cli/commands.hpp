// The table of commands, and what a command line asks for.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.hpp"

namespace seine {

struct Invocation {
  std::optional<std::string> answer;  // to be printed, and nothing else to be done: --help, --version, `strategies`
  std::unique_ptr<Command> command;   // else: to be run
  LogOptions log;
};

// Errors: 64 wrong usage, 66 no such configuration file. Without MPI, and the same on every rank.
Invocation understand(const std::vector<std::string>& arguments);

// `seine --help`.
std::string program_help();

}  // namespace seine
