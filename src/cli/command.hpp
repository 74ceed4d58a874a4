// One command of the program, e.g. `seine select`.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.hpp"
#include "cli/terminal.hpp"
#include "seine/comm.hpp"
#include "seine/error.hpp"

namespace seine {

// What a command ends with: text for standard output, faults (one error line each), exit code.
struct Outcome {
  std::string text;
  std::vector<std::string> faults = {};
  Exit code = Exit::done;
};

class Command {
 public:
  virtual ~Command() = default;

  // One line per option.
  virtual void declare(Options& options) = 0;
  // Wrong usage that no single option shows; error 64. Before MPI is up; touches no file.
  virtual void check(const Options&) const {}
  // The result of a command that needs neither a pool nor other ranks; run() is not called then.
  virtual std::optional<std::string> answer() const { return std::nullopt; }
  // Whether signals that come before run() are for it: it keeps a checkpoint.
  virtual bool holds_signals() const { return false; }
  // Collective. The same outcome on every rank.
  virtual Outcome run(const Comm& comm, Terminal& terminal);
};

std::unique_ptr<Command> make_select();
std::unique_ptr<Command> make_score();
std::unique_ptr<Command> make_evaluate();
std::unique_ptr<Command> make_inspect();
std::unique_ptr<Command> make_strategies();
std::unique_ptr<Command> make_synth();
std::unique_ptr<Command> make_plan();

}  // namespace seine
