// `seine select`: the main job, pool in, batch out.
#include <fmt/format.h>

#include <cmath>

#include "cli/command.hpp"
#include "cli/pool_options.hpp"
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
  void declare(Options& options) override {
    options.required();
    options.text("strategy", "NAME", request_.strategy, "see seine strategies");
    options.number("batch", "B", request_.batch, at_least(1), "how many rows");
    options.text("out", "FILE", request_.out, ".h5, .csv or .json, by ending; written whole or not at all");

    options.group("Selection");
    options.pairs("set", request_.set, "a parameter of the strategy; repeatable");
    options.choice("normalize", "none|l2", request_.normalize, {Normalize::none, Normalize::l2},
                   "embeddings as given, or of length 1 [each strategy's]");
    options.text("score", "NAME", request_.score,
                 "a score that steers a diversity strategy, by --keep\nor --score-power");
    options.number("keep", "F", request_.keep, any_number(), "only the F * B best candidates by the score take part");
    options.number("score-power", "P", request_.score_power, any_number(), "row weight = score^P");
    options.choice("reduce", "exact|merge", request_.reduce, {Reduce::exact, Reduce::merge},
                   "how partial results combine");
    options.number("partitions", "P", request_.partitions, at_least(1), "of merge: parts of the pool");
    options.number("fan-in", "F", request_.fan_in, at_least(2), "of merge: children per node");
    options.number("seed", "S", request_.seed, at_least(0), "64 bits");
    options.choice("certificate", "auto|full|off", request_.certificate,
                   {CertificateMode::automatic, CertificateMode::full, CertificateMode::off},
                   "auto: what is dear is measured on a sample");

    declare_pool(options, request_.pool);

    options.group("Not yet in this version");
    options.text("checkpoint", "FILE", checkpoint_, "resume from it, write it while running");
    options.number("checkpoint-every", "SECONDS", checkpoint_seconds_, at_least(1), "how often");
    options.flag("restart", restart_, "discard the checkpoint");
  }

  void check(const Options& options) const override {
    for (const char* name : {"checkpoint", "checkpoint-every", "restart"})
      if (options.given(name))
        throw Error(Exit::usage, fmt::format("--{}: not yet; it comes with a later version", name));
    // A power of 0 is the request's default, so only the command line knows that it was asked for.
    if (options.given("score-power") && !request_.score) throw Error(Exit::usage, "--score-power needs --score");
    check_request(request_);
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    const auto backend = take_resources(request_.pool, comm, terminal);
    const Batch batch = select_and_write(request_, comm, *backend, terminal.console());
    const Certificate& certificate = batch.certificate;
    return {fmt::format("{} rows={} digest={} kind={} value={} bound={} ratio={}\n", request_.out,
                        batch.selection.rows.size(), batch.digest, certificate.kind, number(certificate.value),
                        number(certificate.bound), number(certificate.ratio))};
  }

 private:
  Request request_;
  std::string checkpoint_;
  std::int64_t checkpoint_seconds_ = 300;
  bool restart_ = false;
};

}  // namespace

std::unique_ptr<Command> make_select() {
  return std::make_unique<Select>();
}

}  // namespace seine
