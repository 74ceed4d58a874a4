// Runs that are stopped after some step and go on elsewhere: on other ranks, threads, shards and memory the batch is
// the same to the bit. Then the file itself: what it refuses, and what it survives.
#include "seine/resume.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <thread>

#include "errors.hpp"
#include "file_lock.hpp"
#include "selecting.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

namespace fs = std::filesystem;

// --- Stopped after every step, on 1 to 4 ranks ---

struct Outcome {
  int code = 0;  // of the error; 0: the batch is there
  std::string text, bytes;
};

// Collective. One start of a request with a checkpoint, which stops after so many steps; as the program does it.
Outcome start(const Comm& comm, const Request& request, std::int64_t stop_after, int threads = 1,
              const Console& console = {}, const std::function<void()>& before = {}) {
  try {
    const std::unique_ptr<Backend> backend = backend_of("cpu", threads);
    Resume resume(comm, request, console, stop_after);
    if (before) before();
    try {
      const Batch batch = select(request, comm, *backend, console, &resume);
      resume.close();
      if (comm.is_root()) resume.remove();
      return {0, "", bytes_of(batch)};
    } catch (const Error& error) {
      if (error.code() == Exit::stopped) resume.stop();
      throw;
    }
  } catch (const Error& error) {
    return {static_cast<int>(error.code()), error.what(), ""};
  }
}

std::vector<Request> requests() {
  std::vector<Request> all;
  for (const Entry& entry : strategies()) {
    const std::string name(entry.name);
    all.push_back(request_for(name, 40, 21));
    if (has_merge(name)) all.push_back(merged(request_for(name, 20, 21), 6, 3));
  }
  Request request = request_for("badge", 40, 22);
  request.set["conditioned"] = "true";
  all.push_back(request);
  for (const char* name : {"k_center", "k_means_pp", "facility_location"}) {
    request = request_for(name, 30, 23);
    request.score = "margin";
    request.score_power = 1.5;
    all.push_back(request);
    request.score_power = 0;
    request.keep = 8;
    all.push_back(merged(request, 4, 2));
  }
  request = request_for("facility_location", 30, 24);
  request.set["ground"] = "200";
  all.push_back(request);
  request = request_for("k_means_pp", 700, 25);  // more than have a distance: the end is by row
  all.push_back(request);
  return all;
}

// Starts the request again and again, each time stopped after `steps` steps, elsewhere each time; how many starts.
int expect_same_after_stops(const Request& request, const std::vector<PoolRequest>& pools, const std::string& want,
                            const std::string& folder, std::int64_t steps) {
  Request again = request;
  again.checkpoint = folder + "/checkpoint";
  again.checkpoint_seconds = steps % 2 ? 1e-9 : 1e9;  // after every step, or only where it stops
  for (int starts = 1; starts < 200; ++starts, steps += 1 + steps / 2) {
    const int ranks = 1 + (starts + static_cast<int>(steps)) % world().size();
    again.pool = pools[static_cast<std::size_t>(starts) % pools.size()];
    again.pool.threads = 1 + starts % 2;
    if (starts % 3 == 1) again.pool.stream_room = starts % 2 ? 0 : 20000;
    const Comm group = world().split(world().rank() < ranks ? 0 : 1);
    const std::string done = folder + "/done." + std::to_string(starts);
    Outcome outcome;
    if (world().rank() < ranks) {
      outcome = start(group, again, steps, again.pool.threads);
      if (group.is_root()) write_text(done, "");
    }
    wait_for_file(done);
    outcome.code = world().broadcast(outcome.code);
    world().broadcast(outcome.bytes);
    world().barrier();
    if (world().is_root()) fs::remove(done);
    if (outcome.code == 75) continue;
    EXPECT_EQ(outcome.code, 0) << name_of(request) << ": " << outcome.text;
    EXPECT_TRUE(outcome.bytes == want) << name_of(request) << " after " << starts << " starts";
    return starts;
  }
  ADD_FAILURE() << name_of(request) << ": no end";
  return 0;
}

