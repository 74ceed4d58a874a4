// Rows spread over ranks, in the memory of a backend, with their columns. A strategy speaks to a Pool and to nothing
// below it: answers are already global, the same on every rank.
//
// One type serves the whole pool, a subset of it (candidates kept by a score, an evaluation sample, a union of picks)
// and a partition that one rank holds alone. Which rows are in it decides what it means; who holds them does not.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "seine/backend.hpp"
#include "seine/comm.hpp"
#include "seine/roles.hpp"
#include "seine/row_store.hpp"

namespace seine {

// Per-row values on the host, in the order of the own rows. A column is there on every rank or on none.
struct Columns {
  std::vector<std::int64_t> rows;  // global numbers, ascending
  std::vector<Role> role;
  std::optional<std::vector<float>> score;    // acquisition score
  std::optional<std::vector<double>> weight;  // of the row in the objective; absent: 1
  std::optional<std::vector<double>>
      before;  // what the covered rows leave of the row's value; each rule says what it is
  std::optional<std::vector<std::int32_t>> label;  // class that a residual is taken of; negative: the predicted one
};

// Vectors of single rows, replicated: on the host and in backend memory.
class Packed {
 public:
  Packed() = default;
  Packed(Backend& backend, const RowFormat& format, std::vector<std::byte> x, std::vector<float> a);
  Packed(Backend& backend, const RowFormat& format, Array<std::byte> x, Array<float> a);  // [rows, ...] of the format

  Vectors vectors() const { return arrays_.vectors(rows_); }
  std::int64_t rows() const { return rows_; }
  std::vector<float> widened() const;                      // x of all rows
  std::vector<float> row(std::int64_t i) const;            // x of one row, widened
  std::span<const std::byte> bytes(std::int64_t i) const;  // of one row, as stored
  const float* residuals(std::int64_t i) const { return host_a_.data() + i * format_.classes; }

 private:
  RowFormat format_;
  std::int64_t rows_ = 0;
  std::vector<std::byte> host_x_;
  std::vector<float> host_a_;
  RowArrays arrays_;
};

class Pool {
 public:
  Pool(const Comm& comm, Backend& backend, Columns columns, RowStore store);  // collective
  Pool(Pool&&) = default;
  Pool& operator=(Pool&&) = default;

  const Comm& comm() const { return *comm_; }
  Backend& backend() const { return *backend_; }
  std::int64_t rows() const { return total_rows_; }              // of all ranks
  std::int64_t candidates() const { return total_candidates_; }  // of all ranks
  std::int64_t covered() const { return total_covered_; }        // of all ranks
  std::int64_t share_of(std::int64_t count) const {              // of each rank, where all together do `count`
    return count / comm_->size() + 1;
  }
  std::int64_t own() const { return static_cast<std::int64_t>(columns.rows.size()); }
  std::int64_t dim() const { return store_.format().dim; }
  std::int64_t classes() const { return store_.format().classes; }

  Columns columns;  // of the own rows; `rows` and `role` stay as they are

  const RowStore& store() const { return store_; }  // the vectors of the own rows
  // Collective. How many rows to fetch together, `most` at most: what the memory of every rank has room for.
  std::int64_t at_once(std::int64_t most) const {
    return -static_cast<std::int64_t>(comm_->max(-static_cast<double>(store_.at_once(most))));
  }

  // Backend memory.
  const std::int64_t* global_rows() const { return device_rows_.data(); }
  Array<std::uint8_t> selectable() const;                                        // 1 for candidates
  Array<double> device(const std::optional<std::vector<double>>& column) const;  // absent: no memory
  Array<double> squared_norms() const;                                           // of the rows: |x|^2, or |a|^2 |x|^2

  void make_unit() { store_.make_unit(); }

  // Collective. The rows with keep[i] != 0, on the same ranks.
  Pool where(std::span<const std::uint8_t> keep) const;
  Pool only(std::span<const std::int64_t> rows) const;  // collective; the rows with these global numbers
  // Collective. part[i] is the part of own row i; part p goes whole to rank p mod ranks. Returns this rank's parts in
  // order of p; each lives on `self`, a communicator of this process alone. Empty parts are left out.
  struct Part;
  std::vector<Part> regroup(std::span<const std::int32_t> part, const Comm& self) const;

