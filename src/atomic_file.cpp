#include "atomic_file.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <string_view>
#include <system_error>
#include <vector>

#include "descriptor.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& path, int error_number) {
  throw Error(Exit::cannot_create,
              fmt::format("cannot write {}: {}", path, std::generic_category().message(error_number)));
}

bool sync(const Descriptor& file) {
  // Some file systems have no fsync; their data are as safe as they get.
  return ::fsync(file.number()) == 0 || errno == EINVAL || errno == ENOTSUP;
}

bool write_all(const Descriptor& file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file.number(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// Whether the file has exactly this content; false with errno 0 where it was read and differs.
bool reads_back(const std::string& path, std::string_view text) {
  const Descriptor file(path, O_RDONLY);
  if (!file) return false;
  std::vector<char> buffer(std::size_t{1} << 20);
  while (true) {
    const ssize_t read = ::read(file.number(), buffer.data(), buffer.size());
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) return false;
    errno = 0;
    if (read == 0) return text.empty();
    const std::string_view piece(buffer.data(), static_cast<std::size_t>(read));
    if (!text.starts_with(piece)) return false;
    text.remove_prefix(piece.size());
  }
}

fs::path folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

// Removes files `prefix` + process number in `folder` whose process on this host is gone.
void remove_leftovers(const fs::path& folder, const std::string& prefix) {
  std::error_code ignored;  // what cannot be listed or removed is in nobody's way
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t process = 0;
    const char* const last = name.data() + name.size();
    const auto [parsed, status] = std::from_chars(name.data() + prefix.size(), last, process);
    const bool is_process = status == std::errc() && parsed == last && process > 0;
    if (is_process && ::kill(process, 0) != 0 && errno == ESRCH) ::unlink(entry->path().c_str());
  }
}

}  // namespace

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  std::error_code ignored;  // whatever keeps it from being looked at shows when it is written
  if (fs::is_directory(path_, ignored)) fail(path_, EISDIR);
  const fs::path folder = folder_of(path_);
  const std::string prefix = fmt::format(".{}.part-{}-", fs::path(path_).filename().string(), host_name());
  remove_leftovers(folder, prefix);
  temporary_ = (folder / (prefix + std::to_string(::getpid()))).string();
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write_text(const std::string& text) {
  Descriptor file(temporary_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  if (!file || !write_all(file, text) || !sync(file) || !file.close()) fail(path_, errno);
  if (reads_back(temporary_, text)) return;
  if (errno != 0) fail(path_, errno);
  throw Error(Exit::cannot_create, fmt::format("cannot write {}: it does not read back as it was written", path_));
}

void AtomicFile::commit() {
  Descriptor file(temporary_, O_RDONLY);
  if (!file || !sync(file) || !file.close()) fail(path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, errno);
  committed_ = true;
  // The output is there; a folder that cannot be opened or synced only delays when a power cut would keep it.
  const Descriptor folder(folder_of(path_).string(), O_RDONLY | O_DIRECTORY);
  if (folder) ::fsync(folder.number());
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw Error(Exit::cannot_create, fmt::format("cannot make the folder {}: {}", path, error.message()));
}

}  // namespace seine
