#include "seine/ids.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <numeric>
#include <optional>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>

#include "reading/stored_ids.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

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
    for (const Ownership::Run& run : own.runs()) {
      stop_if_asked();
      visit_ids(files, run.first, run.count, [&](std::int64_t row, const auto& id) {
        if constexpr (std::is_convertible_v<decltype(id), Id>)
          if (const auto position = wanted.find(id)) found.push_back({*position, row});
      });
    }
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

}  // namespace

std::string IdColumn::as_text(std::size_t i) const {
  return text ? words[i] : std::to_string(numbers[i]);
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
  std::vector<std::string> words = comm.gather(std::span<const std::string>(mine.words));
  column.numbers.resize(numbers.size());
  column.words.resize(words.size());
  for (std::size_t i = 0; i < numbers.size(); ++i) column.numbers[order[i]] = numbers[i];
  for (std::size_t i = 0; i < words.size(); ++i) column.words[order[i]] = std::move(words[i]);
  return column;
}

}  // namespace seine
