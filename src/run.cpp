#include "seine/run.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "engines/merge.hpp"
#include "file_lock.hpp"
#include "overwrite.hpp"
#include "process_memory.hpp"
#include "reading/file_states.hpp"
#include "reading/fingerprint.hpp"
#include "reading/loader.hpp"
#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/ids.hpp"
#include "seine/input.hpp"
#include "seine/pick.hpp"
#include "seine/roles.hpp"
#include "stopwatch.hpp"

namespace seine {
namespace {

Error usage(const std::string& text) {
  return Error(Exit::usage, text);
}

// Everything that was read.
struct Input {
  OpenedPool opened;
  Memory memory;
  Loaded pool;
  std::optional<Loaded> outside;  // labelled rows that are not in the pool
  bool unit_rows = false;         // embeddings were divided by their 2-norm
  FileStates files;               // of pool and labelled pool, on rank 0
};

Input read_input(const Request& request, const Entry& entry, const Comm& comm, Backend& backend,
                 const Console& console) {
  OpenedPool opened = open_pool(comm, request.pool, needs_of(request, entry), console);
  FileStates states;
  if (comm.is_root()) states.add(opened.files.paths());
  const PoolShape& shape = opened.files.shape();
  Wanted wanted = wanted_by(request, entry, shape);
  std::optional<OpenedPool> labelled;
  if (reads_labelled_pool(request, entry)) {
    labelled.emplace(open_labelled_pool(comm, request.pool, entry.needs, shape));
    if (comm.is_root()) states.add(labelled->files.paths());
  }
  MemoryNeed need = memory_need(shape, opened.own.own(), wanted);
  if (labelled) need = with_labelled_pool(need, labelled->files.shape(), labelled->own.own(), wanted);
  const Memory memory = memory_for(comm, need, request.pool);
  Loaded pool = load(comm, backend, opened, wanted, memory, comm.is_root() ? &console : nullptr);
  Input input{std::move(opened), memory, std::move(pool), std::nullopt, wanted.unit_rows, std::move(states)};
  if (labelled) input.outside.emplace(load(comm, backend, *labelled, outside_of(wanted), memory, nullptr));
  return input;
}

// The `keep` * `batch` best candidates by score, and the covered rows.
Pool kept(const Pool& pool, double keep, std::int64_t batch) {
  const std::int64_t count = prefiltered_rows(keep, batch, pool.candidates());
  std::vector<std::int64_t> rows = rows_of(best_by_score(pool, nullptr, count));
  for (std::size_t i = 0; i < pool.columns.rows.size(); ++i)
    if (is_covered(pool.columns.role[i])) rows.push_back(pool.columns.rows[i]);
  return pool.only(rows);
}

// The rows that the objective sums over, where they are not all.
std::optional<Pool> ground_of(const Pool& pool, const Request& request, const Entry& entry) {
  const std::int64_t count = ground_rows_of(entry, request, pool.rows());
  if (count >= pool.rows()) return std::nullopt;
  return pool.only(draw_rows(pool, request.seed, Purpose("ground"), count, [](std::int64_t) { return true; }));
}

// What the lists of ids came to, whatever their files are called.
void expect_roles(Resume& resume, const Pool& pool) {
  constexpr std::pair<Role, const char*> kNames[] = {{Role::labelled, "labelled"},
                                                     {Role::pending, "pending"},
                                                     {Role::bystander, "exclude"},
                                                     {Role::candidate, "candidates"}};
  for (const auto& [role, name] : kNames) {
    std::int64_t sums[2] = {0, 0};
    std::uint64_t hash = 0;
    for (std::size_t i = 0; i < pool.columns.rows.size(); ++i)
      if (pool.columns.role[i] == role) {
        ++sums[0];
        hash += random_bits(0, Purpose(name).key, static_cast<std::uint64_t>(pool.columns.rows[i]));
      }
    sums[1] = static_cast<std::int64_t>(hash);
    pool.comm().sum(sums);
    resume.expect(name, fmt::format("{} rows ({:016x})", sums[0], static_cast<std::uint64_t>(sums[1])));
  }
}

// The rows by score^power in the objective.
void weigh(Pool& pool, double power) {
  pool.columns.weight.emplace();
  for (const float score : *pool.columns.score) pool.columns.weight->push_back(power_of(score, power));
}

// What is known of a batch before its rows.
Batch begun(const Request& request, const Pool& pool, const Console& console) {
  Batch batch;
  batch.strategy = request.strategy;
  batch.request_json = request.to_json();
  batch.seed = request.seed;
  batch.pool_rows = pool.rows();
  batch.candidates = pool.candidates();
  batch.truncated = request.batch > pool.candidates();
  batch.timing.ranks = pool.comm().size();
  batch.timing.threads = std::max(1, request.pool.threads);
  batch.timing.device = pool.backend().name();
  if (batch.truncated && pool.comm().is_root())
    console.warn(fmt::format("--batch {} is above the {} candidates: all of them are returned", request.batch,
                             pool.candidates()));
  return batch;
}

std::string work_in_words(double share, std::int64_t rows, std::int64_t others, bool among_rows, std::int64_t rounds) {
  if (among_rows) return fmt::format("{:.3g} inner products for each pair of {} and {} rows", share, rows, others);
  return fmt::format("{:.1f} % of {} rows x {} picks met{}", 100 * share, rows, others,
                     rounds > 0 ? ", in " + counted(rounds, "round") : "");
}

// How many of the pairs met that an algorithm without bounds compares.
double share_met(const Pool& pool, const Task& task, const Picked& picked) {
  // Gains of facility location compare rows with rows, some pairs more than once; elsewhere rows meet picks.
  const bool among_rows = task.entry.objective == Objective::coverage;
  const std::int64_t others = among_rows ? (task.ground ? *task.ground : pool).rows() : task.batch;
  const double share = picked.pairs / (static_cast<double>(pool.rows()) * static_cast<double>(others));
  if (share > 0 && task.console)
    task.console->info(work_in_words(share, pool.rows(), others, among_rows, picked.rounds));
  return share;
}

std::string fingerprint_of(const Input& input) {
  return input.outside ? combined_fingerprint(input.pool.fingerprint, input.outside->fingerprint)
                       : input.pool.fingerprint;
}

}  // namespace

void check_request(const Request& request) {
  const Entry& entry = strategy(request.strategy);
  check_parameters(entry, request.set);
  if (entry.check) entry.check(request);
  if (request.batch < 1) throw usage(fmt::format("--batch: expected at least 1, found {}", request.batch));
  if (request.partitions < 1)
    throw usage(fmt::format("--partitions: expected at least 1, found {}", request.partitions));
  if (request.fan_in < 2) throw usage(fmt::format("--fan-in: expected at least 2, found {}", request.fan_in));
  if (request.score && !strategy(*request.score).score)
    throw usage(fmt::format("--score {}: not an acquisition score; see `seine strategies`", *request.score));
  if (request.score && entry.score)
    throw usage(fmt::format("--score steers a diversity strategy; {} is an acquisition score itself", entry.name));
  if (request.score && !request.keep && request.score_power == 0) throw usage("--score needs --keep or --score-power");
  if (!request.score && (request.keep || request.score_power != 0))
    throw usage("--keep and --score-power need --score");
  if (request.keep && !(*request.keep >= 1))
    throw usage(fmt::format("--keep: expected at least 1, found {}", *request.keep));
  if (!(request.score_power >= 0) || std::isinf(request.score_power))
    throw usage(fmt::format("--score-power: expected a number >= 0, found {}", request.score_power));
  if (request.score_power > 0 && !entry.weights)
    throw usage(fmt::format("--score-power: strategy {} takes no weights", entry.name));
}

Batch select(const Request& request, const Comm& comm, Backend& backend, const Console& console, Resume* resume) {
  check_request(request);
  const Entry& entry = strategy(request.strategy);
  Input input = read_input(request, entry, comm, backend, console);
  Stopwatch watch;
  Pool& whole = input.pool.pool;
  if (resume) {
    resume->expect("pool_fingerprint", fingerprint_of(input));
    expect_roles(*resume, whole);
    resume->ask_before_saving([files = input.files] { files.check(); });
  }
  Batch batch = begun(request, whole, console);

  Task task{request, entry};
  task.batch = std::min(request.batch, whole.candidates());
  task.unit_rows = input.unit_rows;
  task.console = comm.is_root() ? &console : nullptr;
  task.resume = resume;
  Prior prior;
  if (input.outside) prior.outside = &input.outside->pool;
  task.prior = &prior;
  BestScores scores{std::move(input.pool.best), [&](std::span<const std::int64_t> rows) {
                      return scores_of(whole, input.opened.files, *entry.score, rows);
                    }};
  if (entry.score && request.reduce == Reduce::exact) task.best = &scores;

  std::optional<Pool> best;
  if (request.keep) best.emplace(kept(whole, *request.keep, task.batch));
  Pool& pool = best ? *best : whole;
  if (request.score_power > 0) weigh(pool, request.score_power);
  if (entry.cover) entry.cover(pool, task, prior);
  const std::optional<Pool> ground = ground_of(pool, request, entry);
  if (ground) task.ground = &*ground;
  task.memory = share_of_engine(entry, input.memory.room->left());
  Room::Part of_engine(input.memory.room, task.memory);

  const bool merged = request.reduce == Reduce::merge && partitions_of(pool, task) > 1;
  Picked picked = merged ? pick_merged(pool, task) : entry.pick(pool, task);
  of_engine = {};
  batch.timing.share = share_met(pool, task, picked);
  batch.timing.select = watch.lap() + input.pool.score_seconds;
  if (request.certificate != CertificateMode::off) {
    if (task.console) console.progress("certificate", 0, 1);
    batch.certificate = certify(pool, task, picked, !merged);
  }
  batch.timing.certificate = watch.lap();

  batch.selection = std::move(picked.selection);
  batch.ids = fetch_ids(comm, input.opened.files, batch.selection.rows);
  comm.agree([&] { input.files.check(); });
  batch.digest = digest_of(batch.selection.rows);
  batch.pool_fingerprint = fingerprint_of(input);
  batch.timing.read = input.pool.read_seconds + (input.outside ? input.outside->read_seconds : 0) + watch.lap();
  batch.timing.memory = static_cast<std::int64_t>(comm.max(static_cast<double>(most_resident_bytes())));
  return batch;
}

void check_outputs(const Request& request) {
  const std::vector<std::string> inputs = input_paths(request.pool);
  refuse_to_overwrite("--out", request.out, inputs);
  if (!request.checkpoint.empty()) {
    refuse_to_overwrite("--checkpoint", request.checkpoint, inputs);
    refuse_to_overwrite("--checkpoint", request.checkpoint, std::span(&request.out, 1));
  }
  check_output(request);
}

namespace {

Batch select_resumably(const Request& request, const Comm& comm, Backend& backend, const Console& console,
                       Resume& resume) {
  try {
    Batch batch = select(request, comm, backend, console, &resume);
    comm.heed();
    resume.close();
    resume.remember_output();
    return batch;
  } catch (const Error& error) {
    if (error.code() == Exit::stopped) resume.stop();
    throw;
  }
}

}  // namespace

Batch select_and_write(const Request& request, const Comm& comm, Backend& backend, const Console& console) {
  check_request(request);
  std::optional<FileLock> out, checkpoint;
  comm.agree([&] {
    if (!comm.is_root()) return;
    check_outputs(request);
    out.emplace(request.out);
    if (!request.checkpoint.empty()) checkpoint.emplace(request.checkpoint);
  });
  std::optional<Resume> resume;
  if (!request.checkpoint.empty()) resume.emplace(comm, request, console);
  Batch batch =
      resume ? select_resumably(request, comm, backend, console, *resume) : select(request, comm, backend, console);
  Stopwatch watch;
  comm.agree([&] {
    if (!comm.is_root()) return;
    write_batch(request.out, batch);
    if (resume) resume->remove();  // after the batch: a run that is killed between them does its end again
  });
  batch.timing.write = watch.lap();
  return batch;
}

}  // namespace seine
