#include "file_lock.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <filesystem>

#include "atomic_file.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

std::string who_am_i() {
  const auto now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  return fmt::format("process {} on {} since {:%Y-%m-%dT%H:%M:%SZ}", ::getpid(), host_name(), fmt::gmtime(now));
}

std::string holder_named_in(const Descriptor& file) {
  std::array<char, 512> text{};
  const ssize_t size = ::pread(file.number(), text.data(), text.size(), 0);
  return size > 0 ? std::string(text.data(), static_cast<std::size_t>(size)) : "another run";
}

}  // namespace

FileLock::FileLock(const std::string& path) : path_(path) {
  const std::filesystem::path file(path);
  lock_path_ = (file.parent_path() / fmt::format(".{}.lock", file.filename().string())).string();
  while (!take()) continue;
}

FileLock::~FileLock() {
  if (file_) ::unlink(lock_path_.c_str());  // before the lock ends
}

// False where the file vanished meanwhile: its holder has just ended.
bool FileLock::take() {
  file_ = Descriptor(lock_path_, O_RDWR | O_CREAT | O_NOFOLLOW);
  if (!file_) return true;
  if (::flock(file_.number(), LOCK_EX | LOCK_NB) != 0) {
    const int reason = errno;
    const std::string holder = holder_named_in(file_);
    file_ = {};
    if (reason == EINTR) return false;
    if (reason != EWOULDBLOCK) return true;
    throw Error(Exit::cannot_create, fmt::format("{}: in use by {}", path_, holder));
  }
  struct stat mine {
  }, there{};
  const bool is_there = ::fstat(file_.number(), &mine) == 0 && ::stat(lock_path_.c_str(), &there) == 0 &&
                        mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
  if (!is_there) {
    file_ = {};
    return false;
  }
  const std::string holder = who_am_i();
  [[maybe_unused]] const bool is_named =  // a full disk only leaves the next one without a name
      ::ftruncate(file_.number(), 0) == 0 && ::pwrite(file_.number(), holder.data(), holder.size(), 0) > 0;
  return true;
}

}  // namespace seine
