// `seine score`: an acquisition score for every row of the pool.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "cli/command.hpp"
#include "cli/pool_options.hpp"
#include "cli/resources.hpp"
#include "seine/pool_paths.hpp"
#include "seine/run.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

std::string scoring_strategies() {
  std::vector<std::string_view> names;
  for (const Entry& entry : strategies())
    if (entry.score) names.push_back(entry.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

void check_keys(const Entry& entry, const std::map<std::string, std::string>& set) {
  std::vector<std::string_view> known;
  for (const Parameter& parameter : entry.parameters) known.push_back(parameter.name);
  for (const auto& [key, value] : set)
    if (std::find(known.begin(), known.end(), key) == known.end())
      throw Error(Exit::usage, fmt::format("--set: {} has no parameter \"{}\"; known are: {}", entry.name, key,
                                           known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
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
    check_keys(entry, request_.set);
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    const auto backend = take_resources(request_.pool, comm, terminal);
    write_scores(request_, comm, *backend, terminal.console());
    return {comm.is_root() ? written_files() : ""};
  }

 private:
  // A line for each.
  std::string written_files() const {
    std::string text;
    for (const std::filesystem::path path : expand_pool_paths(request_.pool.pool))
      text += (request_.out / path.filename()).string() + "\n";
    return text;
  }

  ScoreRequest request_;
};

}  // namespace

std::unique_ptr<Command> make_score() {
  return std::make_unique<Score>();
}

}  // namespace seine
