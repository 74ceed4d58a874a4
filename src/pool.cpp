#include "seine/pool.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numeric>

#include "best.hpp"
#include "host_rows.hpp"
#include "seine/device_link.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

template <class T>
std::vector<T> chosen(const std::vector<T>& column, std::span<const std::int64_t> positions) {
  std::vector<T> out;
  if (column.empty()) return out;
  out.reserve(positions.size());
  for (const std::int64_t i : positions) out.push_back(column[static_cast<std::size_t>(i)]);
  return out;
}

template <class T>
std::optional<std::vector<T>> chosen(const std::optional<std::vector<T>>& column,
                                     std::span<const std::int64_t> positions) {
  if (!column) return std::nullopt;
  return chosen(*column, positions);
}

Columns chosen(const Columns& columns, std::span<const std::int64_t> positions) {
  return {chosen(columns.rows, positions),   chosen(columns.role, positions),   chosen(columns.score, positions),
          chosen(columns.weight, positions), chosen(columns.before, positions), chosen(columns.label, positions)};
}

std::vector<float> widened_from(const RowFormat& format, const std::byte* x, std::int64_t rows) {
  std::vector<float> out(static_cast<std::size_t>(rows * format.dim));
  if (format.type == Element::f16)
    widen(x, rows * format.dim, out.data());
  else if (!out.empty())
    std::memcpy(out.data(), x, out.size() * sizeof(float));
  return out;
}

// Rows at these positions of x and a as a store of their own.
RowStore stored(Backend& backend, const RowFormat& format, std::span<const std::int64_t> positions,
                const std::vector<std::byte>& x, const std::vector<float>& a) {
  std::vector<std::byte> own_x(positions.size() * static_cast<std::size_t>(format.x_bytes()));
  std::vector<float> own_a(positions.size() * static_cast<std::size_t>(format.classes));
  for (std::size_t i = 0; i < positions.size(); ++i) {
    std::copy_n(x.begin() + positions[i] * format.x_bytes(), format.x_bytes(),
                own_x.begin() + static_cast<std::int64_t>(i) * format.x_bytes());
    std::copy_n(a.begin() + positions[i] * format.classes, format.classes,
                own_a.begin() + static_cast<std::int64_t>(i) * format.classes);
  }
  return RowStore(backend, format, static_cast<std::int64_t>(positions.size()),
                  Array<std::byte>(backend, std::span<const std::byte>(own_x)),
                  Array<float>(backend, std::span<const float>(own_a)));
}

}  // namespace

Packed::Packed(Backend& backend, const RowFormat& format, std::vector<std::byte> x, std::vector<float> a)
    : format_(format), host_x_(std::move(x)), host_a_(std::move(a)) {
  if (format_.x_bytes() > 0) rows_ = static_cast<std::int64_t>(host_x_.size()) / format_.x_bytes();
  arrays_ = RowArrays(backend, format_, rows_);
  arrays_.write(0, rows_, host_x_.data(), host_a_.data());
}

Packed::Packed(Backend& backend, const RowFormat& format, Array<std::byte> x, Array<float> a)
    : format_(format), host_x_(x.to_host()), host_a_(a.to_host()) {
  if (format_.x_bytes() > 0) rows_ = x.size() / format_.x_bytes();
  arrays_ = RowArrays(backend, format_, rows_, std::move(x), std::move(a));
}

std::vector<float> Packed::widened() const {
  return widened_from(format_, host_x_.data(), rows_);
}

std::vector<float> Packed::row(std::int64_t i) const {
  return widened_from(format_, bytes(i).data(), 1);
}

std::span<const std::byte> Packed::bytes(std::int64_t i) const {
  const auto size = static_cast<std::size_t>(format_.x_bytes());
  return std::span(host_x_).subspan(static_cast<std::size_t>(i) * size, size);
}

