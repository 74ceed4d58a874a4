#include "seine/ids.hpp"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>
#include <optional>
#include <sstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "duplicate_ids.hpp"
#include "hdf5.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

std::uint64_t hash_of(std::int64_t id) {
  return XXH3_64bits(&id, sizeof id);
}
std::uint64_t hash_of(std::string_view id) {
  return XXH3_64bits(id.data(), id.size());
}

// Calls visit(row, id) with the ids of these rows, as int64 or as text.
template <class Visit>
void visit_ids(const PoolFiles& files, std::int64_t first, std::int64_t count, Visit&& visit) {
  if (files.shape().text_ids) {
    for (const std::string& id : files.read_text_ids(first, count)) visit(first++, std::string_view(id));
  } else {
    for (std::int64_t id : files.read_integers(Dataset::ids, first, count)) visit(first++, id);
  }
}

// --- id lists ---

[[noreturn]] void fail_line(const std::string& path, std::int64_t line, const std::string& what) {
  throw Error(Exit::bad_data, fmt::format("{}: line {}: {}", path, line, what));
}

std::int64_t line_of(std::string_view text, std::size_t at) {
  return 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(at, text.size())), '\n');
}

std::string read_whole_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    throw Error(Exit::no_input, errno == ENOENT ? path + ": no such file"
                                                : fmt::format("{}: cannot be read: {}", path, std::strerror(errno)));
  std::ostringstream content;
  errno = 0;
  content << file.rdbuf();
  if (errno == EISDIR) throw Error(Exit::no_input, path + ": expected a list of ids, found a directory");
  if (file.bad() || errno == EIO) throw Error(Exit::io, path + ": cannot be read to its end");
  std::string text = std::move(content).str();
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.starts_with(byte_order_mark)) text.erase(0, byte_order_mark.size());
  if (const std::size_t nul = text.find('\0'); nul != std::string::npos)
    fail_line(path, line_of(text, nul), "expected text, found a zero byte");
  return text;
}

// Records of RFC 4180. Blank lines between them are skipped.
class CsvReader {
 public:
  CsvReader(const std::string& path, std::string_view text) : path_(path), text_(text) {}

  std::int64_t line() const { return first_line_; }  // where the last record starts

  bool next(std::vector<std::string>& fields) {
    while (at_ < text_.size() && skip_line_end()) continue;
    if (at_ >= text_.size()) return false;
    first_line_ = line_;
    fields.clear();
    do {
      fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
    } while (skip_comma());
    return true;
  }

 private:
  bool skip_comma() {
    if (at_ >= text_.size() || skip_line_end()) return false;
    if (text_[at_] != ',') fail_line(path_, line_, "expected a comma or the line's end after a quoted field");
    ++at_;
    return true;
  }
  bool skip_line_end() {
    const bool carriage = text_[at_] == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n';
    if (!carriage && text_[at_] != '\n') return false;
    at_ += carriage ? 2 : 1;
    ++line_;
    return true;
  }
  std::string quoted() {
    std::string field;
    for (++at_;; ++at_) {
      if (at_ >= text_.size()) fail_line(path_, first_line_, "expected a closing quote, found the end of the file");
      if (text_[at_] == '"') {
        if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') break;
        ++at_;
      }
      if (text_[at_] == '\n') ++line_;
      field += text_[at_];
    }
    ++at_;
    return field;
  }
  std::string plain() {
    const std::size_t end = std::min(text_.find_first_of(",\"\n", at_), text_.size());
    if (end < text_.size() && text_[end] == '"') fail_line(path_, line_, "found a quote in a field that is not quoted");
    std::string field(text_.substr(at_, end - at_));
    at_ = end;
    if (end < text_.size() && text_[end] == '\n' && field.ends_with('\r')) {
      field.pop_back();
      --at_;
    }
    return field;
  }

  const std::string& path_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1, first_line_ = 1;
};

