#include "cli/commands.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <string_view>

#include "cli/version.hpp"

namespace seine {
namespace {

struct Row {
  const char* name;
  const char* summary;
  std::unique_ptr<Command> (*make)();
  const char* examples;
};

constexpr std::array kCommands{
    Row{"select", "Select a batch of rows to label from a pool.", make_select,
        R"(Examples:
  seine select --pool pool.h5 --strategy entropy --batch 100 --out batch.csv
  mpirun -n 4 seine select --pool 'pool/part-*.h5' --labelled labelled.csv \
      --strategy badge --batch 1000 --seed 7 --out batch.h5
  mpirun -n 4 seine select --pool 'pool/part-*.h5' --strategy k_center --set first=random \
      --score entropy --keep 10 --batch 500 --out batch.h5
  srun --mpi=pmix seine select --config request.toml --reduce merge --out batch.h5)"},
    Row{"score", "Write an acquisition score for every row of a pool.", make_score,
        R"(Examples:
  seine score --pool pool.h5 --strategy margin --out scores
  mpirun -n 4 seine score --pool 'pool/part-*.h5' --strategy bald --out scores)"},
    Row{"evaluate", "Judge batches against a pool, beside random batches of the same size.", make_evaluate,
        R"(Examples:
  seine evaluate --pool pool.h5 --picked batch.h5
  mpirun -n 4 seine evaluate --pool 'pool/part-*.h5' --labelled labelled.csv \
      --picked ours.h5 theirs.csv --random 20 --out judged.csv)"},
    Row{"inspect", "Read a whole pool, check it, and print what is in it.", make_inspect,
        R"(Examples:
  seine inspect --pool pool.h5
  mpirun -n 4 seine inspect --pool 'pool/part-*.h5' --json > pool.json)"},
    Row{"strategies", "List the strategies, or all about one of them.", make_strategies,
        R"(Examples:
  seine strategies
  seine strategies k_center
  seine strategies --json)"},
    Row{"synth", "Write a seeded synthetic pool in shards.", make_synth,
        R"(Examples:
  seine synth --rows 100000 --dim 64 --classes 10 --shards 4 --out pool
  mpirun -n 4 seine synth --rows 10000000 --dim 128 --passes 5 --dtype f16 --ids string \
      --labelled 0.01 --shards 64 --seed 3 --out pool)"},
    Row{"plan", "Predict memory, time and bytes of a request, as a job script for Slurm.", make_plan,
        R"(Examples:
  seine plan --pool 'pool/part-*.h5' --strategy badge --batch 1000 --ranks 4 > job.sbatch
  seine plan --rows 100000000 --dim 768 --strategy k_center --batch 10000 --ranks 64 --memory 4
  srun --mpi=pmix -n 1 seine plan --calibrate --config request.toml    # once, on a node as the jobs use
  seine plan --config request.toml --ranks 16 --json)"},
};

void declare_log(Options& options, LogOptions& log) {
  options.group("Log");
  options.word("log-level", "trace|debug|info|warn|error|off", log.level, "what is written to standard error");
  options.flag("quiet", log.quiet, "errors only, and no progress line");
  options.word("progress", "auto|always|never", log.progress, "auto: when standard error is a terminal");
}

const Row& find(const std::string& name) {
  const auto row =
      std::find_if(kCommands.begin(), kCommands.end(), [&](const Row& known) { return known.name == name; });
  if (row != kCommands.end()) return *row;
  std::vector<std::string_view> names;
  for (const Row& known : kCommands) names.emplace_back(known.name);
  throw Error(Exit::usage, fmt::format("unknown command \"{}\"; known are {}", name, fmt::join(names, ", ")));
}

}  // namespace

Outcome Command::run(const Comm&, Terminal&) {
  return {};
}

Invocation understand(const std::vector<std::string>& arguments) {
  if (arguments.empty()) throw Error(Exit::usage, "no command");
  const std::string& first = arguments.front();
  if (first == "--help" || first == "-h") return {program_help(), nullptr, {}};
  if (first == "--version") return {version_text(), nullptr, {}};

  const Row& row = find(first);
  Invocation invocation{std::nullopt, row.make(), {}};
  Options options(fmt::format("seine {}", row.name), row.summary, row.examples);
  invocation.command->declare(options);
  declare_log(options, invocation.log);
  if (!options.parse({arguments.begin() + 1, arguments.end()})) return {options.help(), nullptr, {}};
  invocation.command->check(options);
  invocation.answer = invocation.command->answer();
  return invocation;
}

std::string program_help() {
  std::string text =
      "seine: exact, deterministic batch active learning over pools too large for one process.\n"
      "Usage: seine COMMAND [OPTIONS], alone or under mpirun or srun\n\nCommands:\n";
  for (const Row& row : kCommands) text += fmt::format("  {:<12}{}\n", row.name, row.summary);
  return text + R"(
Options:
  --version   version, build flags, and the versions of HDF5, MPI and CUDA
  --help      this; seine COMMAND --help: the options of a command

Examples:
  seine synth --rows 10000 --out pool
  mpirun -n 2 seine select --pool 'pool/*.h5' --strategy k_center --batch 100 --out batch.h5
  seine evaluate --pool 'pool/*.h5' --picked batch.h5

Exit codes:
  0 done, 64 wrong usage, 65 bad data, 66 no such input, 69 device not usable, 70 internal error,
  71 out of memory or system limit, 73 output cannot be written, 74 input/output error,
  75 stopped by a signal with the checkpoint saved: the same command goes on
)";
}

}  // namespace seine
