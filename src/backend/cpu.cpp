// Loops of the CPU backend. A tile of rows is the unit of threads; inside a tile, rows meet picks in chunks that stay
// in the caches. Every row is computed by the canonical kernel alone, so tiles and chunks decide nothing but time.
#include "backend/cpu.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>
#include <vector>

#include "backend/row_kernel.hpp"
#include "backend/workers.hpp"
#include "best.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

constexpr std::int64_t kTileRows = 256;

// Rows of `field` as float32: in place, or widened into `scratch`.
const float* float_rows(const Field& field, std::int64_t first, std::int64_t count, std::vector<float>& scratch) {
  const Field at = field.from(first);
  if (at.type == Element::f32) return static_cast<const float*>(at.data);
  scratch.resize(static_cast<std::size_t>(count * at.dim));
  widen(at.data, count * at.dim, scratch.data());
  return scratch.data();
}

// How many rows of `dim` values make about `bytes`.
std::int64_t rows_in(std::int64_t bytes, std::int64_t row_bytes, std::int64_t least, std::int64_t most) {
  return std::clamp(bytes / std::max<std::int64_t>(row_bytes, 1), least, most);
}

// Canonical squared norm in float64; `wide` receives the row.
double squared_norm(const float* row, std::vector<double>& wide) {
  std::copy(row, row + wide.size(), wide.begin());
  double norm2 = 0;
  row_kernels().wide_dots(&row, 1, wide.data(), 1, static_cast<std::int64_t>(wide.size()), &norm2);
  return norm2;
}

// Picks that meet the rows of a tile together: few, so that they stay in the first-level cache.
constexpr std::int64_t kPickChunk = 8;

using RowPointers = std::vector<const float*>;