TEST(Resumed, EveryStrategyGoesOnToTheSameBatch) {
  Scenario scenario{.pool = random_pool(700, 9, 4, 3, 300), .storage = {.chunk_rows = 100, .gzip = 1}};
  add_number_ids(scenario.pool);
  scenario.lists = {.labelled = {1, 300, 301}, .pending = {5, 200}, .excluded = {10, 11, 699}};
  scenario.labelled_pool = random_pool(20, 9, 4, 0, 301);
  std::vector<std::unique_ptr<SharedFolder>> folders;
  std::vector<PoolRequest> pools;
  for (const int shards : {1, 4}) {
    Scenario sharded = scenario;
    sharded.storage.shard_rows = uneven_shards(scenario.pool.rows, shards);
    folders.push_back(std::make_unique<SharedFolder>(world()));
    pools.push_back(share_scenario(world(), sharded, *folders.back()));
  }
  const SharedFolder folder(world());
  for (const Request& request : requests()) {
    std::string want;
    if (world().is_root()) want = bytes_of(select_on(Comm::self(), request, pools[0]));
    world().broadcast(want);
    const int few = expect_same_after_stops(request, pools, want, folder.path(), 1);
    expect_same_after_stops(request, pools, want, folder.path(), 2);
    const bool has_steps = has_merge(request.strategy);
    EXPECT_TRUE(!has_steps || few > 1) << name_of(request) << " was never stopped";
  }
  if (world().is_root()) {
    EXPECT_TRUE(folder.path().empty() || fs::is_empty(folder.path())) << "a checkpoint was left";
  }
}

TEST(Resumed, PoolsWithoutCoveredRowsAndWithTies) {
  Scenario scenario{.pool = grid_pool(500, 3, 4, 2, 302)};
  const SharedFolder pool_folder(world()), folder(world());
  const std::vector<PoolRequest> pools{share_scenario(world(), scenario, pool_folder)};
  for (const char* name : {"k_center", "k_means_pp", "badge", "facility_location", "log_det"})
    for (const Request& request : {request_for(name, 60, 31), merged(request_for(name, 30, 31), 4, 2)}) {
      std::string want;
      if (world().is_root()) want = bytes_of(select_on(Comm::self(), request, pools[0]));
      world().broadcast(want);
      expect_same_after_stops(request, pools, want, folder.path(), 1);
    }
}

// Its first steps differ: bounds, gains over all rows, gains from lists, picks.
TEST(Resumed, FacilityLocationFromEveryStep) {
  const SharedFolder pool_folder(world()), folder(world());
  Request request = request_for("facility_location", 6, 41);
  request.pool = share_scenario(world(), {.pool = random_pool(400, 6, 3, 0, 305)}, pool_folder);
  request.checkpoint = folder.path() + "/checkpoint";
  request.checkpoint_seconds = 1e-9;  // after every step
  const std::string want = bytes_of(select_on(world(), request, request.pool));
  int stopped = 0;
  for (std::int64_t steps = 1; steps <= 12; ++steps) {
    const Outcome first = start(world(), request, steps);
    stopped += first.code == 75;
    EXPECT_TRUE((first.code == 0 ? first : start(world(), request, 0)).bytes == want) << steps;
  }
  EXPECT_GE(stopped, 8);
}

// The gains of the long first pass are kept before there is a pick, and are not computed again.
TEST(Resumed, FacilityLocationKeepsHalfOfItsFirstPass) {
  const SharedFolder pool_folder(world()), folder(world());
  Request request = request_for("facility_location", 1, 42);
  request.certificate = CertificateMode::off;
  request.pool = share_scenario(world(), {.pool = random_pool(1500, 6, 3, 0, 306)}, pool_folder);
  request.checkpoint = folder.path() + "/checkpoint";
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  const Batch whole = select(request, world(), *backend, Console());
  Progress progress;
  for (std::int64_t steps = 2; progress.gains.empty() && start(world(), request, steps).code == 75; ++steps) {
    const Checkpoint kept = Checkpoint::from_bytes(content(request.checkpoint), request.checkpoint);
    progress = kept.selections.at({0, 0});
    world().barrier();
  }
  EXPECT_TRUE(progress.selection.rows.empty());
  Resume resume(world(), request, Console());
  const Batch again = select(request, world(), *backend, Console(), &resume);
  resume.close();
  world().barrier();
  if (world().is_root()) resume.remove();
  EXPECT_TRUE(bytes_of(again) == bytes_of(whole));
  const auto first_gains = static_cast<double>(progress.gains.size()) / 1500;  // each met all rows
  EXPECT_GT(first_gains, 0);
  EXPECT_NEAR(again.timing.share, whole.timing.share - first_gains, 1e-3);
}

