// `seine plan`: what a request will take, as a job script that asks Slurm for it.
#include "seine/plan.hpp"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "cli/request_options.hpp"
#include "cli/resources.hpp"
#include "seine/bytes.hpp"
#include "seine/calibration.hpp"
#include "seine/input.hpp"
#include "seine/pool_paths.hpp"
#include "seine/roles.hpp"
#include "seine/run.hpp"
#include "seine/strategy.hpp"
#include "wanted.hpp"

namespace seine {
namespace {

std::string short_number(double value) {
  return value < 10 ? fmt::format("{:.2g}", value) : fmt::format("{:.0f}", value);
}

std::string in_words(const Range& range, const char* unit = "") {
  return fmt::format("{}{} ({} to {})", short_number(range.likely), unit, short_number(range.low),
                     short_number(range.high));
}

std::string gib(std::int64_t bytes) {
  return fmt::format("{:.3f} GiB", in_gib(bytes));
}

nlohmann::ordered_json as_json(const Range& range) {
  return {{"low", range.low}, {"likely", range.likely}, {"high", range.high}};
}

class PlanCommand : public Command {
 public:
  void declare(Options& options) override {
    request_.declare(options, false);
    options.group("Plan");
    options.number("ranks", "R", ranks_, between(1, 1 << 20), "processes of the job");
    options.number("rows", "N", shape_.rows, at_least(1), "instead of a pool: its rows; --classes is a number then");
    options.number("dim", "D", shape_.dim, at_least(1), "of its embeddings");
    options.number("passes", "T", shape_.passes, at_least(1), "of its probabilities");
    options.flag("calibrate", calibrates_, "measure this machine first, and keep the constants");
    options.text("calibration", "FILE", calibration_,
                 "where the constants are kept\n[$XDG_CACHE_HOME/seine/machine.json, or in ~/.cache]");
    options.flag("json", json_, "as JSON");
  }

  void check(const Options& options) const override {
    request_.check(options);
    const bool has_pool = options.given("pool");
    for (const char* name : {"rows", "dim", "passes"})
      if (has_pool && options.given(name))
        throw Error(Exit::usage, fmt::format("--{}: stands for a pool, and --pool is given", name));
    if (!has_pool && !options.given("rows"))
      throw Error(Exit::usage, "--pool or --rows is required; see seine plan --help");
    typed_ = options.typed({"ranks", "rows", "dim", "classes", "passes", "calibrate", "calibration", "json", "out",
                            "log-level", "quiet", "progress", "threads"});
    if (has_pool) return;
    constexpr std::int64_t kMostRows = 10'000'000'000'000;
    if (shape_.rows > kMostRows)
      throw Error(Exit::usage, fmt::format("--rows: expected at most {}, found {}", kMostRows, shape_.rows));
    if (options.given("classes")) classes();
    const Needs needs = needs_of(request_.request, entry());
    const auto demand = [&](bool needed, const char* name) {
      if (needed && !options.given(name))
        throw Error(Exit::usage, fmt::format("--{} is required without a pool: this request reads it", name));
    };
    demand(needs.embeddings, "dim");
    demand(needs.probabilities, "classes");
    demand(needs.passes, "passes");
  }

  Outcome run(const Comm& comm, Terminal& terminal) override {
    Request& request = request_.request;
    if (ranks_ == 0) ranks_ = comm.size();
    if (request.pool.threads == 0) request.pool.threads = std::max(1, own_cpus() / ranks_);
    comm.agree([&] {
      if (comm.is_root() && !request.out.empty()) check_outputs(request);
    });
    const PoolShape shape = shape_of_pool(comm);
    check_id_lists(comm, request.pool);
    std::optional<PoolShape> labelled;
    if (reads_labelled_pool(request, entry()))
      labelled = labelled_pool_files(comm, request.pool, entry().needs, shape).shape();
    std::string text;
    comm.agree([&] {
      if (!comm.is_root()) return;
      const Machine machine = machine_constants(terminal);
      look_for_gpu(terminal);
      const Plan planned = plan(shape, request, ranks_, machine, labelled ? &*labelled : nullptr);
      text = json_ ? to_json(planned, shape, machine) : to_text(planned, shape, machine);
    });
    return {text};
  }