  // Collective. The `count` best (key, row) of the selectable rows of all ranks, best first.
  std::vector<Candidate> top(const Array<double>& key, const Array<std::uint8_t>& selectable, std::int64_t count) const;
  // Collective. Single rows by global number, in the order given; each must be in the pool.
  Packed fetch(std::span<const std::int64_t> rows) const;
  // Collective. Items of a per-row array in backend memory, or of a host column, for these rows.
  std::vector<std::byte> fetch_items(std::span<const std::int64_t> rows, const void* column, std::size_t item) const;
  template <Plain T>
  std::vector<T> fetch_column(std::span<const std::int64_t> rows, const std::vector<T>& column) const;
  // Not collective. Calls visit(position, x) for all own rows in order, on the host.
  void each_row(const std::function<void(std::int64_t own, std::span<const float> x)>& visit) const;
  std::vector<float> fetch_scores(std::span<const std::int64_t> rows) const;  // collective; NaN without the column
  // Calls visit(position among the own rows, position in `rows`) for each of `rows` that is here. Not collective.
  void for_own(std::span<const std::int64_t> rows, const std::function<void(std::int64_t, std::size_t)>& visit) const;

 private:
  // Of rows asked for: positions of those that are here, and, rank after rank, places in the list of those of all.
  struct Located {
    std::vector<std::int64_t> positions, places;
  };
  Located locate(std::span<const std::int64_t> rows) const;  // collective
  // Rows that have come to the rank of their part, in the order of their ranks.
  struct Moved {
    std::vector<std::int32_t> parts;
    Columns columns;
    std::vector<std::byte> x;  // empty where vectors are read again
    std::vector<float> a;
  };
  Moved moved(std::span<const std::int32_t> part) const;  // collective
  using GatherOwn = std::function<void(std::span<const std::int64_t> positions, std::byte* out)>;
  std::vector<std::byte> fetch_with(std::span<const std::int64_t> rows, std::size_t item, const GatherOwn& own) const;
  Packed fetch_by(const DeviceLink& link, std::span<const std::int64_t> rows) const;

  const Comm* comm_;
  Backend* backend_;
  RowStore store_;
  std::int64_t total_rows_ = 0, total_candidates_ = 0, total_covered_ = 0;
  Array<std::int64_t> device_rows_;
};

struct Pool::Part {
  std::int32_t part;
  Pool pool;
};

std::vector<std::int64_t> rows_of(std::span<const Candidate> candidates);

// Collective. The `count` best of everybody's candidates, best first, on every rank.
std::vector<Candidate> best_of(const Comm& comm, std::vector<Candidate> mine, std::int64_t count);

// Collective. The `count` rows with the smallest uniform(seed, purpose, row) among the own rows that `among` accepts:
// a uniform sample, ascending in that draw.
std::vector<std::int64_t> draw_rows(const Pool& pool, std::uint64_t seed, Purpose purpose, std::int64_t count,
                                    const std::function<bool(std::int64_t own)>& among);
// Collective. A random batch, as `select --strategy random` returns it.
std::vector<std::int64_t> draw_batch(const Pool& pool, std::uint64_t seed, std::int64_t size);

// Collective. The candidate with the largest key (one per own row); there must be one.
std::int64_t best_candidate(const Pool& pool, const std::vector<double>& keys);

// Collective. Exact sum and largest of non-negative values over all ranks, whatever the grouping.
double sum_over(const Comm& comm, std::span<const double> mine, std::int64_t terms);
double largest_over(const Comm& comm, std::span<const double> mine);

template <Plain T>
std::vector<T> Pool::fetch_column(std::span<const std::int64_t> rows, const std::vector<T>& column) const {
  const std::vector<std::byte> bytes =
      fetch_with(rows, sizeof(T), [&](std::span<const std::int64_t> positions, std::byte* out) {
        for (std::size_t i = 0; i < positions.size(); ++i)
          __builtin_memcpy(out + i * sizeof(T), &column[static_cast<std::size_t>(positions[i])], sizeof(T));
      });
  std::vector<T> values(rows.size());
  if (!bytes.empty()) __builtin_memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

}  // namespace seine