Pool::Pool(const Comm& comm, Backend& backend, Columns own_columns, RowStore store)
    : columns(std::move(own_columns)),
      comm_(&comm),
      backend_(&backend),
      store_(std::move(store)),
      device_rows_(backend, std::span<const std::int64_t>(columns.rows)) {
  std::int64_t totals[3] = {own(), 0, 0};
  for (const Role role : columns.role) {
    totals[1] += role == Role::candidate;
    totals[2] += is_covered(role);
  }
  comm.sum(totals);
  total_rows_ = totals[0];
  total_candidates_ = totals[1];
  total_covered_ = totals[2];
}

Array<std::uint8_t> Pool::selectable() const {
  std::vector<std::uint8_t> mask;
  mask.reserve(columns.role.size());
  for (const Role role : columns.role) mask.push_back(role == Role::candidate);
  return Array<std::uint8_t>(*backend_, std::span<const std::uint8_t>(mask));
}

Array<double> Pool::device(const std::optional<std::vector<double>>& column) const {
  if (!column) return {};
  return Array<double>(*backend_, std::span<const double>(*column));
}

Array<double> Pool::squared_norms() const {
  Array<double> norms(*backend_, own());
  std::vector<double> a2(classes() > 0 ? static_cast<std::size_t>(own()) : 0);
  store_.visit_all([&](std::int64_t first, const Vectors& v) {
    backend_->squared_norms(v.x, v.rows, norms.data() + first);
    if (v.outer()) backend_->copy_out(a2.data() + first, v.a2, static_cast<std::size_t>(v.rows) * sizeof(double));
  });
  if (a2.empty()) return norms;
  std::vector<double> product = norms.to_host();
  for (std::size_t i = 0; i < product.size(); ++i) product[i] *= a2[i];
  norms.write(product);
  return norms;
}

Pool Pool::where(std::span<const std::uint8_t> keep) const {
  std::vector<std::int64_t> positions;
  for (std::size_t i = 0; i < keep.size(); ++i)
    if (keep[i]) positions.push_back(static_cast<std::int64_t>(i));
  // On all ranks or on none: what is collective may depend on it.
  const bool in_memory = comm_->max(store_.has_room_for(static_cast<std::int64_t>(positions.size())) ? 0 : 1) == 0;
  return Pool(*comm_, *backend_, chosen(columns, positions), store_.chosen(positions, in_memory));
}

Pool Pool::only(std::span<const std::int64_t> rows) const {
  std::vector<std::uint8_t> keep(columns.rows.size());
  for_own(rows, [&](std::int64_t own_row, std::size_t) { keep[static_cast<std::size_t>(own_row)] = 1; });
  return where(keep);
}

// Rows on their way to the ranks of their parts: every column and every field, one exchange each.
Pool::Moved Pool::moved(std::span<const std::int32_t> part) const {
  const auto ranks = static_cast<std::size_t>(comm_->size());
  std::vector<std::vector<std::int64_t>> positions(ranks);
  for (std::size_t i = 0; i < part.size(); ++i)
    positions[static_cast<std::size_t>(part[i]) % ranks].push_back(static_cast<std::int64_t>(i));

  const auto exchange = [&]<class T>(const std::vector<std::vector<T>>& to) {
    std::vector<T> all;
    for (const std::vector<T>& from : comm_->exchange(to)) all.insert(all.end(), from.begin(), from.end());
    return all;
  };
  const auto send = [&]<class T>(const std::vector<T>& column) {
    std::vector<std::vector<T>> to;
    for (const auto& of_rank : positions) to.push_back(chosen(column, of_rank));
    return exchange(to);
  };
  const auto send_if = [&]<class T>(const std::optional<std::vector<T>>& column) {
    return column ? std::optional(send(*column)) : std::nullopt;
  };
  Moved here;
  here.parts = send(std::vector<std::int32_t>(part.begin(), part.end()));
  here.columns = {send(columns.rows),      send(columns.role),      send_if(columns.score),
                  send_if(columns.weight), send_if(columns.before), send_if(columns.label)};
  if (!store_.resident()) return here;  // vectors that can be read again are, by the rank that needs them
  std::vector<std::vector<std::byte>> x_to;
  std::vector<std::vector<float>> a_to;
  for (const auto& of_rank : positions) {
    x_to.emplace_back(of_rank.size() * static_cast<std::size_t>(store_.format().x_bytes()));
    a_to.emplace_back(of_rank.size() * static_cast<std::size_t>(store_.format().classes));
    store_.gather(of_rank, x_to.back().data(), a_to.back().data());
  }
  here.x = exchange(x_to);
  here.a = exchange(a_to);
  return here;
}

