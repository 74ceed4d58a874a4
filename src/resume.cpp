#include "seine/resume.hpp"

#include <fmt/format.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "atomic_file.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

namespace fs = std::filesystem;

// --- The file: magic, version, hash of what follows; then facts and selections, numbers in the order of this machine
// (x86-64, as everywhere), texts and lists behind their lengths. ---

constexpr std::string_view kMagic = "seine-checkpoint";
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeader = kMagic.size() + 2 * sizeof(std::uint64_t);

class Encoder {
 public:
  template <Plain T>
  void add(const T& value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  template <class List>
  void add_list(const List& values) {
    add(static_cast<std::uint64_t>(values.size()));
    bytes_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  }
  void add(const Place& place, const Progress& progress) {
    add(static_cast<std::int64_t>(place.level));
    add(place.node);
    add(static_cast<std::int64_t>(progress.finished));
    add_list(progress.selection.rows);
    add_list(progress.selection.scores);
    add_list(progress.selection.gains);
    add_list(progress.moments);
    add_list(progress.represents);
    add_list(progress.gains);
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

// Throws std::out_of_range where the bytes end too early; never asks for more memory than they could fill.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : left_(bytes) {}

  bool at_end() const { return left_.empty(); }
  template <Plain T>
  T take() {
    T value;
    std::memcpy(&value, next(sizeof value), sizeof value);
    return value;
  }
  template <class List>
  List take_list() {
    using Item = typename List::value_type;
    const auto size = take<std::uint64_t>();
    if (size > left_.size() / sizeof(Item)) throw std::out_of_range("a list that is longer than the file");
    List values(size, Item{});
    if (size > 0) std::memcpy(values.data(), next(size * sizeof(Item)), size * sizeof(Item));
    return values;
  }
  std::pair<Place, Progress> take_selection() {
    const auto level = static_cast<int>(take<std::int64_t>());
    const auto node = take<std::int64_t>();
    Progress progress;
    progress.finished = take<std::int64_t>() != 0;
    progress.selection.rows = take_list<std::vector<std::int64_t>>();
    progress.selection.scores = take_list<std::vector<float>>();
    progress.selection.gains = take_list<std::vector<double>>();
    progress.moments = take_list<std::vector<double>>();
    progress.represents = take_list<std::vector<double>>();
    progress.gains = take_list<std::vector<KnownGain>>();
    const std::size_t picks = progress.selection.rows.size();
    const auto fits = [&](const auto& list, bool optional) {
      return list.size() == picks || (optional && list.empty());
    };
    if (!fits(progress.selection.scores, false) || !fits(progress.selection.gains, false) ||
        !fits(progress.moments, true) || !fits(progress.represents, true))
      throw std::out_of_range("lists of one selection that differ in length");
    return {{level, node}, std::move(progress)};
  }

 private:
  const char* next(std::size_t size) {
    if (size > left_.size()) throw std::out_of_range("a value behind the end of the file");
    const char* at = left_.data();
    left_.remove_prefix(size);
    return at;
  }

  std::string_view left_;
};

std::uint64_t hash_of(std::string_view bytes) {
  return XXH3_64bits(bytes.data(), bytes.size());
}

Error damaged(const std::string& path, const std::string& how) {
  return Error(Exit::bad_data, fmt::format("{}: a damaged checkpoint: {}", path, how));
}

// Absent where there is no such file.
std::optional<std::string> content_of(const std::string& path) {
  errno = 0;
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) return std::nullopt;
  std::ifstream file(path, std::ios::binary);
  if (!file && errno == ENOENT) return std::nullopt;
  std::ostringstream text;
  if (file && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (file.bad() || text.bad() || !file.is_open())
    throw Error(Exit::no_input, fmt::format("{}: {}", path, std::generic_category().message(errno ? errno : EIO)));
  return text.str();
}

// What decides the batch, key by key. Paths do not: what they lead to has facts of its own.
std::map<std::string, std::string> facts_of(const Request& request) {
  std::map<std::string, std::string> facts{{"software_version", SEINE_VERSION}};
  const nlohmann::json json = nlohmann::json::parse(request.to_json());
  for (const auto& [key, value] : json.items()) {
    const bool is_path = key == "pool" || key == "labelled_pool" || key == "labelled" || key == "pending" ||
                         key == "exclude" || key == "candidates";
    if (!is_path) facts[key] = value.dump();
  }
  return facts;
}

std::int64_t picks_in(const Checkpoint& checkpoint) {
  std::int64_t picks = 0;
  for (const auto& [place, progress] : checkpoint.selections)
    picks += static_cast<std::int64_t>(progress.selection.rows.size());
  return picks;
}

}  // namespace

std::string Checkpoint::to_bytes() const {
  Encoder content;
  content.add(static_cast<std::uint64_t>(facts.size()));
  for (const auto& [key, value] : facts) {
    content.add_list(key);
    content.add_list(value);
  }
  content.add(static_cast<std::uint64_t>(selections.size()));
  for (const auto& [place, progress] : selections) content.add(place, progress);
  Encoder header;
  header.add(kVersion);
  header.add(hash_of(content.bytes()));
  return std::string(kMagic) + header.bytes() + content.bytes();
}

Checkpoint Checkpoint::from_bytes(std::string_view bytes, const std::string& path) {
  if (!bytes.starts_with(kMagic))
    throw Error(Exit::bad_data, fmt::format("{}: not a checkpoint of seine, or its beginning is damaged", path));
  if (bytes.size() < kHeader) throw damaged(path, "it ends early");
  Decoder header(bytes.substr(kMagic.size(), kHeader - kMagic.size()));
  if (const auto version = header.take<std::uint64_t>(); version != kVersion)
    throw Error(Exit::bad_data,
                fmt::format("{}: a checkpoint of format version {}; this is {}", path, version, kVersion));
  const std::string_view content = bytes.substr(kHeader);
  if (header.take<std::uint64_t>() != hash_of(content)) throw damaged(path, "its content does not match its checksum");
  try {
    Decoder decoder(content);
    Checkpoint checkpoint;
    for (auto left = decoder.take<std::uint64_t>(); left > 0; --left) {
      std::string key = decoder.take_list<std::string>();
      checkpoint.facts[std::move(key)] = decoder.take_list<std::string>();
    }
    for (auto left = decoder.take<std::uint64_t>(); left > 0; --left)
      checkpoint.selections.insert(decoder.take_selection());
    if (!decoder.at_end()) throw std::out_of_range("something behind its end");
    return checkpoint;
  } catch (const std::out_of_range& error) {
    throw damaged(path, error.what());
  }
}

Resume::Resume(const Comm& comm, const Request& request, const Console& console, std::int64_t stop_after)
    : comm_(comm),
      console_(console),
      path_(request.checkpoint),
      every_(request.checkpoint_seconds),
      stop_after_(stop_after) {
  read(request);
  for (const auto& [key, value] : facts_of(request)) expect(key, value);
  if (comm.is_root()) announce();
  signals_.emplace(comm);
}

void Resume::announce() const {
  if (on_disk_) console_.info(fmt::format("going on from {}: {} picks", path_, picks_in(known_)));
  try {
    AtomicFile(path_).write_text("");
  } catch (const Error& error) {
    console_.warn(fmt::format("no checkpoint: {}", error.what()));
  }
}

void Resume::read(const Request& request) {
  std::string bytes;
  comm_.agree([&] {
    if (!comm_.is_root()) return;
    if (request.restart) return discard(request.force);
    const std::optional<std::string> newest = content_of(path_);
    if (newest) {
      try {
        Checkpoint::from_bytes(*newest, path_);
        newest_good_ = true;
        bytes = *newest;
        return;
      } catch (const Error& error) {
        const std::optional<std::string> older = content_of(previous());
        if (!older) throw Error(error.code(), fmt::format("{}; --restart discards it", error.what()));
        console_.warn(fmt::format("{}; going on from the older {}", error.what(), previous()));
      }
    }
    // Without the newest: a run that was killed while it wrote.
    bytes = content_of(previous()).value_or("");
    if (!bytes.empty()) Checkpoint::from_bytes(bytes, previous());
  });
  comm_.broadcast(bytes);
  on_disk_ = !bytes.empty();
  if (on_disk_) known_ = Checkpoint::from_bytes(bytes, path_);
}

// Removes what is a checkpoint; another file may be dear to somebody.
void Resume::discard(bool force) const {
  for (const std::string& path : {path_, previous()}) {
    const std::optional<std::string> content = content_of(path);
    if (!content) continue;
    const bool is_ours = content->starts_with(kMagic) || content->empty();
    if (!is_ours && !force)
      throw Error(Exit::cannot_create,
                  fmt::format("{}: --restart would remove a file that is not a checkpoint; --force does", path));
    ::unlink(path.c_str());
  }
}

void Resume::expect(const std::string& key, const std::string& value) {
  const auto [there, is_new] = known_.facts.emplace(key, value);
  if (is_new || there->second == value) return;
  comm_.agree([&] {
    throw Error(Exit::bad_data,
                fmt::format("{}: the checkpoint of another request or pool: {} is {} there and {} here; "
                            "--restart discards it",
                            path_, key, there->second, value));
  });
}

const Progress& Resume::of(const Place& place) const {
  const auto found = known_.selections.find(place);
  return found == known_.selections.end() ? kNoProgress : found->second;
}

void Resume::step(const Comm& engine, const Place& place, const Update& picks, const Update& columns) {
  // A partition is the work of one rank; what it knows of it is saved with that of the others.
  const bool whole = &engine == &comm_;
  if (!whole || engine.size() == 1) engine.heed();
  const bool is_due = whole && comm_.max(comm_.is_root() && is_time() ? 1 : 0) > 0;
  change(place, picks);
  if (stop_after_ > 0 && engine.max(++steps_ >= stop_after_ ? 1 : 0) > 0)  // ranks have as many partitions as they have
    throw AgreedError(Error(Exit::stopped, stopped_by(0)), engine.size());
  if (!is_due) return;
  if (columns) change(place, columns);
  save();
}

void Resume::change(const Place& place, const Update& update) {
  update(known_.selections[place]);
  changed_.insert(place);
}

bool Resume::is_time() const {
  return std::chrono::duration<double>(Clock::now() - saved_at_).count() >= every_;
}

void Resume::save_if_due() {
  if (comm_.broadcast(is_time())) save();
}

// Collective. On rank 0 what all ranks know. Where several know of one selection, each has the gains of its own rows
// and all have the same picks.
Checkpoint Resume::gathered() {
  Encoder mine;
  std::vector<Place> finished;
  for (const Place& place : changed_) {
    mine.add(place, known_.selections[place]);
    if (known_.selections[place].finished) finished.push_back(place);
  }
  std::vector<std::vector<char>> to(static_cast<std::size_t>(comm_.size()));
  to[0].assign(mine.bytes().begin(), mine.bytes().end());
  Checkpoint all;
  for (const std::vector<char>& from : comm_.exchange(to))
    for (Decoder decoder({from.data(), from.size()}); !decoder.at_end();) {
      auto [place, progress] = decoder.take_selection();
      const auto [there, is_new] = all.selections.emplace(place, progress);
      if (!is_new) there->second.gains.insert(there->second.gains.end(), progress.gains.begin(), progress.gains.end());
    }
  for (const Place& place : finished) changed_.erase(place);
  if (!comm_.is_root()) return all;
  for (const auto& [place, progress] : all.selections)
    if (progress.finished) known_.selections[place] = progress;
  all.selections.insert(known_.selections.begin(), known_.selections.end());
  all.facts = known_.facts;
  return all;
}

// Collective. Whether it is on the disk.
bool Resume::save() {
  const Clock::time_point begin = Clock::now();
  const Checkpoint all = gathered();
  bool is_saved = comm_.is_root() && write(all.to_bytes());
  is_saved = comm_.broadcast(is_saved);
  on_disk_ |= is_saved;
  saved_at_ = Clock::now();
  const double seconds = std::chrono::duration<double>(saved_at_ - begin).count();
  every_ = std::max(every_, 100 * seconds);  // on a slow disk seldom
  if (is_saved && comm_.is_root())
    console_.info(fmt::format("checkpoint of {} picks, in {:.3f} s", picks_in(all), seconds));
  return is_saved;
}

bool Resume::write(const std::string& bytes) {
  try {
    AtomicFile file(path_);
    file.write_text(bytes);
    if (newest_good_) std::rename(path_.c_str(), previous().c_str());
    file.commit();
    newest_good_ = true;
    return true;
  } catch (const Error& error) {
    newest_good_ = fs::exists(path_) && newest_good_;
    console_.warn(fmt::format("no checkpoint: {}", error.what()));
    return false;
  }
}

void Resume::stop() {
  const int signal = comm_.broadcast(stop_signal());
  close();
  const bool is_saved = save();
  const std::string by = stopped_by(signal);
  if (!on_disk_)
    throw AgreedError(Error(static_cast<Exit>(128 + signal), by + "; there is no checkpoint to go on from"),
                      comm_.size());
  throw AgreedError(Error(Exit::stopped, fmt::format("{}; the same command goes on from {}{}", by, path_,
                                                     is_saved ? "" : ", as of the last time that it could be written")),
                    comm_.size());
}

void Resume::remove() {
  ::unlink(path_.c_str());
  ::unlink(previous().c_str());
}

}  // namespace seine