std::vector<std::string> ids_of_csv(const std::string& path) {
  const std::string text = read_whole_file(path);
  CsvReader reader(path, text);
  std::vector<std::string> header, fields, ids;
  reader.next(header);
  const auto column = std::find(header.begin(), header.end(), "id");
  if (column == header.end()) fail_line(path, reader.line(), "expected a header with a column `id`, found none");
  if (std::find(column + 1, header.end(), "id") != header.end())
    fail_line(path, reader.line(), "expected one column `id`, found two");
  const auto wanted = static_cast<std::size_t>(column - header.begin());
  while (reader.next(fields)) {
    if (fields.size() != header.size())
      fail_line(path, reader.line(), fmt::format("expected {} fields, found {}", header.size(), fields.size()));
    ids.push_back(std::move(fields[wanted]));
  }
  return ids;
}

std::vector<std::string> ids_of_lines(const std::string& path) {
  std::istringstream text(read_whole_file(path));
  std::vector<std::string> ids;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) ids.push_back(std::move(line));
  }
  return ids;
}

std::vector<std::string> ids_of_json(const std::string& path) {
  const std::string text = read_whole_file(path);
  nlohmann::json content;
  try {
    content = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    fail_line(path, line_of(text, error.byte), "expected JSON, found a syntax error");
  }
  if (!content.is_object() || !content.contains("ids") || !content["ids"].is_array())
    throw Error(Exit::bad_data, path + ": expected a batch file, a JSON object with an array \"ids\"; found none");
  std::vector<std::string> ids;
  for (const nlohmann::json& id : content["ids"]) {
    if (id.is_string())
      ids.push_back(id.get<std::string>());
    else if (id.is_number_integer())
      ids.push_back(id.dump());
    else
      throw Error(Exit::bad_data,
                  fmt::format("{}: \"ids\", entry {}: expected an integer or a string, found {}", path, ids.size(),
                              id.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  }
  return ids;
}

template <class Integer>
std::vector<std::string> integers_as_text(hid_t dataset, hid_t type, std::uint64_t count, const std::string& path) {
  std::vector<Integer> values(count);
  h5::read_rows(dataset, type, 0, count, values.data(), path, "ids");
  std::vector<std::string> texts;
  for (Integer value : values) texts.push_back(std::to_string(value));
  return texts;
}

std::vector<std::string> ids_of_hdf5(const std::string& path) {
  const h5::Id file = h5::open_file(path);
  const h5::Id dataset = h5::open_dataset(file.get(), "ids", path);
  const h5::Id type(H5Dget_type(dataset.get()), H5Tclose);
  const std::vector<hsize_t> shape = h5::shape_of(dataset.get());
  const H5T_class_t kind = H5Tget_class(type.get());
  if (shape.size() != 1 || (kind != H5T_STRING && kind != H5T_INTEGER))
    throw Error(Exit::bad_data, path + ": dataset \"ids\": expected [N] of integers or strings, found another form");
  if (kind == H5T_STRING) return h5::read_text_rows(dataset.get(), 0, shape[0], path, "ids");
  if (H5Tget_sign(type.get()) == H5T_SGN_NONE)
    return integers_as_text<std::uint64_t>(dataset.get(), H5T_NATIVE_UINT64, shape[0], path);
  return integers_as_text<std::int64_t>(dataset.get(), H5T_NATIVE_INT64, shape[0], path);
}

// --- ids that are looked for ---

// "7", "+7" and "007" are the same integer; nothing for a word and for what does not fit.
std::optional<std::int64_t> parse_integer(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return {};
  text = text.substr(first, text.find_last_not_of(" \t") + 1 - first);
  if (text.starts_with('+') && !text.starts_with("+-")) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

// From an id to the first position in a list that has it. Open addressing, because a rank asks it for each of its rows.
template <class Id>
class Wanted {
 public:
  explicit Wanted(std::size_t size) : slots_(std::bit_ceil(2 * size + 1), kFree) {}

  // The position under which the id is known: this one, or an earlier one.
  std::int64_t insert(const Id& id, std::int64_t position) {
    const std::size_t slot = slot_of(id);
    if (slots_[slot] == kFree) {
      slots_[slot] = static_cast<std::int64_t>(ids_.size());
      ids_.push_back({id, position});
    }
    return ids_[static_cast<std::size_t>(slots_[slot])].second;
  }
  std::optional<std::int64_t> find(const Id& id) const {
    const std::size_t slot = slot_of(id);
    if (slots_[slot] == kFree) return {};
    return ids_[static_cast<std::size_t>(slots_[slot])].second;
  }

 private:
  static constexpr std::int64_t kFree = -1;

  std::size_t slot_of(const Id& id) const {
    std::size_t slot = hash_of(id) & (slots_.size() - 1);
    while (slots_[slot] != kFree && ids_[static_cast<std::size_t>(slots_[slot])].first != id)
      slot = (slot + 1) & (slots_.size() - 1);
    return slot;
  }

  std::vector<std::int64_t> slots_;  // into ids_
  std::vector<std::pair<Id, std::int64_t>> ids_;
};

struct Found {
  std::int64_t position, row;
};

// Collective. `key_of` turns an id of the list into one of the pool, or nothing.
template <class Id, class KeyOf>
std::vector<std::int64_t> find_rows(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                    std::span<const std::string> ids, KeyOf key_of) {
  std::vector<std::int64_t> known_as(ids.size(), -1);
  const std::vector<Found> mine = comm.agree([&] {
    Wanted<Id> wanted(ids.size());
    for (std::size_t i = 0; i < ids.size(); ++i)
      if (const std::optional<Id> key = key_of(ids[i])) known_as[i] = wanted.insert(*key, static_cast<std::int64_t>(i));
    std::vector<Found> found;
    for (const Ownership::Run& run : own.runs())
      visit_ids(files, run.first, run.count, [&](std::int64_t row, const auto& id) {
        if constexpr (std::is_convertible_v<decltype(id), Id>)
          if (const auto position = wanted.find(id)) found.push_back({*position, row});
      });
    return found;
  });
  std::vector<std::int64_t> row_at(ids.size(), -1);
  for (const Found& found : comm.gather(std::span<const Found>(mine))) {
    std::int64_t& row = row_at[static_cast<std::size_t>(found.position)];
    if (row < 0 || found.row < row) row = found.row;
  }
  std::vector<std::int64_t> rows;
  for (std::int64_t position : known_as) rows.push_back(position < 0 ? -1 : row_at[static_cast<std::size_t>(position)]);
  return rows;
}

// --- duplicates ---

struct HashedRow {
  std::uint64_t hash;
  std::int64_t row;
  bool operator<(const HashedRow& other) const { return hash != other.hash ? hash < other.hash : row < other.row; }
};

struct Suspect {
  std::int64_t row, earlier;  // equal hashes
  bool operator<(const Suspect& other) const { return row != other.row ? row < other.row : earlier < other.earlier; }
};

// Collective. The rows of the whole pool whose hash belongs to this rank and to this pass over the ids, in steps that
// bound what is under way.
std::vector<HashedRow> exchange_hashes(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                       std::uint64_t pass, std::uint64_t passes) {
  constexpr std::size_t runs_per_step = 16;  // at most 2^20 rows
  const auto ranks = static_cast<std::uint64_t>(comm.size());
  const auto most_runs = static_cast<std::size_t>(comm.max(static_cast<double>(own.runs().size())));
  std::vector<HashedRow> mine;
  for (std::size_t step = 0; step < most_runs; step += runs_per_step) {
    const auto to = comm.agree([&] {
      std::vector<std::vector<HashedRow>> out(ranks);
      for (std::size_t i = step; i < std::min(step + runs_per_step, own.runs().size()); ++i)
        visit_ids(files, own.runs()[i].first, own.runs()[i].count, [&](std::int64_t row, const auto& id) {
          const std::uint64_t hash = hash_of(id);
          if ((hash >> 32) % passes == pass) out[hash % ranks].push_back({hash, row});
        });
      return out;
    });
    const auto from = comm.exchange(to);
    comm.agree([&] {
      for (const std::vector<HashedRow>& rows : from) mine.insert(mine.end(), rows.begin(), rows.end());
    });
  }
  std::sort(mine.begin(), mine.end());
  return mine;
}

// Both the first and the previous row of the same hash, so that one accidental equality of hashes hides nothing.
void add_suspects(const std::vector<HashedRow>& sorted, std::vector<Suspect>& suspects) {
  std::size_t first = 0;
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].hash != sorted[first].hash) {
      first = i;
      continue;
    }
    suspects.push_back({sorted[i].row, sorted[first].row});
    if (i - 1 != first) suspects.push_back({sorted[i].row, sorted[i - 1].row});
  }
}