// --- Signals ---

struct Setting {
  explicit Setting(const std::string& strategy = "k_center", std::int64_t batch = 40)
      : pool_folder(world()), folder(world()), request(request_for(strategy, batch, 5)) {
    Scenario scenario{.pool = random_pool(600, 6, 3, 0, 303)};
    scenario.lists.excluded = {4, 5};
    request.pool = share_scenario(world(), scenario, pool_folder);
    request.checkpoint = folder.path() + "/checkpoint";
    want = bytes_of(select_on(world(), request, request.pool));
  }
  const std::string& path() const { return request.checkpoint; }
  std::string older() const { return request.checkpoint + ".previous"; }
  // A checkpoint of some picks, and one generation older.
  void stop_twice() const {
    EXPECT_EQ(start(world(), request, 1).code, 75);
    EXPECT_EQ(start(world(), request, 1).code, 75);
  }

  SharedFolder pool_folder, folder;
  Request request;
  std::string want;
};

TEST(Signals, OnOneRankStopAll) {
  const Setting setting;
  for (int rank = 0; rank < world().size(); ++rank)
    for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) {
      const Outcome stopped = start(world(), setting.request, 0, 1, {}, [&] {
        if (world().rank() == rank) std::raise(number);
      });
      EXPECT_EQ(stopped.code, 75);
      EXPECT_NE(stopped.text.find(stopped_by(number)), std::string::npos) << stopped.text;
    }
  EXPECT_TRUE(start(world(), setting.request, 0).bytes == setting.want);
}

TEST(Signals, BetweenPicks) {
  const Setting setting("facility_location");
  Console console;
  console.progress = [&](std::string_view phase, std::int64_t done, std::int64_t) {
    if (phase == "select" && done == 17) std::raise(SIGUSR1);
  };
  const Outcome stopped = start(world(), setting.request, 0, 1, console);
  EXPECT_EQ(stopped.code, 75) << stopped.text;
  if (world().is_root()) {
    const Checkpoint kept = Checkpoint::from_bytes(content(setting.path()), setting.path());
    EXPECT_EQ(kept.selections.at({0, 0}).selection.rows.size(), 17u);
    std::set<std::int64_t> rows;  // of all ranks: 581 candidates are left, of which nearly all were looked at
    for (const KnownGain& gain : kept.selections.at({0, 0}).gains) rows.insert(gain.row);
    EXPECT_EQ(rows.size(), kept.selections.at({0, 0}).gains.size());
    EXPECT_GT(rows.size(), 500u);
  }
  EXPECT_TRUE(start(world(), setting.request, 0).bytes == setting.want);
}

// A rank that works long and communicates with nobody learns of a signal to another.
TEST(Signals, AreToldToRanksThatWork) {
  if (world().size() == 1) GTEST_SKIP() << "needs two ranks";
  StopSignals signals(world());
  if (world().rank() == 1) std::raise(SIGUSR2);
  const auto begin = std::chrono::steady_clock::now();
  const auto seconds = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); };
  // The others wait in a collective call meanwhile.
  while (world().is_root() && stop_signal() == 0 && seconds() < 20) std::this_thread::yield();
  EXPECT_LT(seconds(), 20);
  EXPECT_EQ(error_of([&] { world().heed(); }).code(), Exit::stopped);
  EXPECT_EQ(stop_signal(), SIGUSR2);
  signals.close();
  world().heed();  // nobody stops any more
}

// --- The file ---

