// `seine inspect`: what is in a pool, and what is wrong with it.
#include "cli/command.hpp"
#include "cli/pool_options.hpp"
#include "cli/resources.hpp"
#include "seine/inspection.hpp"

namespace seine {
namespace {

class Inspect : public Command {
 public:
  void declare(Options& options) override {
    options.group("Output");
    options.flag("json", json_, "as JSON");
    declare_pool(options, pool_);
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    take_resources(pool_, comm, terminal);  // a device that cannot be used is an error here too
    const Inspection inspection = inspect(pool_, comm, terminal.console());
    return {json_ ? inspection.to_json() : inspection.to_text(), inspection.faults,
            inspection.faults.empty() ? Exit::done : Exit::bad_data};
  }

 private:
  PoolRequest pool_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_inspect() {
  return std::make_unique<Inspect>();
}

}  // namespace seine