void keep_smallest(std::vector<Suspect>& suspects, std::size_t count) {
  std::sort(suspects.begin(), suspects.end());
  if (suspects.size() > count) suspects.resize(count);
}

// --- ids of chosen rows ---

// Calls read(first, count) over spans that cover the sorted rows without large gaps.
template <class Read>
void over_spans(std::span<const std::int64_t> sorted, Read read) {
  constexpr std::int64_t gap = 1024, longest = 65536;
  for (std::size_t i = 0; i < sorted.size();) {
    std::size_t end = i + 1;
    while (end < sorted.size() && sorted[end] - sorted[end - 1] <= gap && sorted[end] - sorted[i] < longest) ++end;
    read(sorted.subspan(i, end - i), sorted[i], sorted[end - 1] - sorted[i] + 1);
    i = end;
  }
}

IdColumn read_ids(const PoolFiles& files, std::span<const std::int64_t> sorted) {
  IdColumn ids;
  over_spans(sorted, [&](std::span<const std::int64_t> rows, std::int64_t first, std::int64_t count) {
    std::size_t next = 0;
    visit_ids(files, first, count, [&](std::int64_t row, const auto& id) {
      for (; next < rows.size() && rows[next] == row; ++next) {
        if constexpr (std::is_same_v<std::decay_t<decltype(id)>, std::int64_t>)
          ids.numbers.push_back(id);
        else
          ids.words.emplace_back(id);
      }
    });
  });
  return ids;
}

