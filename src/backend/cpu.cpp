// Loops of the CPU backend. A tile of rows is the unit of threads; inside a tile, rows meet picks in chunks that stay
// in the caches. Every row is computed by the canonical kernel alone, so tiles and chunks decide nothing but time.
#include "backend/cpu.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <vector>

#include "backend/by_nearest.hpp"
#include "backend/gains.hpp"
#include "backend/places.hpp"
#include "backend/row_kernel.hpp"
#include "backend/tiles.hpp"
#include "backend/workers.hpp"
#include "engines/best.hpp"
#include "host_rows.hpp"
#include "seine/console.hpp"
#include "seine/error.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

// Rows of `field` as float32: in place, or widened into `scratch`.
const float* float_rows(const Field& field, std::int64_t first, std::int64_t count, std::vector<float>& scratch) {
  const Field at = field.from(first);
  if (at.type == Element::f32) return static_cast<const float*>(at.data);
  scratch.resize(static_cast<std::size_t>(count * at.dim));
  widen(at.data, count * at.dim, scratch.data());
  return scratch.data();
}

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

// Rows of [first, last) that have not seen all picks and may matter, and from which pick on one of them is behind.
struct Active {
  std::vector<std::int32_t> rows;  // counted from `first`
  std::int64_t behind;

  Active(std::int64_t first, std::int64_t last, std::int64_t total, double floor, const Places& places)
      : behind(total) {
    for (std::int64_t row = first; row < last; ++row) {
      if (!places.is_behind(row, total, floor)) continue;
      rows.push_back(static_cast<std::int32_t>(row - first));
      behind = std::min(behind, places.seen(row));
    }
  }
};

