// `seine synth`: a synthetic pool.
#include <fmt/format.h>

#include "cli/command.hpp"
#include "seine/synthesis.hpp"

namespace seine {
namespace {

class Synth : public Command {
 public:
  void declare(Options& options) override {
    options.required();
    options.text("out", "DIR", request_.out, "part-00000.h5 and so on");

    options.group("Pool");
    options.number("rows", "N", request_.rows, at_least(1), "in all shards together");
    options.number("dim", "D", request_.dim, at_least(1), "of the embeddings");
    options.number("classes", "C", request_.classes, at_least(2), "of the probabilities");
    options.number("passes", "T", request_.passes, at_least(0), "stochastic passes; 0: probabilities [N,C]");
    options.number("clusters", "K", request_.clusters, at_least(1), "Gaussian clusters");
    options.number("spread", "S", request_.spread, at_least(0), "of a cluster, in distances between centres");
    options.number("labelled", "SHARE", request_.labelled, between(0, 1), "share of rows with a label");
    options.word("dtype", "f16|f32|f64", request_.dtype, "of the embeddings");
    options.word("ids", "none|int|string", request_.ids, "type of the ids");
    options.number("shards", "S", request_.shards, between(1, 100000), "number of files");
    options.number("seed", "S", request_.seed, at_least(0), "64 bits");
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    synthesise(request_, comm, terminal.console());
    return {fmt::format("{} files={} rows={}\n", request_.out, request_.shards, request_.rows)};
  }

 private:
  SynthesisRequest request_;
};

}  // namespace

std::unique_ptr<Command> make_synth() {
  return std::make_unique<Synth>();
}

}  // namespace seine
