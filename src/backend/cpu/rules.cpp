// What picks do to rows: every rule meets every geometry here. Nearest picks of which more is known: by_nearest.cpp.
#include <algorithm>
#include <atomic>
#include <memory>
#include <span>
#include <vector>

#include "backend/cpu/by_nearest.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/row_kernel.hpp"
#include "backend/cpu/tiles.hpp"
#include "backend/places.hpp"
#include "host_rows.hpp"

namespace seine {
namespace {

// Interactions of rows of a tile with a chunk of picks, by geometry; see rules.hpp. `tile` numbers rows in the tile.
template <class Value, auto kKernel>
class Dense {
 public:
  Dense(const float* x, const Value* picks, std::int64_t dim) : x_(x), picks_(picks), dim_(dim) {}
  void meet(std::span<const std::int32_t> tile, std::int64_t first, std::int64_t count) {
    rows_.clear();
    for (const std::int32_t row : tile) rows_.push_back(x_ + row * dim_);
    out_.resize(tile.size() * static_cast<std::size_t>(count));
    (row_kernels().*kKernel)(rows_.data(), static_cast<std::int64_t>(tile.size()), picks_ + first * dim_, count, dim_,
                             out_.data());
  }
  const Value* operator[](std::size_t i) const { return out_.data() + i; }

 private:
  const float* x_;
  const Value* picks_;
  std::int64_t dim_;
  RowPointers rows_;
  std::vector<Value> out_;
};
using DenseDistances = Dense<float, &RowKernels::distances2>;
using DenseProducts = Dense<double, &RowKernels::wide_dots>;

class OuterDistances {
 public:
  OuterDistances(const float* x, const Vectors& rows, const float* picks_x, const Vectors& picks)
      : x_(x, picks_x, rows.x.dim),
        a_(static_cast<const float*>(rows.a.data), static_cast<const float*>(picks.a.data), rows.a.dim),
        rows_(rows),
        picks_(picks) {}
  void meet(std::span<const std::int32_t> tile, std::int64_t first, std::int64_t count) {
    x_.meet(tile, first, count);
    a_.meet(tile, first, count);
    out_.resize(tile.size() * static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < tile.size(); ++i) {
      const double a2 = rows_.a2[tile[i]], x2 = rows_.x2[tile[i]];
      const std::size_t at = i * static_cast<std::size_t>(count);
      for (std::int64_t p = 0; p < count; ++p)
        out_[at + static_cast<std::size_t>(p)] =
            outer_distance2(a2, x2, picks_.a2[first + p], picks_.x2[first + p], a_[at][p], x_[at][p]);
    }
  }
  const double* operator[](std::size_t i) const { return out_.data() + i; }

 private:
  DenseDistances x_, a_;
  const Vectors rows_;  // of the tile
  const Vectors& picks_;
  std::vector<double> out_;
};

// Rows of [first, last) that have not seen all picks and may matter, and the first pick that one of them has not seen.
struct RowsBehind {
  std::vector<std::int32_t> rows;  // counted from `first`
  std::int64_t first_pick;

