// Black box: runs of the real executable that are killed, signalled, kept from their files or given others, and then
// started again by the same command. What is random comes from a seed that is printed; SEINE_SEED sets it.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <functional>
#include <random>
#include <regex>

#include "launching.hpp"

namespace seine::test {
namespace {

namespace fs = std::filesystem;

unsigned seed() {
  static const unsigned value = [] {
    const char* given = std::getenv("SEINE_SEED");
    const unsigned chosen = given ? static_cast<unsigned>(std::stoul(given)) : std::random_device{}();
    std::printf("SEINE_SEED=%u\n", chosen);
    return chosen;
  }();
  return value;
}

// A pool in three shards, and a folder for what runs write.
class Site {
 public:
  Site() {
    TestPool content = random_pool(8000, 48, 3, 0, 500);
    add_number_ids(content);
    paths_ = write_pool(content, {.shard_rows = even_shards(content.rows, 3)}, pool_.path());
  }
  std::string path(const std::string& name) const { return folder_.path() + "/" + name; }
  const std::string& shard(std::size_t i) const { return paths_[i]; }
  Words names() const { return folder_.names(); }

  Words select(const std::string& strategy, int batch, const Words& more = {}) const {
    Words words = {"select", "--strategy", strategy, "--batch", std::to_string(batch), "--device",
                   "cpu",    "--threads",  "1",      "--out",   path("batch.json"),    "--pool"};
    append(words, paths_);
    append(words, more);
    return words;
  }
  // Some seconds of work, with a checkpoint; the same batch in less time, without one.
  Words slow(const Words& more = {}) const {
    Words words = fast();
    append(words, {"--memory", "0.035", "--checkpoint", path("checkpoint")});
    append(words, more);
    return words;
  }
  Words fast() const { return select("facility_location", 1200, {"--certificate", "off"}); }

 private:
  Folder pool_, folder_;
  Words paths_;
};

// The ranks of a run, stopped once it has made a file and until this is gone: what is tried meanwhile is tried in the
// middle of the run, however fast the machine is.
class Frozen {
 public:
  Frozen(const Launched& run, int ranks, const std::string& file, double seconds_more = 0) {
    wait_for_file(file, 30);
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds_more));
    for (const pid_t rank : processes_ = run.ranks()) kill(rank, SIGSTOP);
    EXPECT_EQ(processes_.size(), static_cast<std::size_t>(ranks)) << "the run ended too early";
    processes_.resize(static_cast<std::size_t>(ranks), 0);
  }
  ~Frozen() {
    for (std::size_t rank = 0; rank < processes_.size(); ++rank) send(rank, SIGCONT);
  }
  Frozen(const Frozen&) = delete;
  Frozen& operator=(const Frozen&) = delete;

  pid_t process(std::size_t rank) const { return processes_[rank]; }
  void send(std::size_t rank, int number) const {
    if (processes_[rank] > 0) kill(processes_[rank], number);
  }

 private:
  std::vector<pid_t> processes_;
};

// Starts `words`, and sends `number` to one of its ranks while it works.
Ended signalled(const Site& site, int ranks, const Words& words, int number, std::size_t rank) {
  Launched run(ranks, words);
  Frozen(run, ranks, site.path(".checkpoint.lock"), 0.05).send(rank, number);
  return run.wait();
}

void expect_stopped(const Ended& ended, int code, const std::string& mention) {
  SCOPED_TRACE(ended.err);
  EXPECT_FALSE(ended.hung);
  EXPECT_LT(ended.seconds, 10);
  EXPECT_EQ(ended.code, code);
  EXPECT_EQ(ended.out, "");
  const Words lines = ended.error_lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_NE(lines[0].find(mention), std::string::npos);
}

void expect_done(const Ended& ended, const std::string& digest, const Site& site) {
  SCOPED_TRACE(ended.err);
  EXPECT_EQ(ended.code, 0);
  EXPECT_EQ(ended.digest(), digest);
  EXPECT_EQ(site.names(), Words{"batch.json"});
}

// --- Killed ---

