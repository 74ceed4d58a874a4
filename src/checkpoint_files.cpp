#include "seine/checkpoint_files.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>
#include <tuple>

#include "atomic_file.hpp"
#include "file_content.hpp"
#include "seine/checkpoint.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

namespace fs = std::filesystem;

// Asked before a file is opened: a pipe would keep its reader for ever.
void require_regular(const std::string& path) {
  std::error_code ignored;  // what cannot be looked at shows when it is read
  const fs::file_status status = fs::status(path, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status))
    throw Error(Exit::cannot_create, fmt::format("{}: not a regular file, so no checkpoint can be kept there", path));
}

// Absent where there is none.
std::optional<std::string> bytes_at(const std::string& path) {
  require_regular(path);
  return read_file(path);
}

// Whether nobody misses it who discards a checkpoint: it is or was one, or is empty.
bool is_ours(std::string_view bytes) {
  return bytes.empty() || Checkpoint::begins(bytes);
}

// By its beginning, as checkpoints are long. Another file may be dear to somebody.
bool is_foreign(const std::string& path) {
  require_regular(path);
  const std::optional<std::string> beginning = beginning_of(path);
  std::error_code ignored;  // what cannot be looked at cannot be removed either
  return beginning ? !is_ours(*beginning) : fs::exists(path, ignored);
}

// One of the two files, read and checked.
struct Generation {
  std::string path;
  std::optional<std::string> bytes;  // absent: there is no file
  std::optional<Error> fault;        // of what is there

  explicit Generation(std::string of) : path(std::move(of)), bytes(bytes_at(path)) {
    try {
      if (bytes) Checkpoint::from_bytes(*bytes, path);
    } catch (const Error& error) {
      fault = error;
    }
  }
  bool is_whole() const { return bytes && !fault; }
  bool is_foreign() const { return bytes && !is_ours(*bytes); }
};

// A file that may be a checkpoint whose beginning is damaged, or somebody else's, beside a whole checkpoint: out of the
// way, and kept. Returns its new name.
std::string put_aside(const std::string& path) {
  const std::string aside = path + ".damaged";
  std::error_code fault, ignored;
  if (fs::exists(fs::symlink_status(aside, ignored)))
    fault = std::make_error_code(std::errc::file_exists);
  else
    fs::rename(path, aside, fault);
  if (fault)
    throw Error(Exit::cannot_create, fmt::format("{}: not a checkpoint, and cannot be kept as {}: {}; move one of them "
                                                 "away, or --restart --force discards all that was done",
                                                 path, aside, fault.message()));
  return aside;
}

// Neither is whole.
[[noreturn]] void refuse(const Generation& newest, const Generation& older) {
  const bool force = newest.is_foreign() || older.is_foreign();
  const std::string hint = fmt::format("--restart{} discards", force ? " --force" : "");
  if (newest.fault && older.fault)
    throw Error(newest.fault->code(), fmt::format("{}; {}; {} both", newest.fault->what(), older.fault->what(), hint));
  const Error& only = newest.fault ? *newest.fault : *older.fault;
  throw Error(only.code(), fmt::format("{}; {} it", only.what(), hint));
}

}  // namespace

std::string CheckpointFiles::read(const Console& console) {
  const Generation newest(path_);
  newest_good_ = newest.is_whole();
  if (newest_good_ && !is_foreign(previous())) return *newest.bytes;
  const Generation older(previous());
  if (!newest.fault && !older.fault) return older.bytes.value_or("");
  if (!newest_good_ && !older.is_whole()) refuse(newest, older);
  const auto& [whole, other] = newest_good_ ? std::tie(newest, older) : std::tie(older, newest);
  std::string kept;
  if (other.is_foreign()) kept = fmt::format(", kept as {}", put_aside(other.path));
  console.warn(
      fmt::format("{}{}; going on from {}{}", other.fault->what(), kept, newest_good_ ? "" : "the older ", whole.path));
  return *whole.bytes;
}

void CheckpointFiles::discard(bool force) const {
  for (const std::string& path : {path_, previous()})
    if (is_foreign(path) && !force)
      throw Error(Exit::cannot_create,
                  fmt::format("{}: --restart would remove a file that is not a checkpoint; --force does", path));
  remove();
}

void CheckpointFiles::write(const std::string& bytes) {
  AtomicFile file(path_);
  file.write_text(bytes);
  if (newest_good_) newest_good_ = std::rename(path_.c_str(), previous().c_str()) != 0;
  file.commit();
  newest_good_ = true;
}

// The newest last: it knows for which output it was, and a run that dies between the two does its end again.
void CheckpointFiles::remove() const {
  ::unlink(previous().c_str());
  ::unlink(path_.c_str());
}

bool CheckpointFiles::are_there() const {
  std::error_code ignored;
  return fs::exists(path_, ignored) || fs::exists(previous(), ignored);
}

}  // namespace seine