Checkpoint small_checkpoint() {
  Checkpoint checkpoint;
  checkpoint.facts = {{"batch", "10"}, {"seed", ""}};
  Progress& progress = checkpoint.selections[{0, 0}];
  progress.selection.add(7, 0.5f, 2.0);
  progress.selection.add(3, std::nanf(""), HUGE_VAL);
  progress.moments = {0, 1.5};
  progress.gains = {{5, 12, 1}};
  Progress& node = checkpoint.selections[{1, 4}];
  node.selection.add(9, 0, 0);
  node.represents = {3};
  node.finished = true;
  return checkpoint;
}

TEST(File, SaysWhatWasWritten) {
  const Checkpoint read = Checkpoint::from_bytes(small_checkpoint().to_bytes(), "c");
  EXPECT_EQ(read.facts, small_checkpoint().facts);
  ASSERT_EQ(read.selections.size(), 2u);
  const Progress& progress = read.selections.at({0, 0});
  EXPECT_EQ(progress.selection.rows, (std::vector<std::int64_t>{7, 3}));
  EXPECT_EQ(progress.selection.gains, (std::vector<double>{2.0, HUGE_VAL}));
  EXPECT_TRUE(std::isnan(progress.selection.scores[1]));
  EXPECT_EQ(progress.moments, (std::vector<double>{0, 1.5}));
  EXPECT_EQ(progress.gains.at(0).row, 5);
  EXPECT_FALSE(progress.finished);
  EXPECT_TRUE(read.selections.at({1, 4}).finished);
  EXPECT_EQ(read.to_bytes(), small_checkpoint().to_bytes());
}

TEST(File, DamageIsAlwaysNoticed) {
  const std::string whole = small_checkpoint().to_bytes();
  for (std::size_t size = 0; size < whole.size(); ++size)
    expect_error(Exit::bad_data, "here.ck", [&] { Checkpoint::from_bytes(whole.substr(0, size), "here.ck"); });
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    expect_error(Exit::bad_data, "here.ck", [&] { Checkpoint::from_bytes(damaged, "here.ck"); });
  }
  expect_error(Exit::bad_data, "checksum", [&] { Checkpoint::from_bytes(whole + "x", "here.ck"); });
  expect_error(Exit::bad_data, "not a checkpoint", [&] { Checkpoint::from_bytes("id,row\n", "here.ck"); });
}

TEST(File, TheOlderOneIsTakenWhereTheNewestIsDamaged) {
  const Setting setting;
  for (const bool is_there : {true, false}) {
    setting.stop_twice();
    if (world().is_root()) {
      const std::string whole = content(setting.path());
      fs::remove(setting.path());
      if (is_there) write_text(setting.path(), whole.substr(0, whole.size() - 3));
    }
    std::vector<std::string> warnings;
    Console console;
    console.warn = [&](const std::string& text) { warnings.push_back(text); };
    const Outcome done = start(world(), setting.request, 0, 1, console);
    EXPECT_TRUE(done.bytes == setting.want) << done.text;
    EXPECT_EQ(warnings.size(), world().is_root() && is_there ? 1u : 0u);
    if (!warnings.empty()) {
      EXPECT_NE(warnings[0].find("older"), std::string::npos) << warnings[0];
    }
    world().barrier();
    EXPECT_FALSE(fs::exists(setting.path()) || fs::exists(setting.older()));
  }
}

TEST(File, WhereBothAreDamagedOnlyRestartHelps) {
  const Setting setting;
  setting.stop_twice();
  if (world().is_root())
    for (const std::string& path : {setting.path(), setting.older()}) write_text(path, content(path) + "x");
  const Outcome refused = start(world(), setting.request, 0);
  EXPECT_EQ(refused.code, 65);
  for (const std::string& words : {setting.path() + ": a damaged checkpoint",
                                   setting.older() + ": a damaged checkpoint", std::string("--restart discards both")})
    EXPECT_NE(refused.text.find(words), std::string::npos) << refused.text;
  Request again = setting.request;
  again.restart = true;
  EXPECT_TRUE(start(world(), again, 0).bytes == setting.want);
}