// One of the ranks, some seconds after the first of them is there.
void kill_one(const Launched& run, double after, int which) {
  while (run.ranks().empty() && run.seconds() < 30) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  std::this_thread::sleep_for(std::chrono::duration<double>(after));
  const std::vector<pid_t> ranks = run.ranks();
  if (!ranks.empty()) kill(ranks[static_cast<std::size_t>(which) % ranks.size()], SIGKILL);
}

// The launcher ends, too, and the others with it; PMIX_MCA_gds in launching.hpp says what was amiss.
TEST(Killed, WhileMpiStarts) {
  const Site site;
  std::mt19937 random(seed());
  const auto draw = [&](unsigned below) { return static_cast<int>(random() % below); };
  const Words words = site.slow();
  for (int n = 0; n < 12; ++n) {
    Launched run(2, words);
    kill_one(run, 0.001 * draw(120), draw(2));
    const Ended ended = run.wait();
    ASSERT_FALSE(ended.hung) << ended.err;
    ASSERT_NE(ended.code, 0);
  }
}

TEST(Killed, AtARandomMomentAndStartedAgain) {
  const Site site;
  std::mt19937 random(seed());
  const auto draw = [&](int below) { return static_cast<int>(random() % static_cast<unsigned>(below)); };
  const std::vector<std::pair<std::string, Words>> cases = {
      {"facility_location", {}},
      {"k_means_pp", {"--reduce", "merge", "--partitions", "8", "--fan-in", "3"}},
      {"badge", {"--memory", "0.04"}}};
  for (const auto& [strategy, more] : cases) {
    Words words = site.select(strategy, 150, more);
    const std::string digest = launch(1, words).digest();
    append(words, {"--checkpoint", site.path("checkpoint"), "--checkpoint-every", "0.02"});
    Ended ended;
    int kills = 0;
    do {
      Launched run(1 + draw(4), words);
      if (kills < 3) kill_one(run, 0.001 * draw(1000), draw(4));
      ended = run.wait();
      ASSERT_FALSE(ended.hung) << ended.err;
      ASSERT_TRUE(ended.error_lines().empty()) << ended.err;
    } while (ended.code != 0 && ++kills < 10);
    SCOPED_TRACE(strategy + " after " + std::to_string(kills) + " kills");
    expect_done(ended, digest, site);
    fs::remove(site.path("batch.json"));
  }
}

// Before there is a pick, facility location knows gains, which took long.
TEST(Killed, InALongFirstPass) {
  const Site site;
  const Words words = site.slow({"--checkpoint-every", "0.05"});
  const std::string digest = launch(1, site.fast()).digest();
  bool had_gains = false;
  for (int n = 0; n < 5 && !had_gains; ++n) {  // on a busy machine the pass may be over before it is noticed
    fs::remove(site.path("batch.json"));
    Launched run(2, words);
    Frozen(run, 2, site.path("checkpoint.previous")).send(0, SIGKILL);
    EXPECT_NE(run.wait().code, 0);
    const Ended resumed = launch(1, words, 60);
    had_gains = std::regex_search(resumed.err, std::regex("going on from [^ ]*: [0-9]+ picks? and [0-9]+ gains"));
    expect_done(resumed, digest, site);
  }
  EXPECT_TRUE(had_gains);
}

// The output is renamed first, then the checkpoint goes: a run that is killed between them does its end again.
TEST(Killed, BetweenOutputAndCheckpoint) {
  const Site site;
  expect_stopped(signalled(site, 1, site.slow(), SIGUSR1, 0), 75, "SIGUSR1");
  EXPECT_EQ(site.names(), Words{"checkpoint"});
  const std::string kept = content(site.path("checkpoint"));
  const Words words = site.slow();
  const std::string digest = launch(1, site.fast()).digest();
  write_text(site.path("checkpoint"), kept);
  expect_done(launch(2, words, 60), digest, site);
}

