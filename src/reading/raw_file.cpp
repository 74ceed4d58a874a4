#include "reading/raw_file.hpp"

#include <errno.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "seine/error.hpp"

namespace seine {
namespace {

[[noreturn]] void fail_open(const std::string& path, int error_number) {
  const bool missing = error_number == ENOENT || error_number == ENOTDIR;
  const bool exhausted = error_number == EMFILE || error_number == ENFILE || error_number == ENOMEM;
  const Exit code = exhausted ? Exit::system : error_number == EIO ? Exit::io : Exit::no_input;
  throw Error(code, missing ? fmt::format("{}: no such file", path)
                            : fmt::format("{}: cannot be read: {}", path, std::strerror(error_number)));
}

// What the system says about a path; HDF5's own texts do not tell these cases apart.
Descriptor open_regular(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) fail_open(path, errno);
  if (S_ISDIR(status.st_mode)) throw Error(Exit::no_input, path + ": expected an HDF5 file, found a directory");
  if (!S_ISREG(status.st_mode)) throw Error(Exit::no_input, path + ": expected an HDF5 file, found no regular file");
  Descriptor file(path, O_RDONLY);
  if (!file) fail_open(path, errno);
  return file;
}

}  // namespace

bool read_at(const Descriptor& file, std::int64_t offset, std::size_t bytes, void* out) {
  auto* to = static_cast<std::byte*>(out);
  for (std::size_t done = 0; done < bytes;) {
    errno = 0;
    const ssize_t got = ::pread(file.number(), to + done, bytes - done, offset + static_cast<std::int64_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return true;
}

RawFile::RawFile(const std::string& path) : file_(open_regular(path)) {
  struct stat status {};
  if (::fstat(file_.number(), &status) != 0) fail_open(path, errno);
  if (status.st_size == 0) throw Error(Exit::bad_data, path + ": expected an HDF5 file, found an empty file");
}

void RawFile::read(std::int64_t offset, std::size_t bytes, void* out, const std::string& path,
                   const std::string& name) const {
  if (read_at(file_, offset, bytes, out)) return;
  const auto fail = [&](Exit code, const std::string& why) {
    throw Error(code, fmt::format("{}: dataset \"{}\": cannot be read: {}", path, name, why));
  };
  if (errno != 0) fail(Exit::io, std::strerror(errno));
  fail(Exit::bad_data, "truncated file");
}

RawFile RawFiles::take(std::size_t number, const std::string& path) {
  {
    const std::lock_guard lock(mutex_);
    const auto at = std::find_if(kept_.begin(), kept_.end(), [&](const auto& kept) { return kept.first == number; });
    if (at != kept_.end()) {
      RawFile file = std::move(at->second);
      kept_.erase(at);
      return file;
    }
  }
  return RawFile(path);
}

void RawFiles::give(std::size_t number, RawFile file) {
  const std::lock_guard lock(mutex_);
  kept_.emplace_front(number, std::move(file));
  if (kept_.size() > kKept) kept_.pop_back();
}

}  // namespace seine