TEST(File, OfSomebodyElseIsLeftAlone) {
  const Setting setting;
  for (const std::string& path : {setting.path(), setting.older()}) {
    if (world().is_root()) write_text(path, "my thesis");
    world().barrier();
    Request request = setting.request;
    for (const bool restart : {false, true}) {
      request.restart = restart;
      const Outcome refused = start(world(), request, 0);
      EXPECT_EQ(refused.code, restart ? 73 : 65);
      EXPECT_NE(refused.text.find(path), std::string::npos) << refused.text;
      EXPECT_EQ(content(path), "my thesis");
      world().barrier();
    }
    request.force = true;
    EXPECT_TRUE(start(world(), request, 0).bytes == setting.want);
    world().barrier();
    EXPECT_FALSE(fs::exists(path));
  }
}

// Its beginning may be what was damaged, and a whole one beside it says that these are names of checkpoints.
TEST(File, ThatIsNoneIsPutAsideBesideAWholeOne) {
  const Setting setting;
  for (const std::string& path : {setting.path(), setting.older()}) {
    const std::string aside = path + ".damaged";
    const std::vector<std::function<std::string(std::string)>> damages{
        [](const std::string& whole) { return std::string(4, '\0') + whole.substr(4); },
        [](const std::string& whole) { return whole.substr(0, 3); },
        [](const std::string&) { return std::string("my thesis"); },
    };
    for (const auto& damage : damages) {
      setting.stop_twice();
      std::string damaged;
      if (world().is_root()) write_text(path, damaged = damage(content(path)));
      std::vector<std::string> warnings;
      Console console;
      console.warn = [&](const std::string& text) { warnings.push_back(text); };
      world().barrier();
      const Outcome done = start(world(), setting.request, 0, 1, console);
      EXPECT_TRUE(done.bytes == setting.want) << done.text;
      world().barrier();
      if (!world().is_root()) continue;
      ASSERT_EQ(warnings.size(), 1u);
      EXPECT_NE(warnings[0].find("kept as " + aside), std::string::npos) << warnings[0];
      EXPECT_EQ(content(aside), damaged);
      EXPECT_FALSE(fs::exists(path));
      fs::remove(aside);
    }
    // One that was put aside before is not overwritten.
    setting.stop_twice();
    if (world().is_root()) {
      write_text(path, "my thesis");
      write_text(aside, "my other thesis");
    }
    world().barrier();
    const Outcome refused = start(world(), setting.request, 0);
    EXPECT_EQ(refused.code, 73);
    EXPECT_EQ(content(path), "my thesis");
    EXPECT_EQ(content(aside), "my other thesis");
    world().barrier();
    Request request = setting.request;
    request.restart = request.force = true;
    EXPECT_TRUE(start(world(), request, 0).bytes == setting.want);
    world().barrier();
    if (world().is_root()) fs::remove(aside);
    world().barrier();
  }
}

// A pipe would be waited for, and a device has no content to look at.
TEST(File, MustBeARegularOne) {
  const Setting setting;
  const std::vector<std::function<void(const std::string&)>> kinds{
      [](const std::string& path) { ASSERT_EQ(mkfifo(path.c_str(), 0600), 0); },
      [](const std::string& path) { fs::create_symlink("/dev/null", path); },
      [](const std::string& path) { fs::create_directory(path); },
  };
  for (const auto& make : kinds)
    for (const std::string& path : {setting.path(), setting.older()}) {
      if (world().is_root()) make(path);
      Request request = setting.request;
      for (const int asks : {0, 1, 2}) {
        request.restart = asks > 0;
        request.force = asks > 1;
        const Outcome refused = start(world(), request, 0);
        EXPECT_EQ(refused.code, 73) << refused.text;
        EXPECT_NE(refused.text.find(path + ": not a regular file"), std::string::npos) << refused.text;
        EXPECT_EQ(refused.text.find('\n'), std::string::npos);
      }
      EXPECT_TRUE(fs::exists(path));
      world().barrier();
      if (world().is_root()) fs::remove(path);
    }
}

