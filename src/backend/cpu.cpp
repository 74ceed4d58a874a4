// Loops of the CPU backend. A tile of rows is the unit of threads; inside a tile, rows meet picks in chunks that stay
// in the caches. Every row is computed by the canonical kernel alone, so tiles and chunks decide nothing but time.
#include "backend/cpu.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "backend/row_kernel.hpp"
#include "backend/workers.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

constexpr std::int64_t kTileRows = 256;

std::int64_t tiles_of(std::int64_t rows) {
  return (rows + kTileRows - 1) / kTileRows;
}

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
  row_against_rows<kernel::Dot, kernel::Double>(row, wide.data(), 1, static_cast<std::int64_t>(wide.size()), &norm2);
  return norm2;
}

constexpr std::int64_t kPickChunk = 32;

// Interaction of one row with up to kPickChunk picks, by geometry; see rules.hpp.
struct DenseDistances {
  const float* x;
  const float* picks;
  std::int64_t dim;
  float out[kPickChunk];

  void meet(std::int64_t row, std::int64_t first, std::int64_t count) {
    row_against_rows<kernel::Distance2, kernel::Float>(x + row * dim, picks + first * dim, count, dim, out);
  }
  double operator[](std::int64_t p) const { return out[p]; }
};

struct OuterDistances {
  const float *x, *a;
  const double *x2, *a2;
  const float *picks_x, *picks_a;
  const double *picks_x2, *picks_a2;
  std::int64_t dim, classes;
  float ex[kPickChunk], ea[kPickChunk];
  double out[kPickChunk];

  void meet(std::int64_t row, std::int64_t first, std::int64_t count) {
    row_against_rows<kernel::Distance2, kernel::Float>(x + row * dim, picks_x + first * dim, count, dim, ex);
    row_against_rows<kernel::Distance2, kernel::Float>(a + row * classes, picks_a + first * classes, count, classes,
                                                       ea);
    for (std::int64_t p = 0; p < count; ++p)
      out[p] = outer_distance2(a2[row], x2[row], picks_a2[first + p], picks_x2[first + p], ea[p], ex[p]);
  }
  double operator[](std::int64_t p) const { return out[p]; }
};

struct DenseProducts {
  const float* x;
  const double* picks;
  std::int64_t dim;
  double out[kPickChunk];

  void meet(std::int64_t row, std::int64_t first, std::int64_t count) {
    row_against_rows<kernel::Dot, kernel::Double>(x + row * dim, picks + first * dim, count, dim, out);
  }
  double operator[](std::int64_t p) const { return out[p]; }
};

// Applies the picks in order to rows [first, last). The picks of a chunk stay in the cache while the rows pass by.
template <class Rule, class Interactions>
void apply_tile(Interactions meet, std::int64_t first, std::int64_t last, const Picks& picks, const double* weight,
                typename Rule::State* state, double* key) {
  for (std::int64_t chunk = 0; chunk < picks.vectors.rows; chunk += kPickChunk) {
    const std::int64_t count = std::min(kPickChunk, picks.vectors.rows - chunk);
    for (std::int64_t row = first; row < last; ++row) {
      meet.meet(row - first, chunk, count);
      const double w = weight ? weight[row] : 1;
      typename Rule::State s = state[row];
      for (std::int64_t p = 0; p < count; ++p) {
        const double moment = picks.moments ? picks.moments[chunk + p] : 0;
        Rule::apply(s, w, meet[p], moment, picks.first_ordinal + static_cast<std::uint32_t>(chunk + p));
      }
      state[row] = s;
      key[row] = Rule::key(s, w);
    }
  }
}

// The best `count` of what is offered, in bounded memory.
class Best {
 public:
  explicit Best(std::int64_t count) : count_(static_cast<std::size_t>(count)) {}
  void offer(const Candidate& candidate) {
    if (full_ && !beats(candidate, worst_)) return;
    kept_.push_back(candidate);
    if (kept_.size() >= 2 * count_ + 64) shrink();
  }
  void shrink() {
    if (kept_.size() <= count_) return;
    const auto nth = kept_.begin() + static_cast<std::ptrdiff_t>(count_);
    std::nth_element(kept_.begin(), nth - 1, kept_.end(), beats);
    kept_.erase(nth, kept_.end());
    worst_ = kept_.back();
    full_ = true;
  }
  std::vector<Candidate>& kept() { return kept_; }

