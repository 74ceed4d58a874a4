#include "seine/resume.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "atomic_file.hpp"
#include "overwrite.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

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

}  // namespace

Resume::Resume(const Comm& comm, const Request& request, const Console& console, std::int64_t stop_after)
    : comm_(comm),
      console_(console),
      path_(request.checkpoint),
      files_(path_),
      every_(request.checkpoint_seconds),
      stop_after_(stop_after) {
  read(request);
  for (const auto& [key, value] : facts_of(request)) expect(key, value);
  if (comm.is_root()) announce();
  signals_.emplace(comm);
}

void Resume::announce() const {
  if (on_disk_) console_.info(fmt::format("going on from {}: {}", path_, known_.summary()));
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
    if (request.restart) return files_.discard(request.force);
    bytes = files_.read(console_);
  });
  comm_.broadcast(bytes);
  on_disk_ = !bytes.empty();
  if (on_disk_) known_ = Checkpoint::from_bytes(bytes, path_);
  std::string& out = known_.facts[Checkpoint::kOut];
  const std::string ours = whole_path(request.out);
  out_is_new_ = out != ours;
  out = ours;
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
  Checkpoint mine, all;
  for (const Place& place : changed_) mine.selections[place] = known_.selections[place];
  const std::string bytes = mine.to_bytes();
  std::vector<std::vector<char>> to(static_cast<std::size_t>(comm_.size()));
  to[0].assign(bytes.begin(), bytes.end());
  for (const std::vector<char>& from : comm_.exchange(to)) {
    if (from.empty()) continue;  // ranks other than 0 are told nothing
    for (const auto& [place, progress] : Checkpoint::from_bytes({from.data(), from.size()}, path_).selections) {
      const auto [there, is_new] = all.selections.emplace(place, progress);
      if (!is_new) there->second.gains.insert(there->second.gains.end(), progress.gains.begin(), progress.gains.end());
    }
  }
  std::erase_if(changed_, [&](const Place& place) { return known_.selections[place].finished; });
  if (!comm_.is_root()) return all;
  for (const auto& [place, progress] : all.selections)
    if (progress.finished) known_.selections[place] = progress;
  all.selections.insert(known_.selections.begin(), known_.selections.end());
  all.facts = known_.facts;
  return all;
}

// Collective. Whether it is on the disk.
bool Resume::save() {
  comm_.agree([&] {
    if (check_ && comm_.is_root()) check_();
  });
  const Clock::time_point begin = Clock::now();
  const Checkpoint all = gathered();
  bool is_saved = comm_.is_root() && write(all.to_bytes());
  is_saved = comm_.broadcast(is_saved);
  on_disk_ |= is_saved;
  out_is_new_ &= !is_saved;
  saved_at_ = Clock::now();
  const double seconds = std::chrono::duration<double>(saved_at_ - begin).count();
  every_ = std::max(every_, 100 * seconds);  // on a slow disk seldom
  if (is_saved && comm_.is_root()) console_.info(fmt::format("checkpoint of {}, in {:.3f} s", all.summary(), seconds));
  return is_saved;
}

bool Resume::write(const std::string& bytes) {
  try {
    files_.write(bytes);
    return true;
  } catch (const Error& error) {
    console_.warn(fmt::format("no checkpoint: {}", error.what()));
    return false;
  }
}

void Resume::remember_output() {
  if (comm_.broadcast(on_disk_ && out_is_new_)) save();
}

void Resume::stop() {
  const int signal = comm_.broadcast(stop_signal());
  close();
  const bool is_saved = save();
  const std::string by = stopped_by(signal);
  if (!comm_.broadcast(on_disk_ && (is_saved || files_.are_there())))
    throw AgreedError(Error(static_cast<Exit>(128 + signal), by + "; there is no checkpoint to go on from"),
                      comm_.size());
  throw AgreedError(Error(Exit::stopped, fmt::format("{}; the same command goes on from {}{}", by, path_,
                                                     is_saved ? "" : ", as of the last time that it could be written")),
                    comm_.size());
}

}  // namespace seine