// Collective.
std::vector<std::string> gather_texts(const Comm& comm, const std::vector<std::string>& mine) {
  std::vector<std::int64_t> sizes;
  std::string text;
  for (const std::string& one : mine) {
    sizes.push_back(static_cast<std::int64_t>(one.size()));
    text += one;
  }
  const std::vector<std::int64_t> all_sizes = comm.gather(std::span<const std::int64_t>(sizes));
  const std::vector<char> all_text = comm.gather(std::span<const char>(text));
  std::vector<std::string> all;
  const char* at = all_text.data();
  for (std::int64_t size : all_sizes) {
    all.emplace_back(at, static_cast<std::size_t>(size));
    at += size;
  }
  return all;
}

// --- roles ---

struct Lists {
  static constexpr std::array<const char*, 4> options{"--labelled", "--pending", "--exclude", "--candidates"};
  static constexpr std::array<Role, 4> roles{Role::labelled, Role::pending, Role::bystander, Role::candidate};

  std::vector<std::string> ids;  // of all lists, one option after the other
  std::array<std::int64_t, 4> sizes{};
};

// Collective. Read on rank 0, known to all.
Lists read_lists(const Comm& comm, const PoolRequest& request) {
  const std::array<const std::vector<std::string>*, 4> paths{&request.labelled, &request.pending, &request.exclude,
                                                             &request.candidates};
  Lists lists;
  comm.agree([&] {
    if (!comm.is_root()) return;
    for (std::size_t kind = 0; kind < paths.size(); ++kind)
      for (const std::string& path : *paths[kind])
        for (std::string& id : read_id_list(path)) {
          lists.ids.push_back(std::move(id));
          ++lists.sizes[kind];
        }
  });
  comm.broadcast(std::span<std::int64_t>(lists.sizes));
  lists.ids = gather_texts(comm, lists.ids);  // only rank 0 has any
  return lists;
}