  RowsBehind(std::int64_t first, std::int64_t last, std::int64_t total, double floor, const Places& places)
      : first_pick(total) {
    for (std::int64_t row = first; row < last; ++row) {
      if (!places.is_behind(row, total, floor)) continue;
      rows.push_back(static_cast<std::int32_t>(row - first));
      first_pick = std::min(first_pick, places.seen(row));
    }
  }
};

// Rows [first, last) as float32: in place, or the active ones widened, each in its place.
const float* wide_tile(const Field& rows, std::int64_t first, std::int64_t last, const RowsBehind& active,
                       std::unique_ptr<float[]>& wide) {
  const Field tile = rows.from(first);
  if (tile.type == Element::f32) return static_cast<const float*>(tile.data);
  wide = std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>((last - first) * tile.dim));
  for (const std::int32_t i : active.rows) widen(tile.from(i).data, tile.dim, wide.get() + i * tile.dim);
  return wide.get();
}

// Brings the active rows of a tile that starts at `first` up to date, a chunk of picks after the other. Those that have
// fallen below the floor drop out. Returns how many pairs met.
template <class Rule, class Interactions>
std::int64_t apply_tile(Interactions interactions, std::int64_t first, RowsBehind& tile, const Picks& picks,
                        double floor, const Places& rows) {
  std::vector<std::int32_t>&active = tile.rows, meeting;
  const std::int64_t last = picks.vectors.rows;
  std::int64_t met = 0;
  for (std::int64_t chunk = tile.first_pick; chunk < last && !active.empty(); chunk += kPickChunk) {
    const std::int64_t end = std::min(last, chunk + kPickChunk);
    meeting.clear();
    for (const std::int32_t i : active)
      if (rows.seen(first + i) < end) meeting.push_back(i);
    if (meeting.empty()) continue;
    interactions.meet(meeting, chunk, end - chunk);
    for (std::size_t m = 0; m < meeting.size(); ++m) {
      const std::int64_t row = first + meeting[m];
      const double weight = rows.weight(row);
      const auto* values = interactions[m * static_cast<std::size_t>(end - chunk)];
      typename Rule::State state = rows.template state<Rule>(row);
      for (std::int64_t p = std::max(rows.seen(row), chunk); p < end; ++p)
        Rule::apply(state, weight, values[p - chunk], picks.moments ? picks.moments[p] : 0,
                    static_cast<std::uint32_t>(p));
      rows.template settle<Rule>(row, state, end);
    }
    met += static_cast<std::int64_t>(meeting.size()) * (end - chunk);
    std::erase_if(active, [&](std::int32_t i) { return !(rows.key(first + i) >= floor); });
  }
  return met;
}

// How many pairs of row and pick may have to meet; of many rows, only an upper bound.
std::int64_t work_of(std::int64_t rows, std::int64_t picks, double floor, const RowStates& states) {
  constexpr std::int64_t kCountedRows = 4096;
  if (rows > kCountedRows) return rows * picks;
  const Places places(states);
  std::int64_t pairs = 0;
  for (std::int64_t row = 0; row < rows; ++row)
    if (places.key(row) >= floor) pairs += picks - places.seen(row);
  return pairs;
}

}  // namespace

void CpuBackend::start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) {
  const Places places(states);
  with_rule(rule, [&](auto r) {
    for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i) places.start<decltype(r)>(i, how);
    });
  });
}

std::int64_t CpuBackend::apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                               const RowStates& states) {
  std::vector<float> wide_picks;
  const Vectors& v = picks.vectors;
  const float* picks_x = v.x.type == Element::f64 ? nullptr : wide_rows(v.x, v.rows, wide_picks);
  if (rule == RuleKind::nearest && picks.between && !rows.outer())
    return apply_by_nearest(workers_, rows, picks_x, picks, floor, states);
  // The rows of a tile stay in the second-level cache; few rows and picks are not worth waking a thread.
  const bool small = work_of(rows.rows, v.rows, floor, states) * (rows.x.dim + 64) < (1 << 21);
  const std::int64_t tile = small ? rows.rows : rows_in(1 << 18, rows.x.dim * 4, 16, kRowsOfThread);
  std::atomic<std::int64_t> met = 0;
  for_tiles(workers_, rows.rows, tile, [&](std::int64_t first, std::int64_t last) {
    const Places places(states);
    RowsBehind active(first, last, v.rows, floor, places);
    std::unique_ptr<float[]> wide;
    const float* x = wide_tile(rows.x, first, last, active, wide);
    met += with_rule(rule, [&](auto r) {
      using Rule = decltype(r);
      if constexpr (!Rule::uses_distance)
        return apply_tile<Rule>(DenseProducts(x, static_cast<const double*>(v.x.data), v.x.dim), first, active, picks,
                                floor, places);
      else if (rows.outer())
        return apply_tile<Rule>(OuterDistances(x, rows.from(first, last - first), picks_x, v), first, active, picks,
                                floor, places);
      else
        return apply_tile<Rule>(DenseDistances(x, picks_x, v.x.dim), first, active, picks, floor, places);
    });
  });
  return met;
}

void CpuBackend::compare(const Field& picks, std::int64_t first, std::int64_t last, float* between,
                         std::int64_t stride) {
  for_tiles(workers_, last, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch, later_scratch, distances;
    const float* x = wide_rows(picks.from(begin), end - begin, scratch);
    const RowPointers rows = pointers(x, end - begin, picks.dim);
    for (std::int64_t b = std::max(begin, first); b < last; b += kPickChunk) {
      const std::int64_t many = std::min(kPickChunk, last - b);
      const float* later = wide_rows(picks.from(b), many, later_scratch);
      distances.resize(rows.size() * static_cast<std::size_t>(many));
      row_kernels().distances2(rows.data(), end - begin, later, many, picks.dim, distances.data());
      for (std::int64_t a = begin; a < end; ++a)
        std::copy_n(distances.data() + (a - begin) * many, many, between + a * stride + b);
    }
  });
}

}  // namespace seine