std::vector<Pool::Part> Pool::regroup(std::span<const std::int32_t> part, const Comm& self) const {
  const Moved here = moved(part);
  const auto row_of = [&](std::int64_t i) { return here.columns.rows[static_cast<std::size_t>(i)]; };
  std::vector<std::int64_t> by_row(here.parts.size());
  std::iota(by_row.begin(), by_row.end(), std::int64_t{0});
  std::sort(by_row.begin(), by_row.end(), [&](std::int64_t i, std::int64_t j) { return row_of(i) < row_of(j); });
  const auto source = comm_->agree([&]() -> std::shared_ptr<const RowSource> {
    if (store_.resident()) return nullptr;
    return store_.source_among(chosen(here.columns.rows, by_row),
                               chosen(here.columns.label, by_row).value_or(std::vector<std::int32_t>()));
  });

  std::map<std::int32_t, std::vector<std::int64_t>> parts;
  for (const std::int64_t i : by_row) parts[here.parts[static_cast<std::size_t>(i)]].push_back(i);
  std::vector<Part> mine;
  for (const auto& [p, of_part] : parts) {
    Columns own = chosen(here.columns, of_part);
    std::optional<RowStore::Stream> stream =
        store_.stream_of(own.rows, own.label.value_or(std::vector<std::int32_t>()), source);
    RowStore store = stream ? RowStore(*backend_, store_.format(), std::move(*stream))
                            : stored(*backend_, store_.format(), of_part, here.x, here.a);
    mine.push_back({p, Pool(self, *backend_, std::move(own), std::move(store))});
  }
  return mine;
}

std::vector<Candidate> Pool::top(const Array<double>& key, const Array<std::uint8_t>& selectable,
                                 std::int64_t count) const {
  return best_of(*comm_, backend_->top(key.data(), selectable.data(), device_rows_.data(), own(), count), count);
}

void Pool::for_own(std::span<const std::int64_t> rows,
                   const std::function<void(std::int64_t, std::size_t)>& visit) const {
  if (columns.rows.empty()) return;
  // A run of rows without gaps needs no search.
  const bool dense = columns.rows.back() - columns.rows.front() + 1 == own();
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < columns.rows.front() || rows[i] > columns.rows.back()) continue;
    const std::int64_t at =
        dense ? rows[i] - columns.rows.front()
              : std::lower_bound(columns.rows.begin(), columns.rows.end(), rows[i]) - columns.rows.begin();
    if (columns.rows[static_cast<std::size_t>(at)] == rows[i]) visit(at, i);
  }
}

Pool::Located Pool::locate(std::span<const std::int64_t> rows) const {
  Located found;
  for_own(rows, [&](std::int64_t own_row, std::size_t i) {
    found.positions.push_back(own_row);
    found.places.push_back(static_cast<std::int64_t>(i));
  });
  found.places = comm_->gather(std::span<const std::int64_t>(found.places));
  require(found.places.size() == rows.size(), "every fetched row is in the pool once");
  return found;
}