RowPointers pointers(const float* rows, std::int64_t count, std::int64_t dim) {
  RowPointers out;
  for (std::int64_t i = 0; i < count; ++i) out.push_back(rows + i * dim);
  return out;
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

// Brings rows [first, last) up to date, chunk of picks by chunk. Rows that have fallen below the floor drop out.
template <class Rule, class Interactions>
std::int64_t apply_tile(Interactions interactions, std::int64_t first, std::int64_t last, const Picks& picks,
                        double floor, const RowStates& rows) {
  const std::int64_t total = picks.vectors.rows;
  auto* states = static_cast<typename Rule::State*>(rows.state);
  std::vector<std::int32_t> active, meeting;
  const auto seen = [&](std::int64_t row) { return rows.applied ? rows.applied[row] : 0; };
  std::int64_t chunk = total, met = 0;
  for (std::int64_t row = first; row < last; ++row) {
    if (!(rows.key[row] >= floor) || seen(row) >= total) continue;
    active.push_back(static_cast<std::int32_t>(row - first));
    chunk = std::min<std::int64_t>(chunk, seen(row));
  }
  for (; chunk < total && !active.empty(); chunk += kPickChunk) {
    const std::int64_t end = std::min(total, chunk + kPickChunk);
    meeting.clear();
    for (const std::int32_t i : active)
      if (seen(first + i) < end) meeting.push_back(i);
    if (meeting.empty()) continue;
    interactions.meet(meeting, chunk, end - chunk);
    for (std::size_t m = 0; m < meeting.size(); ++m) {
      const std::int64_t row = first + meeting[m];
      const double weight = rows.weight ? rows.weight[row] : 1;
      const auto* values = interactions[m * static_cast<std::size_t>(end - chunk)];
      typename Rule::State state = states[row];
      const std::int64_t from = rows.applied ? std::max<std::int64_t>(rows.applied[row], chunk) : chunk;
      for (std::int64_t p = from; p < end; ++p)
        Rule::apply(state, weight, values[p - chunk], picks.moments ? picks.moments[p] : 0,
                    static_cast<std::uint32_t>(p));
      states[row] = state;
      rows.key[row] = Rule::key(state, weight);
      if (rows.applied) rows.applied[row] = static_cast<std::uint32_t>(end);
    }
    met += static_cast<std::int64_t>(meeting.size()) * (end - chunk);
    std::erase_if(active, [&](std::int32_t i) { return !(rows.key[first + i] >= floor); });
  }
  return met;
}

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options) : workers_(std::max(1, options.threads)) {}

  std::string name() const override { return "cpu"; }
  std::string describe() const override {
    return "cpu, " + std::to_string(workers_.threads()) + (workers_.threads() == 1 ? " thread" : " threads") + ", " +
           row_kernels().name;
  }
  std::size_t memory_bytes() const override { return 0; }
  bool is_host_memory() const override { return true; }

  void* allocate(std::size_t bytes) override {
    void* memory = std::aligned_alloc(64, (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64);
    if (!memory) throw Error(Exit::system, "out of memory: " + std::to_string(bytes) + " bytes asked for");
    return memory;
  }
  void release(void* memory, std::size_t) noexcept override { std::free(memory); }
  void copy_in(void* to, const void* host, std::size_t bytes) override { std::memcpy(to, host, bytes); }
  void copy_out(void* host, const void* from, std::size_t bytes) override { std::memcpy(host, from, bytes); }

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override {
    for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
      std::vector<double> wide(static_cast<std::size_t>(dim));
      for (std::int64_t i = first; i < last; ++i) {
        float* row = x + i * dim;
        const double norm2 = squared_norm(row, wide);
        if (!(norm2 > 0)) continue;
        const double norm = std::sqrt(norm2);
        for (std::int64_t c = 0; c < dim; ++c) row[c] = static_cast<float>(wide[static_cast<std::size_t>(c)] / norm);
      }
    });
  }

  void squared_norms(const Field& x, std::int64_t rows, double* out) override {
    for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> scratch;
      std::vector<double> wide(static_cast<std::size_t>(x.dim));
      const float* values = float_rows(x, first, last - first, scratch);
      for (std::int64_t i = first; i < last; ++i) out[i] = squared_norm(values + (i - first) * x.dim, wide);
    });
  }

  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& out) override {
    with_rule(rule, [&](auto r) {
      using Rule = decltype(r);
      auto* states = static_cast<typename Rule::State*>(out.state);
      for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
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
    // The rows of a tile stay in the second-level cache; few rows and picks are not worth waking a thread.
    const bool small = rows.rows * v.rows * (rows.x.dim + 64) < (1 << 21);
    const std::int64_t tile = small ? rows.rows : rows_in(1 << 18, rows.x.dim * 4, 16, kTileRows);
    std::atomic<std::int64_t> met = 0;
    for_tiles(rows.rows, tile, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> scratch;
      const float* x = float_rows(rows.x, first, last - first, scratch);
      met += with_rule(rule, [&](auto r) {
        using Rule = decltype(r);
        if constexpr (!Rule::uses_distance)
          return apply_tile<Rule>(DenseProducts(x, static_cast<const double*>(v.x.data), v.x.dim), first, last, picks,
                                  floor, states);
        else if (rows.outer())
          return apply_tile<Rule>(OuterDistances(x, rows.from(first, last - first), picks_x, v), first, last, picks,
                                  floor, states);
        else
          return apply_tile<Rule>(DenseDistances(x, picks_x, v.x.dim), first, last, picks, floor, states);
      });
    });
    return met;
  }

  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override {
    if (count <= 0) return {};
    std::vector<Best> best(static_cast<std::size_t>(workers_.threads()), Best(count));
    constexpr std::int64_t kScanRows = 16384;  // less is not worth waking a thread
    share_tiles(rows, kScanRows, [&](std::int64_t first, std::int64_t last, int thread) {
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

  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override {
    const auto* source = static_cast<const std::byte*>(from);
    auto* out = static_cast<std::byte*>(host);
    for (std::size_t i = 0; i < positions.size(); ++i)
      std::memcpy(out + i * item_bytes, source + static_cast<std::size_t>(positions[i]) * item_bytes, item_bytes);
  }

  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override {
    const auto* x = static_cast<const float*>(ground.data);
    const auto* y = static_cast<const float*>(candidates.data);
    const auto n = static_cast<std::size_t>(count);
    std::vector<std::vector<std::int64_t>> partial(static_cast<std::size_t>(workers_.threads()),
                                                   std::vector<std::int64_t>(n));
    const std::int64_t tile = rows_in(1 << 18, static_cast<std::int64_t>(ground.row_bytes()), 16, kTileRows);
    share_tiles(band.count, tile, [&](std::int64_t first, std::int64_t last, int thread) {
      std::int64_t* sums = partial[static_cast<std::size_t>(thread)].data();
      RowPointers rows;
      std::vector<double> weights;
      for (std::int64_t k = first; k < last; ++k) {
        const std::int64_t row = band.rows ? band.rows[k] : k;
        rows.push_back(x + row * ground.dim);
        weights.push_back(weight ? weight[row] : 1);
      }
      std::vector<float> dots(rows.size() * kPickChunk);
      for (std::int64_t chunk = 0; chunk < count; chunk += kPickChunk) {
        const std::int64_t many = std::min(kPickChunk, count - chunk);
        row_kernels().dots(rows.data(), last - first, y + chunk * ground.dim, many, ground.dim, dots.data());
        for (std::int64_t k = first; k < last; ++k) {
          const float above = band.above[k], below = band.below ? band.below[k] : 1;
          const double w = weights[static_cast<std::size_t>(k - first)];
          const float* of_row = dots.data() + (k - first) * many;
          bool any = false;  // most similarities add nothing
          for (std::int64_t p = 0; p < many; ++p) any |= of_row[p] > above;
          for (std::int64_t p = 0; any && p < many; ++p)
            sums[chunk + p] += gain_between(above, below, clipped_cosine(of_row[p]), w, fixed);
        }
      }
    });
    std::fill(gains, gains + count, 0);
    for (const auto& sums : partial)
      for (std::size_t j = 0; j < n; ++j) gains[j] += sums[j];
  }

  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override {
    const auto* x = static_cast<const float*>(ground.data);
    const auto* y = static_cast<const float*>(picks.data);
    for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
      const RowPointers tile = pointers(x + first * ground.dim, last - first, ground.dim);
      std::vector<float> all_dots(tile.size() * kPickChunk);
      for (std::int64_t chunk = 0; chunk < count; chunk += kPickChunk) {
        const std::int64_t many = std::min(kPickChunk, count - chunk);
        row_kernels().dots(tile.data(), last - first, y + chunk * ground.dim, many, ground.dim, all_dots.data());
        for (std::int64_t i = first; i < last; ++i) {
          const float* dots = all_dots.data() + (i - first) * many;
          for (std::int64_t p = 0; p < many; ++p) best[i] = std::max(best[i], clipped_cosine(dots[p]));
        }
      }
    });
  }

  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override {
    const auto* values = static_cast<const float*>(x.data);
    const std::int64_t dim = x.dim;
    // A thread owns rows of the matrix, so no two threads add to the same sum.
    workers_.share(dim, [&](std::int64_t c, int) {
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
  template <class Work>
  void share_tiles(std::int64_t rows, std::int64_t tile, const Work& work) {
    workers_.share((rows + tile - 1) / std::max<std::int64_t>(tile, 1),
                   [&](std::int64_t t, int thread) { work(t * tile, std::min(rows, (t + 1) * tile), thread); });
  }
  template <class Work>
  void for_tiles(std::int64_t rows, std::int64_t tile, const Work& work) {
    share_tiles(rows, tile, [&](std::int64_t first, std::int64_t last, int) { work(first, last); });
  }
  template <class Work>
  void for_tiles(std::int64_t rows, const Work& work) {
    for_tiles(rows, kTileRows, work);
  }

  Workers workers_;
};

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
  return std::make_unique<CpuBackend>(options);
}

}  // namespace seine