void report_unknown(const Comm& comm, const Lists& lists, std::span<const std::int64_t> rows, bool strict,
                    const std::function<void(const std::string&)>& warn) {
  std::size_t first = 0;
  for (std::size_t kind = 0; kind < Lists::options.size(); ++kind) {
    const auto listed = rows.subspan(first, static_cast<std::size_t>(lists.sizes[kind]));
    if (const auto unknown = std::count(listed.begin(), listed.end(), -1); unknown > 0) {
      const auto example = static_cast<std::size_t>(std::find(listed.begin(), listed.end(), -1) - listed.begin());
      const std::string line = fmt::format("{}: {} of {} ids are not in the pool (first: \"{}\")", Lists::options[kind],
                                           unknown, listed.size(), lists.ids[first + example]);
      if (strict) throw Error(Exit::bad_data, line);
      if (comm.is_root()) warn(line);
    }
    first += listed.size();
  }
}

// Collective. The role of each own row by the lists alone.
std::vector<Role> roles_by_lists(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                 const PoolRequest& request, const std::function<void(const std::string&)>& warn) {
  const Lists lists = read_lists(comm, request);
  const std::vector<std::int64_t> rows = rows_of_ids(comm, files, own, lists.ids);
  const bool restricted = !request.candidates.empty();
  std::vector<Role> roles(static_cast<std::size_t>(own.own()), restricted ? Role::bystander : Role::candidate);
  std::size_t end = rows.size();
  for (std::size_t kind = Lists::options.size(); kind-- > 0;) {  // candidates first: every other role is stronger
    const auto size = static_cast<std::size_t>(lists.sizes[kind]);
    const auto listed = std::span(rows).subspan(end -= size, size);
    for (std::int64_t row : listed) {
      if (row < 0 || own.owner(row) != comm.rank()) continue;
      Role& role = roles[static_cast<std::size_t>(own.local(row))];
      role = Lists::roles[kind] == Role::candidate ? Role::candidate : std::max(role, Lists::roles[kind]);
    }
  }
  comm.agree([&] { report_unknown(comm, lists, rows, request.strict_ids, warn); });
  return roles;
}

std::int64_t count_candidates(const Comm& comm, const std::vector<Role>& roles) {
  return comm.sum(static_cast<std::int64_t>(std::count(roles.begin(), roles.end(), Role::candidate)));
}

// `by_lists`: how many candidates the lists of ids alone would leave.
[[noreturn]] void fail_without_candidates(const PoolFiles& files, const PoolRequest& request, std::int64_t by_lists) {
  const std::string line = fmt::format("no candidate is left of {} rows", files.shape().rows);
  if (by_lists == 0) throw Error(Exit::bad_data, line + ": the lists of ids leave none");
  throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\": {}: {} have a label (--labels none ignores labels)",
                                          files.paths()[0], request.names.labels, line, by_lists));
}

}  // namespace

std::vector<std::string> read_id_list(const std::string& path) {
  std::string ending = path.substr(std::min(path.rfind('.'), path.size()));
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (ending == ".csv") return ids_of_csv(path);
  if (ending == ".h5" || ending == ".hdf5") return ids_of_hdf5(path);
  if (ending == ".json") return ids_of_json(path);
  return ids_of_lines(path);
}

std::string IdColumn::as_text(std::size_t i) const {
  return text ? words[i] : std::to_string(numbers[i]);
}

std::string DuplicateId::describe(const PoolFiles& files) const {
  return fmt::format("{}: expected unique ids, found \"{}\" again, first at {}", files.where(row, Dataset::ids), id,
                     files.where(earlier));
}

