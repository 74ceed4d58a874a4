#include "reading/spill_file.hpp"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "reading/raw_file.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

// In memory: nothing would be won.
bool is_in_memory(const struct statfs& system) {
  return system.f_type == TMPFS_MAGIC || system.f_type == RAMFS_MAGIC;
}

std::string folder_for_spills() {
  const char* folder = std::getenv("TMPDIR");
  return folder && *folder ? folder : "/tmp";
}

}  // namespace

SpillFile::SpillFile(std::int64_t bytes) : folder_(folder_for_spills()) {
  const auto refuse = [&](const std::string& why) {
    throw Error(Exit::cannot_create, fmt::format("{}: no temporary file of {} bytes: {}", folder_, bytes, why));
  };
  struct statfs system {};
  if (::statfs(folder_.c_str(), &system) != 0) refuse(std::strerror(errno));
  if (is_in_memory(system)) refuse("a file system in memory");
  std::string path = (std::filesystem::path(folder_) / "seine_XXXXXX").string();
  file_ = Descriptor(::mkostemp(path.data(), O_CLOEXEC));
  if (!file_) refuse(std::strerror(errno));
  ::unlink(path.c_str());
  if (bytes == 0 || ::fallocate(file_.number(), 0, 0, bytes) == 0) return;
  if (errno != EOPNOTSUPP) refuse(std::strerror(errno));
  // Nothing can be reserved here.
  if (static_cast<double>(system.f_bavail) * static_cast<double>(system.f_bsize) < static_cast<double>(bytes))
    refuse(std::strerror(ENOSPC));
}

void SpillFile::fail(const char* what) const {
  throw Error(Exit::io, fmt::format("{}: temporary file: cannot be {}: {}", folder_, what,
                                    errno ? std::strerror(errno) : "it ends before"));
}

void SpillFile::write(std::int64_t offset, std::size_t bytes, const void* from) const {
  const auto* at = static_cast<const std::byte*>(from);
  for (std::size_t done = 0; done < bytes;) {
    const ssize_t put = ::pwrite(file_.number(), at + done, bytes - done, offset + static_cast<std::int64_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail("written");
    done += static_cast<std::size_t>(put);
  }
}

void SpillFile::read(std::int64_t offset, std::size_t bytes, void* out) const {
  if (!read_at(file_, offset, bytes, out)) fail("read");
}

}  // namespace seine