 private:
  const Entry& entry() const { return strategy(request_.request.strategy); }

  // Without a pool, the name of a dataset has no use, and the option says how many classes there are.
  std::int64_t classes() const {
    return parse_number<std::int64_t>("--classes", request_.request.pool.names.classes, at_least(2));
  }

  PoolShape shape_of_pool(const Comm& comm) const {
    const PoolRequest& pool = request_.request.pool;
    if (!pool.pool.empty())  // the headers alone
      return PoolFiles(comm, pool_paths(comm, pool.pool), pool.names, needs_of(request_.request, entry())).shape();
    comm.agree([&] {
      if (needs_of(request_.request, entry()).passes && shape_.passes < kFewestPasses)
        throw Error(Exit::bad_data, fmt::format("--passes: strategy {} expects at least {}, found {}", entry().name,
                                                kFewestPasses, shape_.passes));
    });
    PoolShape shape = shape_;
    if (pool.names.classes != DatasetNames().classes) shape.classes = classes();
    shape.ids = true;
    shape.embeddings_type = shape.probabilities_type = "float32";
    return shape;
  }

  // What a GPU of this machine has, if the ranks would use it; each is supposed to have one like it.
  void look_for_gpu(Terminal& terminal) {
    PoolRequest& pool = request_.request.pool;
    std::string why;
    try {
      const auto backend = make_backend(pool.device, {.threads = 1, .local_rank = 0}, why);
      pool.device_gib = own_device_gib(backend->memory(), 1, pool.memory_gib);
      if (pool.device == "auto" && pool.device_gib <= 0.0) pool.device_gib.reset();  // a run takes the CPU then
      if (pool.device_gib) terminal.info(why);
    } catch (const Error& error) {
      if (pool.device != "cuda" || error.code() != Exit::no_device) throw;
      terminal.info(fmt::format("{}: the plan is for GPUs that have room for what is resident", error.what()));
    }
  }

  Machine machine_constants(Terminal& terminal) const {
    const std::string path = calibration_.value_or(default_machine_path());
    if (!calibrates_) return load_machine(path);
    const Machine machine = calibrate(terminal.console());
    if (!path.empty()) {
      store_machine(path, machine);
      terminal.info("the constants of this machine are kept in " + path);
    }
    return machine;
  }

  // --- what Slurm is asked for ---

  static std::vector<std::string> sbatch_lines(const Plan& planned) {
    // What is not in the plan: other libraries, the launcher's helpers.
    const double bytes = 1.1 * static_cast<double>(planned.memory_bytes) + 64 * kMiB;
    const auto minutes = static_cast<std::int64_t>(std::ceil((1.5 * planned.seconds().high + 60) / 60));
    std::vector<std::string> lines{
        fmt::format("--ntasks={}", planned.ranks), fmt::format("--cpus-per-task={}", planned.threads),
        fmt::format("--mem-per-cpu={:.0f}M", std::ceil(bytes / planned.threads / kMiB)),
        fmt::format("--time={}-{:02}:{:02}:00", minutes / 1440, minutes / 60 % 24, minutes % 60)};
    if (planned.device_bytes > 0) lines.push_back("--gpus-per-task=1");
    return lines;
  }

  std::string command(const Plan& planned) const {
    const Request& request = request_.request;
    return fmt::format("srun --mpi=pmix --cpus-per-task={} seine select{} {} --threads {} --out {}", planned.threads,
                       request.pool.pool.empty() ? " --pool POOL..." : "", typed_, planned.threads,
                       request.out.empty() ? "batch.h5" : request.out);
  }

  // --- output ---