// The same with a .csv, which does not say of which request it is: the checkpoint does, whichever generation is left.
// Another .csv is nobody's to replace.
TEST(Killed, BetweenATableAndEitherGeneration) {
  const Site site;
  const auto words_to = [&](const std::string& name, const Words& from) {
    Words words = from;
    *std::find(words.begin(), words.end(), site.path("batch.json")) = site.path(name);
    return words;
  };
  expect_stopped(signalled(site, 1, words_to("batch.csv", site.slow()), SIGUSR1, 0), 75, "SIGUSR1");
  const std::string kept = content(site.path("checkpoint"));
  write_text(site.path("precious.csv"), "id,row,score,gain\n1,1,1,1\n");
  const std::string digest = launch(1, words_to("batch.csv", site.fast())).digest();
  const std::string batch = content(site.path("batch.csv"));
  for (const char* generation : {"checkpoint", "checkpoint.previous"}) {
    fs::remove(site.path("checkpoint"));
    write_text(site.path(generation), kept);
    expect_stopped(launch(2, words_to("precious.csv", site.slow())), 73, site.path("precious.csv"));
    EXPECT_EQ(content(site.path("precious.csv")), "id,row,score,gain\n1,1,1,1\n");
    const Ended again = launch(2, words_to("batch.csv", site.slow()), 60);
    EXPECT_EQ(again.code, 0) << again.err;
    EXPECT_EQ(again.digest(), digest);
    EXPECT_EQ(content(site.path("batch.csv")), batch);
    EXPECT_EQ(site.names(), (Words{"batch.csv", "precious.csv"}));
  }
}

// --- Signalled ---

TEST(Signalled, OneRankStopsAll) {
  const Site site;
  std::mt19937 random(seed());
  for (const int number : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2}) {
    const std::size_t rank = random() % 3;
    SCOPED_TRACE("rank " + std::to_string(rank));
    expect_stopped(signalled(site, 3, site.slow(), number, rank), 75, site.path("checkpoint"));
    EXPECT_TRUE(fs::exists(site.path("checkpoint")));
  }
  const std::string digest = launch(1, site.fast()).digest();
  expect_done(launch(2, site.slow(), 60), digest, site);
}

// Both are there when the process goes on.
// As soon as the process has begun, long before MPI is up.
TEST(Signalled, WhileItStarts) {
  const Site site;
  Launched run(1, site.slow());
  std::vector<pid_t> ranks;
  const auto is_ready = [&] {
    ranks = run.ranks();
    if (ranks.size() != 1) return false;
    std::ifstream status("/proc/" + std::to_string(ranks[0]) + "/status");
    for (std::string word; status >> word;)
      if (word == "SigCgt:" && status >> word) return (std::stoull(word, nullptr, 16) >> (SIGUSR1 - 1) & 1) != 0;
    return false;
  };
  for (int k = 0; k < 30000 && !is_ready(); ++k) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  ASSERT_EQ(ranks.size(), 1u);
  EXPECT_FALSE(fs::exists(site.path(".checkpoint.lock"))) << "it was too late";
  kill(ranks[0], SIGUSR1);
  expect_stopped(run.wait(), 75, "SIGUSR1");
  EXPECT_TRUE(fs::exists(site.path("checkpoint")));
}

TEST(Signalled, ACheckpointThatIsGoneIsNotPromised) {
  const Site site;
  const std::string folder = site.path("folder");
  fs::create_directory(folder);
  Words words = site.select("facility_location", 1200, {"--certificate", "off", "--checkpoint-every", "0.01"});
  append(words, {"--checkpoint", folder + "/checkpoint"});
  Launched run(1, words);
  {
    const Frozen frozen(run, 1, folder + "/checkpoint");
    fs::remove_all(folder);
    frozen.send(0, SIGUSR1);
  }
  const Ended ended = run.wait();
  EXPECT_EQ(ended.code, 128 + SIGUSR1) << ended.err;
}

TEST(Signalled, ASecondSignalEndsAtOnce) {
  const Site site;
  Launched run(1, site.slow());
  {
    const Frozen frozen(run, 1, site.path(".checkpoint.lock"), 0.05);
    for (const int number : {SIGUSR1, SIGUSR2}) frozen.send(0, number);
  }
  const Ended ended = run.wait();
  EXPECT_TRUE(ended.code == 128 + SIGUSR1 || ended.code == 128 + SIGUSR2) << ended.code << ended.err;
  EXPECT_FALSE(fs::exists(site.path("checkpoint")));
}