 private:
  std::size_t count_;
  std::vector<Candidate> kept_;
  Candidate worst_ = kNoCandidate;
  bool full_ = false;
};

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options) : workers_(std::max(1, options.threads)) {}

  std::string name() const override { return "cpu"; }
  std::string describe() const override {
    return "cpu, " + std::to_string(workers_.threads()) + (workers_.threads() == 1 ? " thread" : " threads") + ", AVX2";
  }
  std::size_t memory_bytes() const override { return 0; }

  void* allocate(std::size_t bytes) override {
    void* memory = std::aligned_alloc(64, (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64);
    if (!memory) throw Error(Exit::system, "out of memory: " + std::to_string(bytes) + " bytes asked for");
    return memory;
  }
  void release(void* memory, std::size_t) noexcept override { std::free(memory); }
  void copy_in(void* to, const void* host, std::size_t bytes) override { std::memcpy(to, host, bytes); }
  void copy_out(void* host, const void* from, std::size_t bytes) override { std::memcpy(host, from, bytes); }

  void score(ScoreKind kind, const double* p, std::int64_t rows, std::int64_t passes, std::int64_t classes,
             float* out) override {
    with_score(kind, [&](auto score) {
      for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i)
          out[i] = static_cast<float>(score(p + i * passes * classes, passes, classes));
      });
    });
  }

  void residuals(const double* p, const std::int64_t* y, std::int64_t rows, std::int64_t passes, std::int64_t classes,
                 float* out) override {
    for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t i = first; i < last; ++i)
        residual(p + i * passes * classes, passes, classes, y ? y[i] : -1, out + i * classes);
    });
  }

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

  void start(RuleKind rule, const Start& how, std::int64_t rows, void* state, double* key) override {
    with_rule(rule, [&](auto r) {
      using Rule = decltype(r);
      auto* states = static_cast<typename Rule::State*>(state);
      for_tiles(rows, [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t i = first; i < last; ++i) {
          const double weight = how.weight ? how.weight[i] : 1;
          const double before = how.before ? how.before[i] : HUGE_VAL;
          states[i] = Rule::start(before, weight, how.seed, how.purpose, how.global_rows ? how.global_rows[i] : i);
          key[i] = Rule::key(states[i], weight);
        }
      });
    });
  }

  void apply(RuleKind rule, const Vectors& rows, const Picks& picks, const double* weight, void* state,
             double* key) override {
    std::vector<float> wide_picks;
    const Vectors& v = picks.vectors;
    const float* picks_x = v.x.type == Element::f64 ? nullptr : float_rows(v.x, 0, v.rows, wide_picks);
    // Half the second-level cache for the rows of a tile.
    const std::int64_t tile = rows_in(1 << 18, rows.x.dim * 4, 8, kTileRows);
    const bool small = rows.rows * v.rows * (rows.x.dim + 32) < (1 << 19);
    for_tiles(rows.rows, small ? rows.rows : tile, [&](std::int64_t first, std::int64_t last) {
      std::vector<float> scratch;
      const float* x = float_rows(rows.x, first, last - first, scratch);
      with_rule(rule, [&](auto r) {
        using Rule = decltype(r);
        auto* states = static_cast<typename Rule::State*>(state);
        if constexpr (!Rule::uses_distance) {
          const auto* vectors = static_cast<const double*>(v.x.data);
          apply_tile<Rule>(DenseProducts{x, vectors, v.x.dim, {}}, first, last, picks, weight, states, key);
        } else if (!rows.outer()) {
          apply_tile<Rule>(DenseDistances{x, picks_x, v.x.dim, {}}, first, last, picks, weight, states, key);
        } else {
          const auto* a = static_cast<const float*>(rows.a.from(first).data);
          const auto* picks_a = static_cast<const float*>(v.a.data);
          apply_tile<Rule>(
              OuterDistances{
                  x, a, rows.x2 + first, rows.a2 + first, picks_x, picks_a, v.x2, v.a2, v.x.dim, v.a.dim, {}, {}, {}},
              first, last, picks, weight, states, key);
        }
      });
    });
  }

  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override {
    std::vector<Best> best(static_cast<std::size_t>(workers_.threads()), Best(count));
    workers_.share(tiles_of(rows), [&](std::int64_t tile, int thread) {
      Best& mine = best[static_cast<std::size_t>(thread)];
      const std::int64_t last = std::min(rows, (tile + 1) * kTileRows);
      for (std::int64_t i = tile * kTileRows; i < last; ++i)
        if (selectable[i]) mine.offer({key[i], global_rows[i]});
    });
    std::vector<Candidate> all;
    for (Best& part : best) {
      part.shrink();
      all.insert(all.end(), part.kept().begin(), part.kept().end());
    }
    const auto kept = std::min<std::size_t>(all.size(), static_cast<std::size_t>(count));
    std::partial_sort(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(kept), all.end(), beats);
    all.resize(kept);
    return all;
  }

  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override {
    const auto* source = static_cast<const std::byte*>(from);
    auto* out = static_cast<std::byte*>(host);
    for (std::size_t i = 0; i < positions.size(); ++i)
      std::memcpy(out + i * item_bytes, source + static_cast<std::size_t>(positions[i]) * item_bytes, item_bytes);
  }

  void gains(const Field& ground, std::int64_t rows, const double* weight, const float* best, FixedPoint fixed,
             const Field& candidates, std::int64_t count, std::int64_t* gains) override {
    const auto* x = static_cast<const float*>(ground.data);
    const auto* y = static_cast<const float*>(candidates.data);
    const std::size_t n = static_cast<std::size_t>(count);
    std::vector<std::vector<std::int64_t>> partial(static_cast<std::size_t>(workers_.threads()),
                                                   std::vector<std::int64_t>(n));
    share_tiles(rows, kTileRows, [&](std::int64_t first, std::int64_t last, int thread) {
      std::int64_t* sums = partial[static_cast<std::size_t>(thread)].data();
      float dots[kPickChunk];
      for (std::int64_t chunk = 0; chunk < count; chunk += kPickChunk) {
        const std::int64_t many = std::min(kPickChunk, count - chunk);
        for (std::int64_t i = first; i < last; ++i) {
          row_against_rows<kernel::Dot, kernel::Float>(x + i * ground.dim, y + chunk * ground.dim, many, ground.dim,
                                                       dots);
          const double w = weight ? weight[i] : 1;
          const std::int64_t covered = fixed.of(w * static_cast<double>(best[i]));
          for (std::int64_t p = 0; p < many; ++p) {
            const float s = clipped_cosine(dots[p]);
            if (s > best[i]) sums[chunk + p] += fixed.of(w * static_cast<double>(s)) - covered;
          }
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
      float dots[kPickChunk];
      for (std::int64_t chunk = 0; chunk < count; chunk += kPickChunk) {
        const std::int64_t many = std::min(kPickChunk, count - chunk);
        for (std::int64_t i = first; i < last; ++i) {
          row_against_rows<kernel::Dot, kernel::Float>(x + i * ground.dim, y + chunk * ground.dim, many, ground.dim,
                                                       dots);
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