  std::string to_text(const Plan& planned, const PoolShape& shape, const Machine& machine) const {
    const Request& request = request_.request;
    std::string text = "#!/bin/bash\n";
    const auto line = [&](std::string_view name, const std::string& value) {
      text += fmt::format("# {:<17}{}\n", name, value);
    };
    line("seine plan", fmt::format("{}, {}, batch of {}; {} of {}", counted(shape.rows, "row"), request.strategy,
                                   request.batch, counted(planned.ranks, "rank"), counted(planned.threads, "thread")));
    if (!planned.possible) {
      line("cannot be done", planned.obstacle);
      return text + "exit 71\n";
    }
    line("memory per rank",
         fmt::format("{}, {}", gib(planned.memory_bytes),
                     planned.device_bytes > 0 ? "beside the GPU"
                     : !planned.resident
                         ? fmt::format("vectors streamed ({} would hold them)", gib(planned.resident_bytes))
                         : fmt::format("all in memory (at least {})", gib(planned.least_bytes))));
    if (planned.device_bytes > 0)
      line("memory of a GPU",
           fmt::format("{}, {}", gib(planned.device_bytes),
                       planned.resident
                           ? fmt::format("all in memory (at least {})", gib(planned.device_least_bytes))
                           : fmt::format("vectors streamed ({} would hold them)", gib(planned.device_resident_bytes))));
    const Range& bytes = planned.bytes_read;
    line("bytes read", in_words(bytes * in_gib(1), " GiB"));
    line("rounds", in_words(planned.rounds));
    line("seconds", in_words(planned.seconds()));
    for (const auto& [name, range] : phases(planned)) line("", fmt::format("{} {}", name, in_words(range)));
    line("processor time", in_words(planned.processor_seconds, " s of all ranks"));
    line("constants",
         machine.origin + (machine.origin == Machine().origin ? ": --calibrate measures this machine" : ""));
    for (const std::string& note : notes(shape)) line("note", note);
    for (const std::string& option : sbatch_lines(planned)) text += "#SBATCH " + option + "\n";
    return text + command(planned) + "\n";
  }

  std::vector<std::string> notes(const PoolShape& shape) const {
    const PoolRequest& pool = request_.request.pool;
    std::vector<std::string> notes;
    if (pool.on_device()) notes.push_back("seconds are those of a run without a GPU");
    if (!pool.labelled.empty() || !pool.pending.empty() || !pool.labelled_pool.empty() || shape.labels)
      notes.push_back("what covered rows take is not in the seconds");
    return notes;
  }

  static std::vector<std::pair<const char*, Range>> phases(const Plan& planned) {
    return {{"start", planned.start},
            {"read", planned.read},
            {"select", planned.select},
            {"certificate", planned.certificate},
            {"write", planned.write}};
  }

  std::string to_json(const Plan& planned, const PoolShape& shape, const Machine& machine) const {
    nlohmann::ordered_json json;
    json["pool"] = {{"rows", shape.rows},
                    {"dim", shape.dim},
                    {"classes", shape.classes},
                    {"passes", shape.passes},
                    {"ids", !shape.ids       ? "row number"
                            : shape.text_ids ? "text"
                                             : "integer"}};
    json["possible"] = planned.possible;
    json["obstacle"] = planned.obstacle;
    json["ranks"] = planned.ranks;
    json["threads"] = planned.threads;
    json["rows_per_rank"] = planned.rows_per_rank;
    json["resident"] = planned.resident;
    json["memory_bytes"] = planned.memory_bytes;
    json["resident_memory_bytes"] = planned.resident_bytes;
    json["least_memory_bytes"] = planned.least_bytes;
    json["device_memory_bytes"] = planned.device_bytes;
    json["device_resident_memory_bytes"] = planned.device_resident_bytes;
    json["device_least_memory_bytes"] = planned.device_least_bytes;
    json["bytes_read"] = as_json(planned.bytes_read);
    json["rounds"] = as_json(planned.rounds);
    json["seconds"] = as_json(planned.seconds());
    for (const auto& [name, range] : phases(planned)) json["phases"][name] = as_json(range);
    json["processor_seconds"] = as_json(planned.processor_seconds);
    json["constants"] = machine.origin;
    json["sbatch"] = planned.possible ? sbatch_lines(planned) : std::vector<std::string>();
    json["command"] = planned.possible ? command(planned) : "";
    return json.dump(2) + "\n";
  }

  RequestOptions request_;
  PoolShape shape_;
  int ranks_ = 0;
  bool calibrates_ = false, json_ = false;
  std::optional<std::string> calibration_;
  mutable std::string typed_;  // the request, for `seine select`
};

}  // namespace

std::unique_ptr<Command> make_plan() {
  return std::make_unique<PlanCommand>();
}

}  // namespace seine