TEST(Signalled, WithoutACheckpointTheSignalEndsTheRun) {
  const Site site;
  Words words = site.fast();
  append(words, {"--memory", "0.035"});
  Launched run(1, words);
  Frozen(run, 1, site.path(".batch.json.lock"), 0.05).send(0, SIGUSR1);
  EXPECT_EQ(run.wait().code, 128 + SIGUSR1);
  EXPECT_FALSE(fs::exists(site.path("batch.json")));
}

// --- A checkpoint that cannot be written: a warning, and the run goes on ---

TEST(Unwritable, Folder) {
  const Site site;
  Words words = site.select("k_center", 20, {"--checkpoint", "/proc/checkpoint"});
  const Ended ended = launch(2, words);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.err.find("warning: no checkpoint: cannot write /proc/checkpoint"), std::string::npos) << ended.err;
  EXPECT_TRUE(ended.error_lines().empty());
}

TEST(Unwritable, FullDisk) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a small file system needs root";
  const Site site;
  const std::string disk = site.path("disk");
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=16k") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  Words words = site.select("facility_location", 100, {"--checkpoint", disk + "/ck", "--checkpoint-every", "0.01"});
  const Ended ended = launch(2, words);
  EXPECT_EQ(ended.code, 0) << ended.err;
  EXPECT_NE(ended.err.find("warning: no checkpoint: cannot write " + disk), std::string::npos) << ended.err;
  EXPECT_TRUE(fs::is_empty(disk)) << "left behind: " << fs::directory_iterator(disk)->path();
  umount(disk.c_str());
}

TEST(Unwritable, ReadOnlyDisk) {
  if (geteuid() != 0) GTEST_SKIP() << "mounting a file system needs root";
  const Site site;
  const std::string disk = site.path("disk");
  fs::create_directory(disk);
  if (mount("tmpfs", disk.c_str(), "tmpfs", MS_RDONLY, "size=1m") != 0)
    GTEST_SKIP() << "cannot mount a tmpfs: " << std::strerror(errno);
  const Ended checkpoint = launch(2, site.select("k_center", 20, {"--checkpoint", disk + "/ck"}));
  EXPECT_EQ(checkpoint.code, 0) << checkpoint.err;
  EXPECT_NE(checkpoint.err.find("warning: no checkpoint: cannot write " + disk), std::string::npos) << checkpoint.err;
  Words output = site.select("k_center", 20);
  *std::find(output.begin(), output.end(), site.path("batch.json")) = disk + "/batch.json";
  expect_stopped(launch(2, output), 73, std::strerror(EROFS));
  umount(disk.c_str());
}

// --- Files that change between start and end ---

// By a rename, as tools do that write files whole.
void replace_file(const std::string& path, const std::string& text) {
  write_text(path + ".new", text);
  fs::rename(path + ".new", path);
}

TEST(Changed, PoolUnderACheckpoint) {
  const Site site;
  const Words words = site.slow({"--checkpoint-every", "0.05"});
  Launched first(2, words);
  Frozen(first, 2, site.path("checkpoint")).send(1, SIGUSR1);  // the pool has been read, and it knows which
  expect_stopped(first.wait(), 75, "SIGUSR1");
  const std::string whole = content(site.shard(1)), kept = content(site.path("checkpoint"));
  std::string other = whole;  // a bit of the mantissa of some value
  other[other.size() / 2] = static_cast<char>(other[other.size() / 2] ^ 1);
  write_text(site.shard(1), other);
  expect_stopped(launch(2, words), 65, "pool_fingerprint");
  write_text(site.shard(1), whole.substr(0, whole.size() / 2));
  expect_stopped(launch(2, words), 65, site.shard(1));
  fs::remove(site.shard(1));
  expect_stopped(launch(2, words), 66, site.shard(1));
  write_text(site.shard(1), whole);
  fs::permissions(site.shard(1), fs::perms::none);
  const bool tried = without_privileges([&] { expect_stopped(launch(2, words), 66, site.shard(1)); });
  if (!tried) std::printf("not tried: root may read everything here\n");
  fs::permissions(site.shard(1), fs::perms::owner_all);
  EXPECT_TRUE(content(site.path("checkpoint")) == kept);
  // The same rows in another file, and a file that somebody has locked, are no hindrance.
  replace_file(site.shard(0), content(site.shard(0)));
  const int locked = open(site.shard(2).c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(locked, LOCK_EX | LOCK_NB), 0);
  const Ended resumed = launch(2, words, 60);
  EXPECT_NE(resumed.err.find("going on from " + site.path("checkpoint")), std::string::npos) << resumed.err;
  expect_done(resumed, launch(1, site.fast()).digest(), site);
  close(locked);
}

