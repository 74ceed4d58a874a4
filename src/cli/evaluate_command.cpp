// `seine evaluate`: judges batches, ours or another tool's.
#include "overwrite.hpp"
#include "seine/evaluation.hpp"

#include "atomic_file.hpp"
#include "cli/command.hpp"
#include "cli/pool_options.hpp"
#include "cli/resources.hpp"
#include "seine/batch_file.hpp"

namespace seine {
namespace {

class Evaluate : public Command {
 public:
  void declare(Options& options) override {
    options.required();
    options.list("picked", "FILE...", request_.picked, "batch files or id lists");

    options.group("Evaluation");
    options.number("random", "R", request_.random, at_least(0), "how many random batches to compare with");
    options.number("seed", "S", request_.seed, at_least(0), "of the random batches: S+1 to S+R");
    options.number("sample", "ROWS", request_.sample, at_least(1), "measure over so many rows only [all]");
    options.choice("normalize", "none|l2", request_.normalize, {Normalize::none, Normalize::l2},
                   "embeddings as given, or of length 1 [none]");
    options.text("out", "FILE", request_.out, "the table as .json or .csv, by ending");

    declare_pool(options, request_.pool);
  }

  void check(const Options& options) const override {
    if (options.given("out") && !is_json() && !request_.out.ends_with(".csv"))
      throw Error(Exit::usage, "--out: expected an ending .json or .csv, found \"" + request_.out + "\"");
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    comm.agree([&] {
      if (!comm.is_root() || request_.out.empty()) return;
      refuse_to_overwrite("--out", request_.out, input_paths(request_.pool));
      refuse_to_overwrite("--out", request_.out, request_.picked);
      AtomicFile(request_.out).write_text("");
    });
    const auto backend = take_resources(request_.pool, comm, terminal);
    const Evaluation evaluation = evaluate(request_, comm, *backend, terminal.console());
    comm.agree([&] {
      if (!comm.is_root() || request_.out.empty()) return;
      AtomicFile file(request_.out);
      file.write_text(is_json() ? evaluation.to_json() : evaluation.to_csv());
      file.commit();
    });
    return {evaluation.to_table()};
  }

 private:
  bool is_json() const { return request_.out.ends_with(".json"); }

  EvaluationRequest request_;
};

}  // namespace

std::unique_ptr<Command> make_evaluate() {
  return std::make_unique<Evaluate>();
}

}  // namespace seine
