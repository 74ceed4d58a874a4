// `seine select`: the main job, pool in, batch out.
#include <fmt/format.h>

#include <cmath>

#include "cli/command.hpp"
#include "cli/request_options.hpp"
#include "cli/resources.hpp"
#include "seine/run.hpp"

namespace seine {
namespace {

// Shortest text that reads back as the same number; NaN without a sign.
std::string number(double value) {
  return std::isnan(value) ? "nan" : fmt::to_string(value);
}

class Select : public Command {
 public:
  void declare(Options& options) override { options_.declare(options, true); }
  void check(const Options& options) const override { options_.check(options); }

  bool holds_signals() const override { return !options_.request.checkpoint.empty(); }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    Request& request = options_.request;
    const auto backend = take_resources(request.pool, comm, terminal);
    const auto link = link_devices(comm, *backend, terminal);
    const Batch batch = select_and_write(request, comm, *backend, terminal.console());
    const Certificate& certificate = batch.certificate;
    return {fmt::format("{} rows={} digest={} kind={} value={} bound={} ratio={}\n", request.out,
                        batch.selection.rows.size(), batch.digest, certificate.kind, number(certificate.value),
                        number(certificate.bound), number(certificate.ratio))};
  }

 private:
  RequestOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_select() {
  return std::make_unique<Select>();
}

}  // namespace seine
