#include "seine/pool.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/row_kernel.hpp"
#include "best.hpp"
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
  return {chosen(columns.rows, positions), chosen(columns.role, positions), chosen(columns.score, positions),
          chosen(columns.weight, positions), chosen(columns.before, positions)};
}

// Items of backend memory at these positions, again in backend memory.
template <class T>
Array<T> chosen(Backend& backend, const Array<T>& from, std::int64_t items_per_row,
                std::span<const std::int64_t> positions) {
  if (from.empty() || positions.empty() || items_per_row == 0) return {};
  std::vector<T> host(positions.size() * static_cast<std::size_t>(items_per_row));
  backend.gather(from.data(), static_cast<std::size_t>(items_per_row) * sizeof(T), positions, host.data());
  return Array<T>(backend, std::span<const T>(host));
}

Array<double> norms_of(Backend& backend, const Field& field, std::int64_t rows) {
  Array<double> norms(backend, rows);
  backend.squared_norms(field, rows, norms.data());
  return norms;
}

}  // namespace

Packed::Packed(Backend& backend, Element type, std::int64_t dim, std::int64_t classes, std::vector<std::byte> x,
               std::vector<float> a)
    : type_(type), dim_(dim), classes_(classes), host_x_(std::move(x)), host_a_(std::move(a)) {
  const std::size_t row_bytes = static_cast<std::size_t>(dim_) * element_bytes(type_);
  rows_ = row_bytes ? static_cast<std::int64_t>(host_x_.size() / row_bytes) : 0;
  x_ = Array<std::byte>(backend, std::span<const std::byte>(host_x_));
  if (classes_ == 0) return;
  a_ = Array<float>(backend, std::span<const float>(host_a_));
  x2_ = norms_of(backend, {x_.data(), type_, dim_}, rows_);
  a2_ = norms_of(backend, {a_.data(), Element::f32, classes_}, rows_);
}

Vectors Packed::vectors() const {
  return {rows_, {x_.data(), type_, dim_}, {a_.data(), Element::f32, classes_}, x2_.data(), a2_.data()};
}

std::vector<float> Packed::widened() const {
  std::vector<float> out(static_cast<std::size_t>(rows_ * dim_));
  if (type_ == Element::f16)
    widen(host_x_.data(), rows_ * dim_, out.data());
  else if (!out.empty())
    std::memcpy(out.data(), host_x_.data(), out.size() * sizeof(float));
  return out;
}

std::vector<float> Packed::row(std::int64_t i) const {
  std::vector<float> out(static_cast<std::size_t>(dim_));
  if (type_ == Element::f16)
    widen(bytes(i).data(), dim_, out.data());
  else if (!out.empty())
    std::memcpy(out.data(), bytes(i).data(), out.size() * sizeof(float));
  return out;
}

std::span<const std::byte> Packed::bytes(std::int64_t i) const {
  const std::size_t size = static_cast<std::size_t>(dim_) * element_bytes(type_);
  return std::span(host_x_).subspan(static_cast<std::size_t>(i) * size, size);
}

std::span<const std::byte> Packed::residual_bytes(std::int64_t i) const {
  return std::as_bytes(
      std::span(host_a_).subspan(static_cast<std::size_t>(i * classes_), static_cast<std::size_t>(classes_)));
}

