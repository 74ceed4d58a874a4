#include "seine/checkpoint_files.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <optional>

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

std::optional<Error> fault_in(std::string_view bytes, const std::string& path) {
  try {
    Checkpoint::from_bytes(bytes, path);
    return std::nullopt;
  } catch (const Error& error) {
    return error;
  }
}

}  // namespace

std::string CheckpointFiles::read(const Console& console) {
  const std::optional<std::string> newest = bytes_at(path_);
  const std::optional<Error> fault = newest ? fault_in(*newest, path_) : std::nullopt;
  if (fault && !is_ours(*newest))
    throw Error(fault->code(), fmt::format("{}; --restart --force discards it", fault->what()));
  if (is_foreign(previous()))
    throw Error(Exit::cannot_create, fmt::format("{}: a checkpoint would take the place of a file that is not one; "
                                                 "--restart --force discards it",
                                                 previous()));
  newest_good_ = newest && !fault;
  if (newest_good_) return *newest;
  // Without the newest: a run that was killed while it wrote.
  const std::string older = bytes_at(previous()).value_or("");
  const std::optional<Error> older_fault = older.empty() ? std::nullopt : fault_in(older, previous());
  if (fault && older_fault)
    throw Error(fault->code(), fmt::format("{}; {}; --restart discards both", fault->what(), older_fault->what()));
  if (older_fault || (fault && older.empty())) {
    const Error& only = older_fault ? *older_fault : *fault;
    throw Error(only.code(), fmt::format("{}; --restart discards it", only.what()));
  }
  if (fault) console.warn(fmt::format("{}; going on from the older {}", fault->what(), previous()));
  return older;
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

}  // namespace seine