std::vector<DuplicateId> duplicate_ids(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                       std::size_t limit) {
  if (!files.shape().ids) return {};
  constexpr std::int64_t rows_per_pass = std::int64_t{1} << 24;  // and rank: 256 MiB of hashes
  const auto passes = static_cast<std::uint64_t>(1 + files.shape().rows / comm.size() / rows_per_pass);
  const std::size_t kept = 4 * limit + 16;
  std::vector<Suspect> suspects;
  for (std::uint64_t pass = 0; pass < passes; ++pass) {
    add_suspects(exchange_hashes(comm, files, own, pass, passes), suspects);
    keep_smallest(suspects, kept);
  }
  suspects = comm.gather(std::span<const Suspect>(suspects));
  keep_smallest(suspects, kept);
  std::vector<std::int64_t> rows;
  for (const Suspect& suspect : suspects) rows.insert(rows.end(), {suspect.row, suspect.earlier});
  const IdColumn ids = fetch_ids(comm, files, rows);
  std::vector<DuplicateId> duplicates;
  for (std::size_t i = 0; i < suspects.size() && duplicates.size() < limit; ++i) {
    if (ids.as_text(2 * i) != ids.as_text(2 * i + 1)) continue;
    if (duplicates.empty() || duplicates.back().row != suspects[i].row)
      duplicates.push_back({suspects[i].row, suspects[i].earlier, ids.as_text(2 * i)});
  }
  return duplicates;
}

std::vector<std::int64_t> rows_of_ids(const Comm& comm, const PoolFiles& files, const Ownership& own,
                                      std::span<const std::string> ids) {
  if (ids.empty()) return {};
  const PoolShape& shape = files.shape();
  if (shape.text_ids)
    return find_rows<std::string_view>(comm, files, own, ids,
                                       [](const std::string& id) { return std::optional<std::string_view>(id); });
  if (shape.ids) return find_rows<std::int64_t>(comm, files, own, ids, parse_integer);
  std::vector<std::int64_t> rows;
  for (const std::string& id : ids) {
    const std::int64_t row = parse_integer(id).value_or(-1);
    rows.push_back(row >= 0 && row < shape.rows ? row : -1);
  }
  return rows;
}

std::vector<Role> read_roles(const Comm& comm, const PoolFiles& files, const Ownership& own, const PoolRequest& request,
                             const std::function<void(const std::string&)>& warn) {
  std::vector<Role> roles = roles_by_lists(comm, files, own, request, warn);
  const std::int64_t by_lists = count_candidates(comm, roles);
  comm.agree([&] {
    std::size_t local = 0;
    for (const Ownership::Run& run : files.shape().labels ? own.runs() : std::vector<Ownership::Run>())
      for (std::int64_t label : files.read_integers(Dataset::labels, run.first, run.count)) {
        if (label >= 0) roles[local] = Role::labelled;
        ++local;
      }
  });
  const std::int64_t left = count_candidates(comm, roles);
  comm.agree([&] {
    if (left == 0) fail_without_candidates(files, request, by_lists);
  });
  return roles;
}

IdColumn fetch_ids(const Comm& comm, const PoolFiles& files, std::span<const std::int64_t> rows) {
  IdColumn column;
  column.text = files.shape().text_ids;
  if (!files.shape().ids) {
    column.numbers.assign(rows.begin(), rows.end());
    return column;
  }
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return rows[a] < rows[b]; });
  const auto rank = static_cast<std::size_t>(comm.rank()), ranks = static_cast<std::size_t>(comm.size());
  const IdColumn mine = comm.agree([&] {
    std::vector<std::int64_t> sorted;
    for (std::size_t i = rows.size() * rank / ranks; i < rows.size() * (rank + 1) / ranks; ++i)
      sorted.push_back(rows[order[i]]);
    return read_ids(files, sorted);
  });
  const std::vector<std::int64_t> numbers = comm.gather(std::span<const std::int64_t>(mine.numbers));
  std::vector<std::string> words = gather_texts(comm, mine.words);
  column.numbers.resize(numbers.size());
  column.words.resize(words.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) column.numbers[order[i]] = numbers[i];
  for (std::size_t i = 0; i < words.size(); ++i) column.words[order[i]] = std::move(words[i]);
  return column;
}

void check_ids_unique(const Comm& comm, const PoolFiles& files, const Ownership& own) {
  const std::vector<DuplicateId> duplicates = duplicate_ids(comm, files, own, 1);
  comm.agree([&] {
    if (!duplicates.empty()) throw Error(Exit::bad_data, duplicates[0].describe(files));
  });
}

}  // namespace seine