Pool::Pool(const Comm& comm, Backend& backend, Columns own_columns, Element type, std::int64_t dim, Array<std::byte> x,
           std::int64_t classes, Array<float> a)
    : columns(std::move(own_columns)),
      comm_(&comm),
      backend_(&backend),
      type_(type),
      dim_(dim),
      classes_(classes),
      x_(std::move(x)),
      a_(std::move(a)),
      device_rows_(backend, std::span<const std::int64_t>(columns.rows)) {
  if (classes_ > 0) {
    x2_ = norms_of(backend, {x_.data(), type_, dim_}, own());
    a2_ = norms_of(backend, {a_.data(), Element::f32, classes_}, own());
  }
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

Vectors Pool::vectors() const {
  return {own(), {x_.data(), type_, dim_}, {a_.data(), Element::f32, classes_}, x2_.data(), a2_.data()};
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
  Array<double> norms = norms_of(*backend_, vectors().x, own());
  if (classes_ == 0) return norms;
  std::vector<double> product = norms.to_host();
  const std::vector<double> a2 = a2_.to_host();
  for (std::size_t i = 0; i < product.size(); ++i) product[i] *= a2[i];
  norms.write(product);
  return norms;
}

void Pool::make_unit() {
  require(type_ == Element::f32 && classes_ == 0, "only float32 rows are divided by their norm");
  backend_->unit_rows(reinterpret_cast<float*>(x_.data()), own(), dim_);
}

Pool Pool::where(std::span<const std::uint8_t> keep) const {
  std::vector<std::int64_t> positions;
  for (std::size_t i = 0; i < keep.size(); ++i)
    if (keep[i]) positions.push_back(static_cast<std::int64_t>(i));
  return Pool(*comm_, *backend_, chosen(columns, positions), type_, dim_,
              chosen(*backend_, x_, dim_ * static_cast<std::int64_t>(element_bytes(type_)), positions), classes_,
              chosen(*backend_, a_, classes_, positions));
}

Pool Pool::only(std::span<const std::int64_t> rows) const {
  std::vector<std::uint8_t> keep(columns.rows.size());
  for_own(rows, [&](std::int64_t own_row, std::size_t) { keep[static_cast<std::size_t>(own_row)] = 1; });
  return where(keep);
}

std::vector<Pool::Part> Pool::regroup(std::span<const std::int32_t> part, const Comm& self) const {
  const auto ranks = static_cast<std::size_t>(comm_->size());
  std::vector<std::vector<std::int64_t>> positions(ranks);
  for (std::size_t i = 0; i < part.size(); ++i)
    positions[static_cast<std::size_t>(part[i]) % ranks].push_back(static_cast<std::int64_t>(i));

  // What leaves for each rank: every column and every field of its rows, one exchange each.
  const auto send = [&]<class T>(const std::vector<T>& column) {
    std::vector<std::vector<T>> to;
    for (const auto& of_rank : positions) to.push_back(chosen(column, of_rank));
    std::vector<T> all;
    for (const std::vector<T>& from : comm_->exchange(to)) all.insert(all.end(), from.begin(), from.end());
    return all;
  };
  const auto send_field = [&]<class T>(const Array<T>& field, std::int64_t items_per_row) {
    std::vector<std::vector<T>> to;
    for (const auto& of_rank : positions) {
      auto& out = to.emplace_back(of_rank.size() * static_cast<std::size_t>(items_per_row));
      if (!out.empty())
        backend_->gather(field.data(), static_cast<std::size_t>(items_per_row) * sizeof(T), of_rank, out.data());
    }
    std::vector<T> all;
    for (const std::vector<T>& from : comm_->exchange(to)) all.insert(all.end(), from.begin(), from.end());
    return all;
  };
  const std::int64_t row_bytes = dim_ * static_cast<std::int64_t>(element_bytes(type_));
  const std::vector<std::int32_t> parts = send(std::vector<std::int32_t>(part.begin(), part.end()));
  const auto send_if = [&]<class T>(const std::optional<std::vector<T>>& column) {
    return column ? std::optional(send(*column)) : std::nullopt;
  };
  const Columns all{send(columns.rows), send(columns.role), send_if(columns.score), send_if(columns.weight),
                    send_if(columns.before)};
  const std::vector<std::byte> x = send_field(x_, row_bytes);
  const std::vector<float> a = send_field(a_, classes_);

  std::vector<std::int64_t> order(parts.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  std::sort(order.begin(), order.end(), [&](std::int64_t i, std::int64_t j) {
    const auto key = [&](std::int64_t k) {
      return std::pair(parts[static_cast<std::size_t>(k)], all.rows[static_cast<std::size_t>(k)]);
    };
    return key(i) < key(j);
  });
  std::vector<Part> mine;
  for (auto first = order.begin(); first != order.end();) {
    const std::int32_t p = parts[static_cast<std::size_t>(*first)];
    const auto last =
        std::find_if(first, order.end(), [&](std::int64_t i) { return parts[static_cast<std::size_t>(i)] != p; });
    const std::span<const std::int64_t> of_part(first, last);
    std::vector<std::byte> part_x(of_part.size() * static_cast<std::size_t>(row_bytes));
    std::vector<float> part_a(of_part.size() * static_cast<std::size_t>(classes_));
    for (std::size_t i = 0; i < of_part.size(); ++i) {
      if (row_bytes)
        std::memcpy(part_x.data() + i * static_cast<std::size_t>(row_bytes), x.data() + of_part[i] * row_bytes,
                    static_cast<std::size_t>(row_bytes));
      std::copy_n(a.begin() + of_part[i] * classes_, classes_,
                  part_a.begin() + static_cast<std::ptrdiff_t>(i) * classes_);
    }
    mine.push_back({p, Pool(self, *backend_, chosen(all, of_part), type_, dim_,
                            Array<std::byte>(*backend_, std::span<const std::byte>(part_x)), classes_,
                            Array<float>(*backend_, std::span<const float>(part_a)))});
    first = last;
  }
  return mine;
}

std::vector<Candidate> Pool::top(const Array<double>& key, const Array<std::uint8_t>& selectable,
                                 std::int64_t count) const {
  return best_of(*comm_, backend_->top(key.data(), selectable.data(), device_rows_.data(), own(), count), count);
}

void Pool::for_own(std::span<const std::int64_t> rows,
                   const std::function<void(std::int64_t, std::size_t)>& visit) const {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto at = std::lower_bound(columns.rows.begin(), columns.rows.end(), rows[i]);
    if (at != columns.rows.end() && *at == rows[i]) visit(at - columns.rows.begin(), i);
  }
}

std::vector<std::byte> Pool::fetch_with(std::span<const std::int64_t> rows, std::size_t item,
                                        const GatherOwn& gather_own) const {
  std::vector<std::int64_t> positions, places;
  for_own(rows, [&](std::int64_t own_row, std::size_t i) {
    positions.push_back(own_row);
    places.push_back(static_cast<std::int64_t>(i));
  });
  std::vector<std::byte> mine(positions.size() * item);
  if (!mine.empty()) gather_own(positions, mine.data());
  const std::vector<std::int64_t> all_places = comm_->gather(std::span<const std::int64_t>(places));
  const std::vector<std::byte> all = comm_->gather(std::span<const std::byte>(mine));
  require(all_places.size() == rows.size(), "every fetched row is in the pool once");
  std::vector<std::byte> out(rows.size() * item);
  for (std::size_t i = 0; i < all_places.size() && item; ++i)
    std::memcpy(out.data() + static_cast<std::size_t>(all_places[i]) * item, all.data() + i * item, item);
  return out;
}

std::vector<std::byte> Pool::fetch_items(std::span<const std::int64_t> rows, const void* column,
                                         std::size_t item) const {
  return fetch_with(rows, item, [&](std::span<const std::int64_t> positions, std::byte* out) {
    backend_->gather(column, item, positions, out);
  });
}

Packed Pool::fetch(std::span<const std::int64_t> rows) const {
  std::vector<std::byte> x = fetch_items(rows, x_.data(), static_cast<std::size_t>(dim_) * element_bytes(type_));
  std::vector<float> a;
  if (classes_ > 0) {
    const std::vector<std::byte> bytes =
        fetch_items(rows, a_.data(), static_cast<std::size_t>(classes_) * sizeof(float));
    a.resize(bytes.size() / sizeof(float));
    if (!bytes.empty()) std::memcpy(a.data(), bytes.data(), bytes.size());
  }
  return Packed(*backend_, type_, dim_, classes_, std::move(x), std::move(a));
}

std::vector<float> Pool::fetch_scores(std::span<const std::int64_t> rows) const {
  return columns.score ? fetch_column(rows, *columns.score) : std::vector<float>(rows.size(), std::nanf(""));
}

Packed Pool::own_rows() const {
  return Packed(*backend_, type_, dim_, 0, x_.to_host(), {});
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
  const auto keep_best = [count](std::vector<Candidate>& all) {
    const auto kept = std::min<std::size_t>(all.size(), static_cast<std::size_t>(std::max<std::int64_t>(count, 0)));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(), beats);
    all.resize(kept);
  };
  keep_best(mine);
  if (comm.size() == 1) return mine;
  std::vector<Candidate> all = comm.gather(std::span<const Candidate>(mine));
  keep_best(all);
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
