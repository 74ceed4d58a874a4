// The command line from outside: runs the real executable (environment variable SEINE_BIN) and looks at its exit code,
// its standard output and its standard error. Nothing here needs a pool.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "launching.hpp"

namespace seine::test {
namespace {

// Alone, without mpirun.
Ended run(const Words& arguments, const Words& variables = {}) {
  constexpr double kMostSeconds = 100;
  Words words{std::getenv("SEINE_BIN")};
  append(words, arguments);
  return Launched(words, variables).wait(kMostSeconds);
}

// The path of a new file.
std::string written(const Folder& folder, const std::string& name, const std::string& text) {
  write_text(folder / name, text);
  return folder / name;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Nothing on standard output, one error line that contains `part`, this code.
void expect_error(const Words& arguments, int code, const std::string& part) {
  const Ended ended = run(arguments);
  std::string shown;
  for (const std::string& word : arguments) shown += word + " ";
  SCOPED_TRACE(shown + "\n" + ended.err);
  EXPECT_EQ(ended.code, code);
  EXPECT_EQ(ended.out, "");
  const Words errors = ended.error_lines();
  ASSERT_EQ(errors.size(), 1u);
  EXPECT_TRUE(has(errors[0], part)) << part;
}

// A complete `select` on a pool that is not there, with further words.
Words select(const Words& more = {}, const std::string& strategy = "k_center") {
  Words words{"select", "--strategy", strategy, "--out", "/tmp/seine_cli_test.h5", "--pool", "/none/pool.h5"};
  append(words, more);
  return words;
}
Words select_10(const Words& more = {}, const std::string& strategy = "k_center") {
  Words words = select({"--batch", "10"}, strategy);
  append(words, more);
  return words;
}

const Words kCommands{"select", "score", "evaluate", "inspect", "strategies", "synth", "plan"};

TEST(Help, EveryCommandHasIt) {
  for (const std::string& command : kCommands) {
    const Ended ended = run({command, "--help"});
    SCOPED_TRACE(command);
    EXPECT_EQ(ended.code, 0);
    EXPECT_EQ(ended.err, "");
    for (const char* part : {"Usage: seine ", "Examples:", "--log-level", "--quiet", "--progress", "--config"})
      EXPECT_TRUE(has(ended.out, part)) << part;
    EXPECT_TRUE(has(ended.out, "seine " + command));
    EXPECT_FALSE(has(ended.out, "checked"));
  }
}

TEST(Help, TheProgramNamesEveryCommand) {
  const Ended ended = run({"--help"});
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(ended.err, "");
  for (const std::string& command : kCommands) EXPECT_TRUE(has(ended.out, "\n  " + command + " ")) << command;
}

TEST(Help, WithoutACommandItGoesToStandardError) {
  const Ended ended = run({});
  EXPECT_EQ(ended.code, 64);
  EXPECT_EQ(ended.out, "");
  EXPECT_TRUE(has(ended.err, "Usage: seine COMMAND"));
  EXPECT_EQ(ended.error_lines().size(), 1u);
}

TEST(Version, NamesTheBuildAndItsLibraries) {
  const Ended ended = run({"--version"});
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(ended.err, "");
  EXPECT_TRUE(ended.out.starts_with("seine "));
  for (const char* part : {"build: ", "x86-64-v3", "HDF5: ", "MPI: ", "CUDA: "})
    EXPECT_TRUE(has(ended.out, part)) << part;
}

TEST(OtherRanks, AreSilentBeforeMpi) {
  for (const char* rank : {"OMPI_COMM_WORLD_RANK=1", "PMIX_RANK=2", "PMI_RANK=1", "SLURM_PROCID=3"}) {
    SCOPED_TRACE(rank);
    const Ended help = run({"--help"}, {rank}), wrong = run({"bogus"}, {rank});
    EXPECT_EQ(help.code, 0);
    EXPECT_EQ(help.out + help.err, "");
    EXPECT_EQ(wrong.code, 64);
    EXPECT_EQ(wrong.out + wrong.err, "");
  }
}

TEST(WrongUsage, IsOneLineAnd64) {
  expect_error({"bogus"}, 64, "bogus");
  expect_error({"--quiet", "select"}, 64, "--quiet");
  expect_error({"select"}, 64, "is required");
  expect_error(select(), 64, "--batch is required");
  expect_error({"inspect"}, 64, "--pool is required");
  expect_error({"evaluate", "--pool", "x.h5"}, 64, "--picked is required");
  expect_error({"synth"}, 64, "--out is required");
  expect_error(select_10({"--nope"}), 64, "--nope");
  expect_error(select_10({"--rows", "5"}), 64, "--rows");  // another command's
  expect_error(select_10({"extra\nline"}), 64, "unexpected");
  expect_error(select({"--batch"}), 64, "--batch: the value is missing");
  expect_error(select_10({"--score", ""}), 64, "--score: the value is empty");
  expect_error(select_10({"--quiet=maybe"}), 64, "--quiet: expected no value, or true or false");
  expect_error(select_10({}, "bogus"), 64, "bogus");
  expect_error(select_10({"--set", "bogus=1"}), 64, "first");  // lists the known keys
  expect_error(select_10({"--set", "first"}), 64, "KEY=VALUE");
  expect_error(select_10({"--set", "=random"}), 64, "KEY=VALUE");
  expect_error(select_10({"--set", "first=random", "--set", "first=random"}), 64, "twice");
  expect_error({"score", "--pool", "x.h5", "--strategy", "k_center", "--out", "d"}, 64, "entropy");
  expect_error({"score", "--pool", "x.h5", "--strategy", "entropy", "--out", "d", "--set", "a=1"}, 64,
               "strategy entropy: unknown parameter \"a\"; known: none");
  expect_error({"evaluate", "--pool", "x.h5", "--picked", "y", "--out", "z.h5"}, 64, ".csv");
  expect_error({"strategies", "bogus"}, 64, "k_center");
  expect_error({"strategies", "random", "badge"}, 64, "badge");
}

TEST(WrongUsage, OptionsThatContradict) {
  expect_error(select_10({"--score", "entropy"}), 64, "--score");
  expect_error(select_10({"--score-power", "1"}), 64, "--score");
  expect_error(select_10({"--score-power", "0"}), 64, "--score");
  expect_error(select_10({"--keep", "2"}), 64, "--score");
  expect_error(select_10({"--score", "entropy", "--keep", "0.5"}), 64, "keep");
  expect_error(select_10({"--score", "entropy", "--score-power", "1"}, "log_det"), 64, "log_det");
}

TEST(WrongUsage, AnOptionGivenTwice) {
  expect_error(select_10({"--batch", "10"}), 64, "--batch is given twice");
  expect_error(select_10({"--strict-ids", "--strict-ids"}), 64, "--strict-ids is given twice");
  expect_error(select_10({"--config", "a.toml", "--config", "b.toml"}), 64, "--config is given twice");
}

TEST(WrongUsage, NumbersAreReadStrictly) {
  for (const char* number :
       {"", " 10", "10 ", "10x", "1e3", "1.0", "0x10", "+5", "0", "-1", "nan", "9223372036854775808"})
    expect_error(select({"--batch", number}), 64, "--batch");
  for (const char* number : {"", "-1", "1.5", "x", "18446744073709551616"})
    expect_error(select_10({"--seed", number}), 64, "--seed");
  for (const char* number : {"", "nan", "inf", "2,5", "1e999"}) {
    expect_error(select_10({"--score", "entropy", "--keep", number}), 64, "--keep");
    expect_error(select_10({"--score", "entropy", "--score-power", number}), 64, "--score-power");
  }
  for (const char* number : {"0", "-1", "nan", "x"}) expect_error(select_10({"--memory", number}), 64, "--memory");
  for (const char* number : {"0", "-2", "1.5", "4294967297"})
    expect_error(select_10({"--threads", number}), 64, "--threads");
  expect_error(select_10({"--partitions", "0"}), 64, "--partitions");
  expect_error(select_10({"--fan-in", "1"}), 64, "--fan-in");
  expect_error({"synth", "--out", "d", "--labelled", "1.5"}, 64, "--labelled");
  expect_error({"evaluate", "--pool", "x", "--picked", "y", "--random", "-1"}, 64, "--random");
}

TEST(WrongUsage, WordsAreKnownOnes) {
  expect_error(select_10({"--device", "gpu"}), 64, "cuda");
  expect_error(select_10({"--reduce", "sum"}), 64, "merge");
  expect_error(select_10({"--normalize", "l1"}), 64, "l2");
  expect_error(select_10({"--certificate", "on"}), 64, "full");
  expect_error(select_10({"--log-level", "loud"}), 64, "debug");
  expect_error(select_10({"--progress", "yes"}), 64, "never");
  expect_error({"synth", "--out", "d", "--dtype", "f8"}, 64, "f16");
  expect_error({"synth", "--out", "d", "--ids", "uuid"}, 64, "string");
}

TEST(WrongUsage, CheckpointOptions) {
  expect_error(select_10({"--checkpoint", "c", "--checkpoint-every", "0"}), 64, "--checkpoint-every");
  expect_error(select_10({"--checkpoint-every", "60"}), 64, "needs --checkpoint");
  expect_error(select_10({"--restart"}), 64, "needs --checkpoint");
}

// What goes on to the pool ends there: the request itself was right.
TEST(Request, IsTakenWhenItIsRight) {
  for (const Words& more : {Words{"--seed", "18446744073709551615"}, Words{"--set", "first=random"}, Words{"--quiet"},
                            Words{"--score", "entropy", "--score-power", "0.5"}, Words{"--log-level", "off"},
                            Words{"--score", "entropy", "--keep", "1e1"}, Words{"--pool", "/none/plan", "/none/b.h5"},
                            Words{"--reduce=merge", "--partitions=4", "--fan-in=2"}, Words{"--device", "checked"}})
    expect_error(select_10(more), 66, "/none/");
}

TEST(Config, GivesOptionsAndTheCommandLineWins) {
  const Folder folder;
  const std::string config = written(folder, "ok.toml", R"(
pool = ["/none/from_config.h5"]
strategy = "k_center"
batch = 0            # wrong on purpose: the command line mends it
out = "/tmp/seine_cli_test.h5"
score = "entropy"
score_power = 2
seed = "18446744073709551615"
strict-ids = true
labelled = []
[set]
first = "bogus"
)");
  expect_error({"select", "--config", config}, 64, "--batch");
  expect_error({"select", "--config", config, "--batch", "5"}, 64, "bogus");
  expect_error({"select", "--config", config, "--batch", "5", "--set", "first=random"}, 66, "/none/from_config.h5");
  expect_error({"select", "--config", config, "--batch", "5", "--set", "first=random", "--pool", "/none/other.h5"}, 66,
               "/none/other.h5");
}

TEST(Config, FlagsAreTakenBackByTheCommandLine) {
  const Folder folder;
  const std::string config = written(folder, "json.toml", "json = true\n");
  EXPECT_EQ(run({"strategies", "--config", config}).out, run({"strategies", "--json"}).out);
  EXPECT_EQ(run({"strategies", "--config", config, "--json=false"}).out, run({"strategies"}).out);
  EXPECT_EQ(run({"strategies", "--json=true"}).out, run({"strategies", "--json"}).out);
}

TEST(Config, TakesPairsAsAnArrayToo) {
  const Folder folder;
  const std::string right = written(folder, "right.toml", "set = [\"first=random\"]\nbatch = 3\n");
  const std::string wrong = written(folder, "wrong.toml", "set = [\"first=random\", \"first=max_norm\"]\nbatch = 3\n");
  expect_error(select({"--config", right}), 66, "/none/pool.h5");
  expect_error(select({"--config", wrong}), 64, "twice");
}

TEST(Config, FaultsNameTheKey) {
  const Folder folder;
  const auto expect_fault = [&](const std::string& text, const std::string& part) {
    expect_error(select_10({"--config", written(folder, "bad.toml", text)}), 64, part);
  };
  expect_fault("bathc = 5", "bathc");
  expect_fault("bathc = 5", "batch, ");      // the known ones
  expect_fault("rows = 5", "rows");          // another command's
  expect_fault("config = \"x\"", "config");  // files do not include files
  expect_fault("seed = 1.0", "seed");
  expect_fault("batch = \"5\"", "batch");
  expect_fault("score-power = \"1\"", "score-power");
  expect_fault("device = 3", "device");
  expect_fault("strict-ids = 1", "strict-ids");
  expect_fault("pool = [\"a.h5\", 5]", "pool");
  expect_fault("set = 5", "set");
  expect_fault("[set]\nfirst = [1]", "set");
  expect_fault("[batch]\nsize = 5", "batch");
  expect_fault("score-power = 1\nscore_power = 2", "twice");
  expect_fault("threads = 0", "--threads");
  expect_fault("seed = 1\nthreads = = 2", "bad.toml:2");
  expect_fault("checkpoint-every = 5", "needs --checkpoint");
}

TEST(Config, ThatIsNotThere) {
  const Folder folder;
  expect_error(select_10({"--config", folder / "none.toml"}), 66, "none.toml");
  expect_error(select_10({"--config", folder / ""}), 66, "irectory");
}

TEST(Strategies, Table) {
  const Ended ended = run({"strategies"});
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(ended.err, "");
  for (const char* name : {"random", "entropy", "least_confidence", "margin", "bald", "k_center", "k_means_pp", "badge",
                           "facility_location", "log_det"})
    EXPECT_TRUE(has(ended.out, "\n" + std::string(name) + " ")) << name;
}

TEST(Strategies, One) {
  const Ended text = run({"strategies", "k_center"}), json = run({"strategies", "k_center", "--json"});
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(has(text.out, "first=smallest_row"));
  EXPECT_EQ(json.code, 0);
  for (const char* key : {"name", "summary", "inputs", "parameters", "default", "choices", "meaning", "cost", "source",
                          "certificate", "weights", "score", "normalize"})
    EXPECT_TRUE(has(json.out, "\"" + std::string(key) + "\": ")) << key;
  EXPECT_TRUE(json.out.starts_with("{"));
  const Ended all = run({"strategies", "--json"});
  EXPECT_TRUE(all.out.starts_with("["));
  EXPECT_FALSE(has(all.out, "spec ")) << "a page that users do not have";
}

// A complete `plan` without a pool, with further words.
Words plan(const Words& more = {}) {
  Words words{"plan", "--rows",  "1000000", "--dim",     "256", "--strategy",    "k_center",          "--batch",
              "1000", "--ranks", "4",       "--threads", "2",   "--calibration", "/none/machine.json"};
  append(words, more);
  return words;
}

TEST(Plan, WrongUsage) {
  expect_error({"plan"}, 64, "--strategy is required");
  expect_error({"plan", "--strategy", "random", "--batch", "1"}, 64, "--pool or --rows");
  expect_error({"plan", "--strategy", "badge", "--batch", "1", "--rows", "9", "--dim", "2"}, 64,
               "--classes is required");
  expect_error({"plan", "--strategy", "bald", "--batch", "1", "--rows", "9", "--classes", "2"}, 64, "--passes is");
  expect_error(plan({"--pool", "x.h5"}), 64, "--pool is given");
  expect_error(plan({"--classes", "many"}), 64, "--classes");
  expect_error(plan({"--keep", "2"}), 64, "--score");
  expect_error(plan({"--restart"}), 64, "needs --checkpoint");
  expect_error({"plan", "--strategy", "random", "--batch", "1", "--pool", "/none/x.h5"}, 66, "/none/x.h5");
}

// What `select` would refuse before it reads a row, with the same code.
TEST(Plan, RefusesWhatTheRunRefuses) {
  const Folder folder;
  ASSERT_EQ(run({"synth", "--rows", "90", "--dim", "3", "--out", folder / "three"}).code, 0);
  ASSERT_EQ(run({"synth", "--rows", "90", "--dim", "4", "--out", folder / "four"}).code, 0);
  const std::string pool = folder / "three/part-00000.h5", other = folder / "four/part-00000.h5";
  const auto expect_both = [&](const Words& more, int code, const std::string& part) {
    Words words{"--pool", pool, "--strategy", "k_center", "--batch", "3", "--device", "cpu"};
    append(words, more);
    Words select{"select"}, plan{"plan"};
    append(select, words);
    append(plan, words);
    expect_error(select, code, part);
    expect_error(plan, code, part);
  };
  const std::string out = folder / "batch.h5", broken = written(folder, "broken.json", "{");
  for (const char* list : {"--labelled", "--pending", "--exclude", "--candidates"}) {
    expect_both({"--out", out, list, "/none/ids.csv"}, 66, "/none/ids.csv");
    expect_both({"--out", out, list, broken}, 65, "broken.json");
  }
  expect_both({"--out", out, "--labelled-pool", "/none/x.h5"}, 66, "/none/x.h5");
  expect_both({"--out", out, "--labelled-pool", other}, 65, "columns of embeddings");
  expect_both({"--out", folder / "batch.txt"}, 64, "must end in");
  expect_both({"--out", pool}, 64, "overwrite");
  expect_both({"--out", "/none/batch.h5"}, 73, "/none/batch.h5");
  expect_error({"plan", "--strategy", "bald", "--batch", "1", "--rows", "9", "--classes", "2", "--passes", "1"}, 65,
               "at least 2");
}

TEST(Plan, IsAJobScript) {
  const Folder folder;
  const std::string pending = written(folder, "a b.csv", "id\n1\n"), out = folder / "o.h5";
  const Ended ended = run(plan({"--seed", "7", "--set", "first=random", "--pending", pending, "--out", out}));
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_EQ(ended.err, "");
  EXPECT_TRUE(ended.out.starts_with("#!/bin/bash\n"));
  for (const char* part :
       {"# memory per rank", "# bytes read", "# rounds", "# seconds", "built in", "#SBATCH --ntasks=4\n",
        "#SBATCH --cpus-per-task=2\n", "#SBATCH --mem-per-cpu=", "#SBATCH --time=0-00:", "\nsrun --mpi=pmix ",
        "--strategy k_center --batch 1000", "--seed 7", "--set first=random"})
    EXPECT_TRUE(has(ended.out, part)) << part << "\n" << ended.out;
  EXPECT_TRUE(has(ended.out, "--pending '" + pending + "'")) << ended.out;
  EXPECT_TRUE(has(ended.out, "--threads 2 --out " + out + "\n")) << ended.out;
  EXPECT_FALSE(std::filesystem::exists(out));
}

TEST(Plan, AsJson) {
  const Ended ended = run(plan({"--json"}));
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_TRUE(ended.out.starts_with("{"));
  for (const char* key : {"possible",
                          "obstacle",
                          "ranks",
                          "threads",
                          "rows_per_rank",
                          "resident",
                          "memory_bytes",
                          "resident_memory_bytes",
                          "least_memory_bytes",
                          "device_memory_bytes",
                          "device_resident_memory_bytes",
                          "device_least_memory_bytes",
                          "bytes_read",
                          "rounds",
                          "seconds",
                          "phases",
                          "start",
                          "read",
                          "select",
                          "certificate",
                          "write",
                          "processor_seconds",
                          "low",
                          "likely",
                          "high",
                          "constants",
                          "sbatch",
                          "command"})
    EXPECT_TRUE(has(ended.out, "\"" + std::string(key) + "\": ")) << key;
  EXPECT_TRUE(has(ended.out, "\"possible\": true"));
}

TEST(Plan, SaysWhatCannotBeDone) {
  const Ended text = run(plan({"--memory", "0.01"})), json = run(plan({"--memory", "0.01", "--json"}));
  EXPECT_EQ(text.code, 0);
  EXPECT_TRUE(has(text.out, "# cannot be done"));
  EXPECT_TRUE(text.out.ends_with("\nexit 71\n"));
  EXPECT_FALSE(has(text.out, "#SBATCH"));
  EXPECT_EQ(json.code, 0);
  EXPECT_TRUE(has(json.out, "\"possible\": false"));
}

TEST(Memory, LargerPoolsAreStreamedToTheSameBatch) {
  const Folder folder;
  const Ended made = run({"synth", "--rows", "20000", "--dim", "256", "--out", folder / "pool"});
  ASSERT_EQ(made.code, 0) << made.err;
  const auto select = [&](const Words& more) {
    Words words{"select",
                "--pool",
                folder / "pool/part-00000.h5",
                "--strategy",
                "k_center",
                "--batch",
                "100",
                "--threads",
                "1",
                "--device",
                "cpu",
                "--out",
                folder / "batch.json"};
    append(words, more);
    return run(words);
  };
  const Ended resident = select({}), streamed = select({"--memory", "0.05"}), impossible = select({"--memory", "0.01"});
  EXPECT_EQ(resident.code, 0) << resident.err;
  EXPECT_FALSE(has(resident.err, "read again"));
  EXPECT_EQ(streamed.code, 0) << streamed.err;
  EXPECT_TRUE(has(streamed.err, "read again")) << streamed.err;
  EXPECT_EQ(streamed.out, resident.out);
  EXPECT_EQ(impossible.code, 71);
  EXPECT_TRUE(has(impossible.err, "--memory gives 0.010")) << impossible.err;
}

// By the least that plan names for them.
TEST(Memory, IsEnoughWhereChunksAreSmallAndWhereTheGroundIsASample) {
  const Folder folder;
  const std::vector<std::string> paths =
      write_pool(random_pool(20000, 4, 10, 0, 3), {.chunk_rows = 1, .gzip = 1}, folder.path());
  for (const Words& strategy : {Words{"entropy"}, Words{"facility_location", "--set", "ground=100"}}) {
    SCOPED_TRACE(strategy[0]);
    Words words{"--pool", paths[0], "--batch", "20", "--threads", "1", "--device", "cpu", "--strategy"};
    append(words, strategy);
    Words planning{"plan", "--json"}, selecting{"select", "--out", folder / (strategy[0] + ".json")};
    append(planning, words);
    append(selecting, words);
    const Ended planned = run(planning);
    ASSERT_EQ(planned.code, 0) << planned.err;
    const double least = nlohmann::json::parse(planned.out).at("least_memory_bytes").get<double>() + 3e5;
    append(selecting, {"--memory", std::to_string(least / (1 << 30))});
    const Ended selected = run(selecting);
    ASSERT_EQ(selected.code, 0) << selected.err;
    const auto batch = nlohmann::json::parse(content(folder / (strategy[0] + ".json")));
    EXPECT_LE(batch.at("timing").at("memory").get<double>(), 1.08 * least);
  }
}

TEST(StandardOutput, ThatCannotBeWrittenIsAnError) {
  if (access("/dev/full", W_OK) != 0) GTEST_SKIP() << "no /dev/full";
  const std::string binary = std::getenv("SEINE_BIN");
  const int status = std::system(("'" + binary + "' strategies > /dev/full 2> /dev/null").c_str());
  EXPECT_EQ(WEXITSTATUS(status), 74);
}

// These go through MPI, alone.
TEST(Synth, PrintsOneLineAndInspectReadsIt) {
  const Folder folder;
  const Ended made = run({"synth", "--rows", "100", "--dim", "4", "--classes", "3", "--shards", "2", "--seed", "5",
                          "--out", folder / "pool"});
  ASSERT_EQ(made.code, 0) << made.err;
  EXPECT_EQ(made.out, (folder / "pool") + " files=2 rows=100\n");
  const Ended read = run({"inspect", "--json", "--pool", folder / "pool/*.h5"});
  EXPECT_EQ(read.code, 0) << read.err;
  for (const char* key :
       {"rows", "files", "dim", "classes", "passes", "types", "labelled", "ids", "norms", "class_histogram", "faults"})
    EXPECT_TRUE(has(read.out, "\"" + std::string(key) + "\"")) << key;

  const std::string out = folder / "batch.json";
  const Ended selected = run({"select", "--pool", folder / "pool/*.h5", "--strategy", "entropy", "--batch", "7",
                              "--out", out, "--progress", "always"});
  EXPECT_EQ(selected.code, 0) << selected.err;
  EXPECT_TRUE(selected.out.starts_with(out + " rows=7 digest=")) << selected.out;
  EXPECT_EQ(std::count(selected.out.begin(), selected.out.end(), '\n'), 1);
  const Ended quiet = run({"select", "--pool", folder / "pool/*.h5", "--strategy", "entropy", "--batch", "7", "--out",
                           out, "--progress", "always", "--quiet"});
  EXPECT_EQ(quiet.err, "");
  EXPECT_EQ(quiet.out, selected.out);

  const Ended planned = run({"plan", "--pool", folder / "pool/*.h5", "--strategy", "badge", "--batch", "7", "--json"});
  EXPECT_EQ(planned.code, 0) << planned.err;
  EXPECT_TRUE(has(planned.out, "\"rows_per_rank\": 100,"));
  EXPECT_TRUE(has(planned.out, "--pool "));

  const Ended scored =
      run({"score", "--pool", folder / "pool/*.h5", "--strategy", "margin", "--out", folder / "scores"});
  EXPECT_EQ(scored.code, 0) << scored.err;
  EXPECT_EQ(scored.out, (folder / "scores/part-00000.h5") + "\n" + (folder / "scores/part-00001.h5") + "\n");

  const Ended judged =
      run({"evaluate", "--pool", folder / "pool/*.h5", "--picked", out, "--out", folder / "judged.csv"});
  EXPECT_EQ(judged.code, 0) << judged.err;
  EXPECT_TRUE(has(judged.out, "radius"));
  EXPECT_TRUE(content(folder / "judged.csv").starts_with("metric,"));
  expect_error({"evaluate", "--pool", folder / "pool/*.h5", "--picked", out, "--out", folder / "none/judged.csv"}, 73,
               "none");
}

}  // namespace
}  // namespace seine::test
