// The real executable (environment variable SEINE_BIN) under the real mpirun, as a script would start it.
#pragma once

#include <fcntl.h>
#include <linux/capability.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "pools.hpp"

extern char** environ;

namespace seine::test {

using Words = std::vector<std::string>;
constexpr double kLimitSeconds = 20;

inline void append(Words& to, const Words& more) {
  to.insert(to.end(), more.begin(), more.end());
}

struct Ended {
  int code = -1;
  bool hung = false;
  double seconds = 0;
  std::string out, err;

  Words error_lines() const {
    Words lines = lines_with("seine: error:");
    std::erase_if(lines, [](const std::string& line) { return !line.starts_with("seine: error:"); });
    return lines;
  }
  Words lines_with(const std::string& part) const {
    Words lines;
    std::istringstream text(err);
    for (std::string line; std::getline(text, line);)
      if (line.find(part) != std::string::npos) lines.push_back(line);
    return lines;
  }
  // "digest=" and its digits; where there are none, what was said instead.
  std::string digest() const {
    std::smatch found;
    return std::regex_search(out, found, std::regex("digest=[0-9a-f]{32}")) ? found.str() : "no digest: " + err;
  }
};

// A command, while it runs.
class Launched {
 public:
  // SEINE_BIN with some words, under mpirun; 0 ranks: alone.
  Launched(int ranks, const Words& words, const Words& variables = {})
      : Launched(with_ranks(ranks, words), variables) {}
  // Any command. `variables`, NAME=VALUE, go before those of this process; what a launcher made of these is left out.
  Launched(Words command, Words variables) {
    std::vector<char*> argv = pointers(command);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, out().c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addopen(&files, 2, err().c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawnattr_t how;
    posix_spawnattr_init(&how);
    posix_spawnattr_setflags(&how, POSIX_SPAWN_SETPGROUP);  // a group of its own, so that a hang can be ended
    posix_spawnattr_setpgroup(&how, 0);
    const auto add = [&](const std::string& variable) {
      const std::string name = variable.substr(0, variable.find('=') + 1);
      if (std::none_of(variables.begin(), variables.end(), [&](const auto& one) { return one.starts_with(name); }))
        variables.push_back(variable);
    };
    add("OMPI_MCA_orte_tmpdir_base=" + folder_.path());  // or two launches race to create one folder
    for (char** variable = environ; *variable; ++variable)
      if (!is_of_launcher(*variable)) add(*variable);
    const int failed = posix_spawnp(&launcher_, argv[0], &files, &how, argv.data(), pointers(variables).data());
    posix_spawn_file_actions_destroy(&files);
    posix_spawnattr_destroy(&how);
    if (failed != 0) throw std::runtime_error("cannot start " + command[0]);
  }

  // Ends the whole group after the limit.
  Ended wait(double limit = kLimitSeconds) {
    Ended ended;
    int status = 0;
    while (waitpid(launcher_, &status, WNOHANG) == 0) {
      ended.seconds = seconds();
      if (ended.seconds > limit) {
        ended.hung = true;
        kill(-launcher_, SIGTERM);  // mpirun ends its ranks
        std::this_thread::sleep_for(std::chrono::seconds(2));
        kill(-launcher_, SIGKILL);
        waitpid(launcher_, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    ended.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    ended.out = content(out());
    ended.err = content(err());
    return ended;
  }

  // Of the ranks that have started: the processes whose parent is the launcher.
  std::vector<pid_t> ranks() const {
    std::vector<pid_t> found;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
      const std::string name = entry.path().filename().string();
      if (name.find_first_not_of("0123456789") != std::string::npos) continue;
      const std::string stat = content("/proc/" + name + "/stat");  // "number (name) state parent ..."
      const std::size_t end = stat.rfind(')');
      if (end == std::string::npos || stat.find("(seine)") == std::string::npos) continue;
      std::istringstream fields(stat.substr(end + 1));
      std::string state;
      pid_t parent = 0;
      fields >> state >> parent;
      if (parent == launcher_) found.push_back(static_cast<pid_t>(std::stol(name)));
    }
    std::sort(found.begin(), found.end());
    return found;
  }
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

 private:
  static Words with_ranks(int ranks, const Words& words) {
    Words all;
    if (ranks > 0)
      all = {std::getenv("SEINE_MPIEXEC") ? std::getenv("SEINE_MPIEXEC") : "mpirun", "-n", std::to_string(ranks),
             "--oversubscribe"};
    all.push_back(std::getenv("SEINE_BIN"));
    append(all, words);
    return all;
  }
  static bool is_of_launcher(std::string_view variable) {
    if (variable.starts_with("PMIX_MCA_")) return false;  // a setting
    for (const char* prefix :
         {"OMPI_COMM", "OMPI_UNIVERSE", "OMPI_MCA_ess", "OMPI_MCA_orte", "PMIX_", "PMI_", "SLURM_"})
      if (variable.starts_with(prefix)) return true;
    return false;
  }
  static std::vector<char*> pointers(Words& words) {
    std::vector<char*> out;
    for (std::string& word : words) out.push_back(word.data());
    out.push_back(nullptr);
    return out;
  }
  std::string out() const { return folder_.path() + "/out"; }
  std::string err() const { return folder_.path() + "/err"; }

  Folder folder_;
  pid_t launcher_ = 0;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

inline Ended launch(int ranks, const Words& words, double limit = kLimitSeconds, const Words& more = {}) {
  return Launched(ranks, words, more).wait(limit);
}

// Launches go side by side.
inline void at_once(const std::vector<std::function<void()>>& tasks) {
  std::atomic<std::size_t> next = 0;
  std::vector<std::jthread> workers;
  for (int worker = 0; worker < 3; ++worker)
    workers.emplace_back([&] {
      for (std::size_t task = next++; task < tasks.size(); task = next++) tasks[task]();
    });
}

// Runs `work` where permissions bind what it starts, although it be started by root; false where that is not possible.
inline bool without_privileges(const std::function<void()>& work) {
  bool binds = geteuid() != 0;
  std::thread([&] {  // what a process may at most do is a property of the thread that starts it
    binds =
        binds || (prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE) == 0 && prctl(PR_CAPBSET_DROP, CAP_DAC_READ_SEARCH) == 0);
    if (binds) work();
  })
      .join();
  return binds;
}

// What mpirun needs where ctest did not set it, for a run by hand.
inline const bool environment_is_set = [] {
  for (const auto& [name, value] :
       {std::pair{"OMPI_ALLOW_RUN_AS_ROOT", "1"},
        {"OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1"},
        {"OMPI_MCA_rmaps_base_oversubscribe", "1"},
        {"OMPI_MCA_mpi_yield_when_idle", "1"},
        {"OMPI_MCA_odls_base_sigkill_timeout", "0"},  // or mpirun sleeps for 2 s after every failure
        {"OMPI_MCA_hwloc_base_binding_policy", "none"},
        {"OMPI_MCA_pml", "ob1"},
        {"OMPI_MCA_btl", "self,vader"},
        {"PMIX_MCA_gds", "hash"}})  // or mpirun waits for ever, now and then, where a rank is killed while MPI starts
    setenv(name, value, 0);
  if (!std::getenv("SEINE_BIN")) {
    std::fprintf(stderr, "SEINE_BIN is not set\n");
    std::exit(1);
  }
  return true;
}();

}  // namespace seine::test
