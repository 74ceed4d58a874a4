// `seine plan`: comes with a later version.
#include "cli/command.hpp"

namespace seine {
namespace {

class Plan : public Command {
 public:
  void declare(Options& options) override { options.take_anything(); }
  void check(const Options&) const override {
    throw Error(Exit::usage, "plan: not yet; it comes with a later version");
  }
};

}  // namespace

std::unique_ptr<Command> make_plan() {
  return std::make_unique<Plan>();
}

}  // namespace seine