std::vector<std::byte> Pool::fetch_with(std::span<const std::int64_t> rows, std::size_t item,
                                        const GatherOwn& gather_own) const {
  const Located found = locate(rows);
  std::vector<std::byte> mine(found.positions.size() * item);
  if (!mine.empty()) gather_own(found.positions, mine.data());
  const std::vector<std::byte> all = comm_->gather(std::span<const std::byte>(mine));
  std::vector<std::byte> out(rows.size() * item);
  for (std::size_t i = 0; i < found.places.size() && item; ++i)
    std::memcpy(out.data() + static_cast<std::size_t>(found.places[i]) * item, all.data() + i * item, item);
  return out;
}

std::vector<std::byte> Pool::fetch_items(std::span<const std::int64_t> rows, const void* column,
                                         std::size_t item) const {
  return fetch_with(rows, item, [&](std::span<const std::int64_t> positions, std::byte* out) {
    backend_->gather(column, item, positions, out);
  });
}

// What other ranks hold stays on devices until all of it is here; the host gets a copy, as it does without a link.
Packed Pool::fetch_by(const DeviceLink& link, std::span<const std::int64_t> rows) const {
  const Located found = locate(rows);
  const auto own_count = static_cast<std::int64_t>(found.positions.size());
  const std::vector<std::int64_t> counts = comm_->gather(std::span(&own_count, 1));
  const auto ascending = [](std::size_t count) {
    std::vector<std::int64_t> numbers(count);
    std::iota(numbers.begin(), numbers.end(), 0);
    return numbers;
  };
  const auto moved = [&]<class T>(const Field& from, Array<T> sorted) {
    const std::size_t item = from.row_bytes();
    if (item == 0) return sorted;
    const Array<std::byte> mine(*backend_, own_count * static_cast<std::int64_t>(item));
    const Array<std::byte> all(*backend_, static_cast<std::int64_t>(rows.size() * item));
    backend_->scatter(from.data, item, found.positions, mine.data(), ascending(found.positions.size()));
    std::vector<std::size_t> bytes;
    for (const std::int64_t count : counts) bytes.push_back(static_cast<std::size_t>(count) * item);
    link.gather(mine.data(), bytes, all.data());
    backend_->scatter(all.data(), item, ascending(rows.size()), sorted.data(), found.places);
    return sorted;
  };
  const RowFormat& format = store_.format();
  const auto count = static_cast<std::int64_t>(rows.size());
  const Vectors own = store_.vectors();
  Array<std::byte> x = moved(own.x, Array<std::byte>(*backend_, count * format.x_bytes()));
  Array<float> a = moved(own.a, Array<float>(*backend_, count * format.classes));
  return Packed(*backend_, format, std::move(x), std::move(a));
}

Packed Pool::fetch(std::span<const std::int64_t> rows) const {
  const DeviceLink* link = backend_->link();
  if (link && &link->comm() == comm_ && store_.resident()) return fetch_by(*link, rows);
  const RowFormat& format = store_.format();
  const auto x_bytes = static_cast<std::size_t>(format.x_bytes()),
             row_bytes = static_cast<std::size_t>(format.row_bytes());
  const auto classes = static_cast<std::size_t>(format.classes);
  std::vector<std::byte> x;
  std::vector<float> a;
  std::vector<std::byte> all =
      fetch_with(rows, row_bytes, [&](std::span<const std::int64_t> positions, std::byte* out) {
        if (classes == 0) return store_.gather(positions, out, nullptr);
        x.resize(positions.size() * x_bytes);
        a.resize(positions.size() * classes);
        store_.gather(positions, x.data(), a.data());
        for (std::size_t i = 0; i < positions.size(); ++i, out += row_bytes) {
          std::memcpy(out, x.data() + i * x_bytes, x_bytes);
          std::memcpy(out + x_bytes, a.data() + i * classes, row_bytes - x_bytes);
        }
      });
  if (classes == 0) return Packed(*backend_, format, std::move(all), {});
  x.resize(rows.size() * x_bytes);
  a.resize(rows.size() * classes);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(x.data() + i * x_bytes, all.data() + i * row_bytes, x_bytes);
    std::memcpy(a.data() + i * classes, all.data() + i * row_bytes + x_bytes, row_bytes - x_bytes);
  }
  return Packed(*backend_, format, std::move(x), std::move(a));
}

