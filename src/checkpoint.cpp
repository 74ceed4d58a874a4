#include "seine/checkpoint.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <cstring>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "seine/console.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

// Magic, version, hash of what follows; then facts and selections, numbers in the order of this machine (x86-64, as
// everywhere), texts and lists behind their lengths.

constexpr std::string_view kMagic = "seine-checkpoint";
constexpr std::uint64_t kVersion = 1;
constexpr std::size_t kHeader = kMagic.size() + 2 * sizeof(std::uint64_t);

class Encoder {
 public:
  template <class T>
  void add(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
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
  template <class T>
  T take() {
    static_assert(std::is_trivially_copyable_v<T>);
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

}  // namespace

std::string Checkpoint::summary() const {
  std::size_t picks = 0, gains = 0;
  for (const auto& [place, progress] : selections) {
    picks += progress.selection.rows.size();
    gains += progress.gains.size();
  }
  return counted(picks, "pick") + (gains > 0 ? " and " + counted(gains, "gain") : "");
}

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

bool Checkpoint::begins(std::string_view bytes) {
  return bytes.starts_with(kMagic);
}

Checkpoint Checkpoint::from_bytes(std::string_view bytes, const std::string& path) {
  if (!begins(bytes))
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

}  // namespace seine