// Rows [first, last) as float32: in place, or the active ones widened, each in its place.
const float* widened_rows(const Field& rows, std::int64_t first, std::int64_t last, const Active& active,
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
std::int64_t apply_tile(Interactions interactions, std::int64_t first, Active& tile, const Picks& picks, double floor,
                        const Places& rows) {
  std::vector<std::int32_t>&active = tile.rows, meeting;
  const std::int64_t last = picks.vectors.rows;
  std::int64_t met = 0;
  for (std::int64_t chunk = tile.behind; chunk < last && !active.empty(); chunk += kPickChunk) {
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
  constexpr std::int64_t kFewRows = 4096;
  if (rows > kFewRows) return rows * picks;
  const Places places(states);
  std::int64_t pairs = 0;
  for (std::int64_t row = 0; row < rows; ++row)
    if (places.key(row) >= floor) pairs += picks - places.seen(row);
  return pairs;
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options) : workers_(std::max(1, options.threads)) {}

  std::string name() const override { return "cpu"; }
  std::string describe() const override {
    return "cpu, " + counted(workers_.threads(), "thread") + ", " + row_kernels().name;
  }
  bool is_host_memory() const override { return true; }

  void* allocate(std::size_t bytes) override {
    void* memory = std::aligned_alloc(64, (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64);
    if (!memory) throw Error(Exit::system, "out of memory: " + std::to_string(bytes) + " bytes asked for");
    return memory;
  }
  void release(void* memory, std::size_t) noexcept override { std::free(memory); }
  void copy_in(void* to, const void* host, std::size_t bytes) override { std::memcpy(to, host, bytes); }
  void copy_out(void* host, const void* from, std::size_t bytes) override { std::memcpy(host, from, bytes); }
  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override {
    const auto* source = static_cast<const std::byte*>(from);
    auto* out = static_cast<std::byte*>(host);
    for (std::size_t i = 0; i < positions.size(); ++i)
      std::memcpy(out + i * item_bytes, source + static_cast<std::size_t>(positions[i]) * item_bytes, item_bytes);
  }
  void scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
               std::span<const std::int64_t> slots) override {
    const auto* source = static_cast<const std::byte*>(from);
    auto* out = static_cast<std::byte*>(to);
    for (std::size_t i = 0; i < positions.size(); ++i)
      std::memcpy(out + static_cast<std::size_t>(slots[i]) * item_bytes,
                  source + static_cast<std::size_t>(positions[i]) * item_bytes, item_bytes);
  }

  void* allocate_staging(std::size_t bytes) override { return allocate(bytes); }
  void release_staging(void* memory, std::size_t bytes) noexcept override { release(memory, bytes); }
  void begin_copy_in(void* to, const void* staging, std::size_t bytes) override { copy_in(to, staging, bytes); }
  void await_copies() override {}

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override {
    for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
      std::vector<double> wide;
      for (std::int64_t i = first; i < last; ++i) make_unit(x + i * dim, dim, wide);
    });
  }

  void squared_norms(const Field& x, std::int64_t rows, double* out) override {
    for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> scratch;
      std::vector<double> wide;
      const float* values = float_rows(x, first, last - first, scratch);
      for (std::int64_t i = first; i < last; ++i) out[i] = squared_norm(values + (i - first) * x.dim, x.dim, wide);
    });
  }

  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& out) override {
    with_rule(rule, [&](auto r) {
      using Rule = decltype(r);
      auto* states = static_cast<typename Rule::State*>(out.state);
      for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) {
          const double weight = out.weight ? out.weight[i] : 1;
          const double before = how.before ? how.before[i] : HUGE_VAL;
          states[i] = Rule::start(before, weight, how.seed, how.purpose, how.global_rows ? how.global_rows[i] : i);
          out.key[i] = Rule::key(states[i], weight);
          if (out.applied) out.applied[i] = 0;
        }
      });
    });
  }

  std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                     const RowStates& states) override {
    std::vector<float> wide_picks;
    const Vectors& v = picks.vectors;
    const float* picks_x = v.x.type == Element::f64 ? nullptr : float_rows(v.x, 0, v.rows, wide_picks);
    if (rule == RuleKind::nearest && picks.between && !rows.outer())
      return apply_by_nearest(workers_, rows, picks_x, picks, floor, states);
    // The rows of a tile stay in the second-level cache; few rows and picks are not worth waking a thread.
    const bool small = work_of(rows.rows, v.rows, floor, states) * (rows.x.dim + 64) < (1 << 21);
    const std::int64_t tile = small ? rows.rows : rows_in(1 << 18, rows.x.dim * 4, 16, kTileRows);
    std::atomic<std::int64_t> met = 0;
    for_tiles(workers_, rows.rows, tile, [&](std::int64_t first, std::int64_t last) {
      const Places places(states);
      Active active(first, last, v.rows, floor, places);
      std::unique_ptr<float[]> wide;
      const float* x = widened_rows(rows.x, first, last, active, wide);
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

  void compare(const Field& picks, std::int64_t first, std::int64_t last, float* between,
               std::int64_t stride) override {
    for_tiles(workers_, last, [&](std::int64_t begin, std::int64_t end) {
      std::vector<float> scratch, later_scratch, distances;
      const float* x = float_rows(picks, begin, end - begin, scratch);
      const RowPointers rows = pointers(x, end - begin, picks.dim);
      for (std::int64_t b = std::max(begin, first); b < last; b += kPickChunk) {
        const std::int64_t many = std::min(kPickChunk, last - b);
        const float* later = float_rows(picks, b, many, later_scratch);
        distances.resize(rows.size() * static_cast<std::size_t>(many));
        row_kernels().distances2(rows.data(), end - begin, later, many, picks.dim, distances.data());
        for (std::int64_t a = begin; a < end; ++a)
          std::copy_n(distances.data() + (a - begin) * many, many, between + a * stride + b);
      }
    });
  }

  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override {
    if (count <= 0) return {};
    std::vector<Best> best(static_cast<std::size_t>(workers_.threads()), Best(count));
    constexpr std::int64_t kScanRows = 16384;  // less is not worth waking a thread
    share_tiles(workers_, rows, kScanRows, [&](std::int64_t first, std::int64_t last, int thread) {
      Best& mine = best[static_cast<std::size_t>(thread)];
      for (std::int64_t i = first; i < last; ++i)
        if (selectable[i]) mine.offer({key[i], global_rows[i]});
    });
    std::vector<Candidate> all;
    for (Best& part : best) {
      const std::vector<Candidate> kept_by_thread = part.take();
      all.insert(all.end(), kept_by_thread.begin(), kept_by_thread.end());
    }
    const auto kept = std::min<std::size_t>(all.size(), static_cast<std::size_t>(count));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(), beats);
    all.resize(kept);
    return all;
  }

  double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) override {
    const std::int64_t stride = std::max<std::int64_t>(1, rows / kExactRows);
    std::vector<double> keys;
    for (std::int64_t i = 0; i < rows; i += stride)
      if (selectable[i]) keys.push_back(key[i]);
    const std::int64_t place = (count + stride - 1) / stride;
    if (static_cast<std::int64_t>(keys.size()) < place) return kNoCandidate.value;
    const auto at = keys.begin() + (place - 1);
    std::nth_element(keys.begin(), at, keys.end(), std::greater<>());
    return *at;
  }

  std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) override {
    std::int64_t count = 0;
    for (std::int64_t i = 0; i < rows; ++i) count += (selectable[i] != 0) & (key[i] >= floor);
    return count;
  }

  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override {
    add_gains(workers_, ground, band, weight, fixed, candidates, count, gains);
  }
  std::int64_t first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                           const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                           std::int64_t room, std::int64_t* gains, std::int64_t* near) override {
    return add_first_gains(workers_, ground, all, weight, fixed, candidates, shadows, lists, room, gains, near);
  }
  bool shadows_pay() const override { return true; }
  void gain_bounds(const ShadowFields& shadows, const Band& all, const double* weight, FixedPoint fixed,
                   std::int64_t count, std::int64_t* bounds, std::int64_t* near) override {
    add_gain_bounds(workers_, shadows, all, weight, fixed, count, bounds, near);
  }
  void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                    std::int64_t* near, std::int64_t* gains) override {
    gains_of_lists(workers_, lists, best, weight, fixed, near, gains);
  }
  void raise_listed(const Near* list, std::int64_t length, float* best) override {
    for (std::int64_t k = 0; k < length; ++k) best[list[k].row] = std::max(best[list[k].row], list[k].similarity);
  }
  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override {
    raise_coverage(workers_, ground, rows, picks, count, best);
  }

  void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                    std::int64_t* sums) override {
    SumsOfThreads all(workers_.threads(), x.dim);
    share_tiles(workers_, rows, kTileRows, [&](std::int64_t first, std::int64_t last, int thread) {
      double* mine = all.of(thread);
      for (std::int64_t i = first; i < last; ++i) {
        const float* row = static_cast<const float*>(x.data) + i * x.dim;
        for (std::int64_t c = 0; c < x.dim; ++c) mine[c] += fixed.rounded(factor[i] * static_cast<double>(row[c]));
      }
    });
    all.add_to(sums);
  }

  void products(const Field& x, std::int64_t rows, const double* vector, double* out) override {
    for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
      const RowPointers tile = pointers(static_cast<const float*>(x.data) + first * x.dim, last - first, x.dim);
      row_kernels().wide_dots(tile.data(), last - first, vector, 1, x.dim, out + first);
    });
  }

  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override {
    const auto* values = static_cast<const float*>(x.data);
    const std::int64_t dim = x.dim;
    // A thread owns rows of the matrix, so no two threads add to the same sum.
    workers_.share(dim, [&](std::int64_t c, int) {
      if (stop_signal() != 0) return;
      std::vector<double> products(static_cast<std::size_t>(c) + 1);
      for (std::size_t g = 0; g + 1 < groups.size(); ++g) {
        std::fill(products.begin(), products.end(), 0.0);
        for (std::int64_t i = groups[g]; i < groups[g + 1]; ++i) {
          const float* row = values + i * dim;
          const double xc = row[c];
          for (std::int64_t d = 0; d <= c; ++d)
            products[static_cast<std::size_t>(d)] =
                fma(xc, static_cast<double>(row[d]), products[static_cast<std::size_t>(d)]);
        }
        for (std::int64_t d = 0; d <= c; ++d) sums[c * dim + d] += fixed.of(products[static_cast<std::size_t>(d)]);
      }
    });
  }

 private:
  Workers workers_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace seine
