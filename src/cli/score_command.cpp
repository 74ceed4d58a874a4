// `seine score`: an acquisition score for every row of the pool.
#include <fmt/format.h>

#include "cli/command.hpp"
#include "cli/pool_options.hpp"
#include "cli/resources.hpp"
#include "seine/score_files.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

std::string scoring_strategies() {
  std::vector<std::string_view> names;
  for (const Entry& entry : strategies())
    if (entry.score) names.push_back(entry.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

class Score : public Command {
 public:
  void declare(Options& options) override {
    options.required();
    options.text("strategy", "NAME", request_.strategy, scoring_strategies());
    options.text("out", "DIR", request_.out, "one file with /score for each file of the pool");

    options.group("Scores");
    options.pairs("set", request_.set, "a parameter of the strategy; repeatable");

    declare_pool(options, request_.pool);
  }

  void check(const Options&) const override {
    const Entry& entry = strategy(request_.strategy);
    if (!entry.score)
      throw Error(Exit::usage,
                  fmt::format("--strategy: {} does not score rows; these do: {}", entry.name, scoring_strategies()));
    check_parameters(entry, request_.set);
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    const auto backend = take_resources(request_.pool, comm, terminal);
    std::string lines;
    for (const std::string& path : write_scores(request_, comm, *backend, terminal.console())) lines += path + "\n";
    return {lines};
  }

 private:
  ScoreRequest request_;
};

}  // namespace

std::unique_ptr<Command> make_score() {
  return std::make_unique<Score>();
}

}  // namespace seine
