#include "reading/fence.hpp"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <initializer_list>
#include <new>
#include <optional>
#include <sstream>

#include "descriptor.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

constexpr long kMostKibibytes = 1L << 20;  // beyond what this process has
constexpr int kTooLarge = 3;               // how a child ends that asked for more

constexpr std::array kFatal{SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};

// Nothing of the child is seen: no core file, no text of MPI's own handlers, no life of its own.
void withdraw() {
  for (int signal : kFatal) ::signal(signal, SIG_DFL);
  for (int signal : {SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGXCPU}) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const struct rlimit no_core { 0, 0 };
  setrlimit(RLIMIT_CORE, &no_core);
  const int nowhere = ::open("/dev/null", O_RDWR);
  for (int stream : {STDOUT_FILENO, STDERR_FILENO}) dup2(nowhere, stream);
}

// Processor time, not time: a slow disk is no fault. What the library reads of a sound file takes a tenth of that.
void limit_time(const std::string& path) {
  constexpr rlim_t most_seconds = 2, bytes_per_second = 10'000'000;
  struct stat status {};
  ::stat(path.c_str(), &status);
  struct rlimit limit {};
  getrlimit(RLIMIT_CPU, &limit);
  limit.rlim_cur = std::min(limit.rlim_max, most_seconds + static_cast<rlim_t>(status.st_size) / bytes_per_second);
  setrlimit(RLIMIT_CPU, &limit);
}

long kibibytes_of_process() {
  std::ifstream pages("/proc/self/statm");
  long size = 0;
  pages >> size;
  return size * (sysconf(_SC_PAGESIZE) / 1024);
}

// The library may also go round in circles and take memory each time.
void limit_memory() {
  struct rlimit limit {};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = std::min(limit.rlim_cur, static_cast<rlim_t>(kibibytes_of_process() + kMostKibibytes) * 1024);
  setrlimit(RLIMIT_AS, &limit);
}

class Pipe {
 public:
  Pipe() {
    int ends[] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0) return;
    out_ = Descriptor(ends[0]);
    in_ = Descriptor(ends[1]);
  }
  explicit operator bool() const { return static_cast<bool>(in_); }
  void close_in() { in_ = {}; }
  void write(const std::string& text) const {
    if (::write(in_.number(), text.data(), text.size()) < 0) _exit(1);  // nobody listens any more
  }
  // Calls silent() after every second without a word.
  template <class Silent>
  std::string read_to_end(const Silent& silent) const {
    constexpr int kSecond = 1000;
    std::string text;
    std::array<char, 4096> buffer;
    while (true) {
      pollfd word{out_.number(), POLLIN, 0};
      if (::poll(&word, 1, kSecond) == 0) {
        silent();
        continue;
      }
      const ssize_t got = ::read(out_.number(), buffer.data(), buffer.size());
      if (got == 0 || (got < 0 && errno != EINTR)) return text;
      if (got > 0) text.append(buffer.data(), static_cast<std::size_t>(got));
    }
  }

 private:
  Descriptor out_, in_;
};

// Whether a child sleeps for good: it may be born with a lock in its memory that a thread of this process held, and
// that nobody gives back there. What waits for a disk or computes does not sleep.
class Watch {
 public:
  explicit Watch(pid_t child) : stat_(fmt::format("/proc/{}/stat", child)) {}

  // To be asked every second.
  bool sleeps_for_good() {
    constexpr int kMostSeconds = 5;
    const std::string now = state_and_times();
    seconds_ = now.starts_with('S') && now == before_ ? seconds_ + 1 : 0;
    before_ = now;
    return seconds_ >= kMostSeconds;
  }

 private:
  std::string state_and_times() const {  // "number (name) state ...": the 3rd, 14th and 15th word
    std::string text, word;
    std::getline(std::ifstream(stat_), text);
    std::istringstream words(text.substr(std::min(text.size(), text.rfind(')') + 1)));
    std::string found;
    for (int k = 3; k <= 15 && words >> word; ++k)
      if (k == 3 || k >= 14) found += word + ' ';
    return found;
  }

  std::string stat_, before_;
  int seconds_ = 0;
};

[[noreturn]] void read_as_child(const std::string& path, const std::function<void(const SayNext&)>& read,
                                const Pipe& pipe) {
  withdraw();
  limit_time(path);
  limit_memory();
  try {
    read([&](const std::string& name) { pipe.write('\n' + name); });
  } catch (const Error& error) {  // the parent will meet it, unless it came of the limit here
    if (error.code() == Exit::system) _exit(kTooLarge);
  } catch (const std::bad_alloc&) {
    _exit(kTooLarge);
  }
  _exit(0);  // no destructor, no exit handler: they belong to the parent
}

// How a child ended, and what it said.
struct Trial {
  int status = 0;
  bool stuck = false;
  std::string said;
};

// Nothing where there is no room for another process, or somebody else waited for it.
std::optional<Trial> trial_of(const std::string& path, const std::function<void(const SayNext&)>& read) {
  Pipe pipe;
  const pid_t child = pipe ? ::fork() : -1;
  if (child < 0) return std::nullopt;
  if (child == 0) read_as_child(path, read, pipe);
  pipe.close_in();
  Trial trial;
  Watch watch(child);
  trial.said = pipe.read_to_end([&] {
    if (watch.sleeps_for_good()) trial.stuck = ::kill(child, SIGKILL) == 0;
  });
  pid_t ended = 0;
  do ended = ::waitpid(child, &trial.status, 0);
  while (ended < 0 && errno == EINTR);
  if (ended != child) return std::nullopt;
  return trial;
}

}  // namespace

void try_in_child(const std::string& path, const std::function<void(const SayNext&)>& read) {
  constexpr int kTrials = 3;
  std::optional<Trial> trial = trial_of(path, read);
  for (int k = 1; k < kTrials && trial && trial->stuck; ++k) trial = trial_of(path, read);
  if (!trial || trial->stuck) return;  // sound files need no fence
  const auto& [status, stuck, said] = *trial;
  const int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const bool is_endless = signal == SIGXCPU, is_large = WIFEXITED(status) && WEXITSTATUS(status) == kTooLarge;
  const bool crashed = std::find(kFatal.begin(), kFatal.end(), signal) != kFatal.end();
  if (!is_endless && !is_large && !crashed) return;  // sound, or ended by somebody else
  const std::string name = said.substr(said.rfind('\n') + 1);
  const char* how = crashed    ? "crashes when it reads it"
                    : is_large ? "takes more than 1 GiB to read it"
                               : "does not come to an end of reading it";
  throw Error(Exit::bad_data, fmt::format("{}: {}damaged: the HDF5 library {}", path,
                                          said.empty() ? "" : fmt::format("dataset \"{}\": ", name), how));
}

}  // namespace seine
