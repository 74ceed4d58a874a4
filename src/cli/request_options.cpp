#include "cli/request_options.hpp"

#include <fmt/format.h>

#include "cli/pool_options.hpp"
#include "seine/error.hpp"
#include "seine/run.hpp"

namespace seine {

void RequestOptions::declare(Options& options, bool runs) {
  options.required();
  options.text("strategy", "NAME", request.strategy, "see seine strategies");
  options.number("batch", "B", request.batch, at_least(1), "how many rows");
  if (!runs) options.group("Selection");
  options.text("out", "FILE", request.out, ".h5, .csv or .json, by ending; written whole or not at all");

  options.group("Selection");
  options.flag("force", request.force, "--out may replace what is there, also another batch or file");
  options.pairs("set", request.set, "a parameter of the strategy; repeatable");
  options.choice("normalize", "none|l2", request.normalize, {Normalize::none, Normalize::l2},
                 "embeddings as given, or of length 1 [each strategy's]");
  options.text("score", "NAME", request.score, "a score that steers a diversity strategy, by --keep\nor --score-power");
  options.number("keep", "F", request.keep, any_number(), "only the F * B best candidates by the score take part");
  options.number("score-power", "P", request.score_power, any_number(), "row weight = score^P");
  options.choice("reduce", "exact|merge", request.reduce, {Reduce::exact, Reduce::merge},
                 "how partial results combine");
  options.number("partitions", "P", request.partitions, at_least(1), "of merge: parts of the pool");
  options.number("fan-in", "F", request.fan_in, at_least(2), "of merge: children per node");
  options.number("seed", "S", request.seed, at_least(0), "64 bits");
  options.choice("certificate", "auto|full|off", request.certificate,
                 {CertificateMode::automatic, CertificateMode::full, CertificateMode::off},
                 "auto: what is dear is measured on a sample");

  declare_pool(options, request.pool, runs);

  options.group("Long runs");
  options.text("checkpoint", "FILE", request.checkpoint,
               "go on from it where it is there; written while running and\nwhen a signal stops the run; removed after "
               "success");
  options.number("checkpoint-every", "SECONDS", request.checkpoint_seconds, above(0), "how often it is written");
  options.flag("restart", request.restart, "discard the checkpoint");
}

void RequestOptions::check(const Options& options) const {
  for (const char* name : {"checkpoint-every", "restart"})
    if (options.given(name) && request.checkpoint.empty())
      throw Error(Exit::usage, fmt::format("--{} needs --checkpoint", name));
  // A power of 0 is the request's default, so only the command line knows that it was asked for.
  if (options.given("score-power") && !request.score) throw Error(Exit::usage, "--score-power needs --score");
  check_request(request);
}

}  // namespace seine
