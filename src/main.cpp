// The only place that ends the program: parse, start MPI, run the command, exit with its code.
//
// Every rank ends with the same code and the user reads one message. That is simple for an error that all ranks have:
// one of the command line, before MPI is up, or one that they agreed on (Comm::agree). A rank that fails alone while
// the others wait for it in a collective call cannot tell them, so it prints the message and ends them.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "cli/commands.hpp"
#include "cli/launcher.hpp"
#include "cli/resources.hpp"
#include "cli/terminal.hpp"
#include "seine/comm.hpp"
#include "seine/error.hpp"
#include "seine/stop.hpp"

namespace {

using namespace seine;
using std::chrono::milliseconds;

// A launcher may kill the job as soon as one rank has ended with an error: rank 0, which prints it, must be first.
int end_before_mpi(const Error& error) {
  if (launcher_rank() == 0)
    print_error(error.what());
  else
    std::this_thread::sleep_for(milliseconds(300));
  return static_cast<int>(error.code());
}

[[noreturn]] void end_all(const Comm& comm, const Error& error) {
  // Where several ranks got here, the lowest speaks, and it ends the others before they do.
  std::this_thread::sleep_for(milliseconds(std::min(100 * comm.rank(), 2000)));
  print_error((comm.is_root() ? "" : "rank " + std::to_string(comm.rank()) + ": ") + error.what());
  abort_all(error.code());
}

Exit run(Invocation& invocation, const Comm& comm) {
  Terminal terminal(invocation.log, comm.is_root());
  const Outcome outcome = invocation.command->run(comm, terminal);
  terminal.clear_progress();
  comm.agree([&] {
    if (!comm.is_root()) return;
    print_results(outcome.text);
    for (const std::string& fault : outcome.faults) print_error(fault);
  });
  return outcome.code;
}

int run_with_mpi(Invocation& invocation, int argc, char** argv) {
  const MpiSession mpi(&argc, &argv);
  const Comm comm = Comm::world();
  try {
    return static_cast<int>(run(invocation, comm));
  } catch (const AgreedError& error) {
    if (error.ranks() != comm.size()) end_all(comm, error);
    if (comm.is_root()) print_error(error.what());
    return static_cast<int>(error.code());
  } catch (...) {
    const Error error = current_error();
    if (comm.size() > 1) end_all(comm, error);
    print_error(error.what());
    return static_cast<int>(error.code());
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file above the limit of its size is an error of its writing, not our end
  try {
    check_processor();
    if (argc == 1 && launcher_rank() == 0) std::fputs((program_help() + "\n").c_str(), stderr);
    Invocation invocation = understand({argv + 1, argv + argc});
    if (!invocation.answer) {
      if (invocation.command->holds_signals()) hold_stop_signals();
      check_launcher_room();
      return run_with_mpi(invocation, argc, argv);
    }
    if (launcher_rank() == 0) print_results(*invocation.answer);
    return 0;
  } catch (...) {
    return end_before_mpi(current_error());
  }
}