// Nobody is asked for another --out to be replaced, but once it is of this run it may be written again.
TEST(File, RemembersTheOutputOfItsRun) {
  const Setting setting;
  Request request = setting.request;
  request.out = setting.folder.path() + "/first.csv";
  const auto remembered = [&] {
    return Checkpoint::from_bytes(content(setting.path()), setting.path()).facts.at(Checkpoint::kOut);
  };
  EXPECT_EQ(start(world(), request, 1).code, 75);
  EXPECT_EQ(remembered(), fs::canonical(setting.folder.path()).string() + "/first.csv");
  world().barrier();
  request.out = setting.folder.path() + "/./second.csv";
  const Console console;
  Resume resume(world(), request, console);
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  EXPECT_TRUE(bytes_of(select(request, world(), *backend, console, &resume)) == setting.want);
  resume.close();
  resume.remember_output();
  EXPECT_EQ(remembered(), fs::canonical(setting.folder.path()).string() + "/second.csv");
  world().barrier();
  if (world().is_root()) resume.remove();
}

TEST(File, OfAnotherRequestNamesTheKey) {
  const Setting setting;
  setting.stop_twice();
  const std::vector<std::pair<std::string, std::function<void(Request&)>>> changes{
      {"batch is 40 there and 41 here", [](Request& r) { r.batch = 41; }},
      {"seed is 5 there and 6 here", [](Request& r) { r.seed = 6; }},
      {"strategy", [](Request& r) { r.strategy = "log_det"; }},
      {"set", [](Request& r) { r.set["first"] = "random"; }},
      {"normalize", [](Request& r) { r.normalize = Normalize::l2; }},
      {"reduce", [](Request& r) { r.reduce = Reduce::merge; }},
      {"exclude is", [](Request& r) { r.pool.exclude.clear(); }},
      {"pending is", [](Request& r) { r.pool.pending = r.pool.exclude; }},
      {"certificate", [](Request& r) { r.certificate = CertificateMode::full; }},
  };
  for (const auto& [names, change] : changes) {
    Request other = setting.request;
    change(other);
    const Outcome refused = start(world(), other, 0);
    EXPECT_EQ(refused.code, 65) << names;
    EXPECT_NE(refused.text.find(names), std::string::npos) << refused.text;
  }
  EXPECT_TRUE(start(world(), setting.request, 0).bytes == setting.want);  // it is still there
}

TEST(File, OfAnotherPoolNamesTheFingerprint) {
  const Setting setting;
  setting.stop_twice();
  Request other = setting.request;
  const SharedFolder folder(world());
  Scenario scenario{.pool = random_pool(600, 6, 3, 0, 304)};
  scenario.lists.excluded = {4, 5};
  other.pool = share_scenario(world(), scenario, folder);
  const Outcome refused = start(world(), other, 0);
  EXPECT_EQ(refused.code, 65);
  EXPECT_NE(refused.text.find("pool_fingerprint"), std::string::npos) << refused.text;
}

TEST(File, ThatCannotBeWrittenIsAWarning) {
  const Setting setting;
  Request request = setting.request;
  request.checkpoint = setting.folder.path() + "/absent/checkpoint";
  std::vector<std::string> warnings;
  Console console;
  console.warn = [&](const std::string& text) { warnings.push_back(text); };
  EXPECT_TRUE(start(world(), request, 0, 1, console).bytes == setting.want);
  EXPECT_EQ(warnings.empty(), !world().is_root());
  const Outcome stopped = start(world(), request, 0, 1, {}, [] { std::raise(SIGTERM); });
  EXPECT_EQ(stopped.code, 128 + SIGTERM) << stopped.text;
}

// --- Locks ---

TEST(Lock, KeepsASecondOutAndSaysWhoHasIt) {
  const Folder folder;
  const std::string path = folder.path() + "/batch.h5";
  {
    const FileLock first(path);
    expect_error(Exit::cannot_create, "process " + std::to_string(getpid()) + " on ", [&] { FileLock second(path); });
    const FileLock other(folder.path() + "/other.h5");
  }
  EXPECT_TRUE(folder.names().empty());
  write_text(folder.path() + "/.batch.h5.lock", "process 1 on a machine that lost its power");
  const FileLock taken_over(path);
}

}  // namespace
}  // namespace seine::test