// Rows that are read again are then of another pool: no batch, and no checkpoint that mixes them.
TEST(Changed, PoolUnderARun) {
  const Site site;
  const std::string whole = content(site.shard(1));
  std::string other = whole;
  other[other.size() / 2] = static_cast<char>(other[other.size() / 2] ^ 1);
  Launched run(2, site.slow({"--checkpoint-every", "0.05"}));
  {
    const Frozen frozen(run, 2, site.path("checkpoint"));
    replace_file(site.shard(1), other);
  }
  expect_stopped(run.wait(), 65, site.shard(1) + ": written to or replaced");
  replace_file(site.shard(1), whole);
  expect_done(launch(2, site.slow(), 60), launch(1, site.fast()).digest(), site);
}

TEST(Changed, CheckpointOfAnotherRequest) {
  const Site site;
  expect_stopped(signalled(site, 2, site.slow(), SIGUSR1, 0), 75, "SIGUSR1");
  expect_stopped(launch(2, site.slow({"--seed", "9"})), 65, "seed is 0 there and 9 here");
  write_text(site.path("checkpoint"), content(site.path("checkpoint")) + "x");
  expect_stopped(launch(2, site.slow()), 65, "--restart");
}

// --- A clock that is wrong ---

TEST(Clock, ThatJumpsChangesNothing) {
  const char* library = std::getenv("SEINE_WRONG_CLOCK");
  if (!library) GTEST_SKIP() << "SEINE_WRONG_CLOCK is not set: sanitizers cannot be preloaded";
  const std::string preload = std::string("LD_PRELOAD=") + library;
  const Site site;
  constexpr std::time_t ahead = 1000000000;
  const std::string digest =
      launch(1, site.fast(), kLimitSeconds, {preload, "SEINE_CLOCK_OFFSET=" + std::to_string(ahead)}).digest();
  const std::time_t then = std::time(nullptr) + ahead;
  char year[8];
  std::strftime(year, sizeof year, "%Y-", std::gmtime(&then));
  EXPECT_NE(content(site.path("batch.json")).find(std::string("\"created\": \"") + year), std::string::npos);

  constexpr double every = 0.2;
  const Words words = site.slow({"--checkpoint-every", std::to_string(every)});
  Launched run(2, words, {preload});
  Frozen(run, 2, site.path("checkpoint")).send(1, SIGUSR2);
  expect_stopped(run.wait(), 75, "SIGUSR2");
  const Ended resumed = launch(2, words, 60, {preload});
  expect_done(resumed, digest, site);
  int saved = 0;
  for (std::size_t at = 0; (at = resumed.err.find("checkpoint of ", at)) != std::string::npos; ++at) ++saved;
  EXPECT_GE(saved, 1);
  EXPECT_LE(saved, resumed.seconds / every);
}

// --- Two runs ---

TEST(TwoRuns, TheSecondIsToldWhoWrites) {
  const Site site;
  Launched first(1, site.slow());
  const Frozen frozen(first, 1, site.path(".checkpoint.lock"), 0.05);
  const std::string holder = "in use by process " + std::to_string(frozen.process(0)) + " on ";
  Words other_checkpoint = site.select("random", 5, {"--checkpoint", site.path("other")});
  expect_stopped(launch(2, other_checkpoint), 73, site.path("batch.json") + ": " + holder);
  Words other_out = site.slow();
  *(std::find(other_out.begin(), other_out.end(), site.path("batch.json"))) = site.path("other.csv");
  expect_stopped(launch(1, other_out), 73, site.path("checkpoint") + ": " + holder);
  frozen.send(0, SIGKILL);
  first.wait();
  EXPECT_TRUE(fs::exists(site.path(".batch.json.lock")));  // stale, and in nobody's way
  EXPECT_EQ(launch(2, site.select("random", 5)).code, 0);
}

}  // namespace
}  // namespace seine::test