std::vector<float> Pool::fetch_scores(std::span<const std::int64_t> rows) const {
  return columns.score ? fetch_column(rows, *columns.score) : std::vector<float>(rows.size(), std::nanf(""));
}

void Pool::each_row(const std::function<void(std::int64_t own, std::span<const float> x)>& visit) const {
  const RowFormat& format = store_.format();
  constexpr std::int64_t kAtOnce = 256;
  std::vector<std::byte> bytes(static_cast<std::size_t>(kAtOnce * format.x_bytes()));
  store_.visit_all([&](std::int64_t first, const Vectors& v) {
    for (std::int64_t at = 0; at < v.rows; at += kAtOnce) {
      const std::int64_t count = std::min(kAtOnce, v.rows - at);
      backend_->copy_out(bytes.data(), v.x.from(at).data, static_cast<std::size_t>(count * format.x_bytes()));
      const std::vector<float> rows = widened_from(format, bytes.data(), count);
      for (std::int64_t i = 0; i < count; ++i)
        visit(first + at + i,
              std::span(rows).subspan(static_cast<std::size_t>(i * format.dim), static_cast<std::size_t>(format.dim)));
    }
  });
}

std::int64_t best_candidate(const Pool& pool, const std::vector<double>& keys) {
  Candidate best = kNoCandidate;
  for (std::size_t i = 0; i < keys.size(); ++i) {
    const Candidate candidate{keys[i], pool.columns.rows[i]};
    if (pool.columns.role[i] == Role::candidate && beats(candidate, best)) best = candidate;
  }
  return best_of(pool.comm(), {best}, 1).front().row;
}

std::vector<std::int64_t> rows_of(std::span<const Candidate> candidates) {
  std::vector<std::int64_t> rows;
  for (const Candidate& candidate : candidates) rows.push_back(candidate.row);
  return rows;
}

std::vector<Candidate> best_of(const Comm& comm, std::vector<Candidate> mine, std::int64_t count) {
  keep_best(mine, count);
  if (comm.size() == 1) return mine;
  std::vector<Candidate> all = comm.gather(std::span<const Candidate>(mine));
  keep_best(all, count);
  return all;
}

std::vector<std::int64_t> draw_rows(const Pool& pool, std::uint64_t seed, Purpose purpose, std::int64_t count,
                                    const std::function<bool(std::int64_t own)>& among) {
  Best best(std::max<std::int64_t>(count, 1));
  for (std::int64_t i = 0; i < pool.own(); ++i) {
    const std::int64_t row = pool.columns.rows[static_cast<std::size_t>(i)];
    if (among(i)) best.offer({-uniform(seed, purpose, static_cast<std::uint64_t>(row)), row});
  }
  return rows_of(best_of(pool.comm(), best.take(), count));
}

std::vector<std::int64_t> draw_batch(const Pool& pool, std::uint64_t seed, std::int64_t size) {
  return draw_rows(pool, seed, Purpose("random"), size, [&](std::int64_t own) {
    return pool.columns.role[static_cast<std::size_t>(own)] == Role::candidate;
  });
}

double largest_over(const Comm& comm, std::span<const double> mine) {
  double largest = 0;
  for (const double value : mine) largest = std::max(largest, value);
  return comm.max(largest);
}

double sum_over(const Comm& comm, std::span<const double> mine, std::int64_t terms) {
  const double largest = largest_over(comm, mine);
  if (std::isinf(largest)) return largest;
  const FixedPoint fixed = FixedPoint::for_sum(terms, largest);
  std::int64_t sum = 0;
  for (const double value : mine) sum += fixed.of(value);
  return fixed.value(comm.sum(sum));
}

}  // namespace seine
