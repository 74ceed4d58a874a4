// Facility location: similarities of ground rows and candidates.
#include <algorithm>
#include <atomic>
#include <numeric>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/gain_kernel.hpp"
#include "backend/cpu/row_kernel.hpp"
#include "backend/cpu/tiles.hpp"

namespace seine {
namespace {

// Rows [first, last) of a band, to meet candidates of facility location.
class GroundTile {
 public:
  GroundTile(const Field& ground, const Band& band, std::int64_t first, std::int64_t last, const double* weight,
             FixedPoint fixed)
      : dim_(ground.dim), rows_(in_panels(last - first)), fixed_(fixed) {
    const auto rows = static_cast<std::size_t>(rows_);
    panels_.resize(rows * static_cast<std::size_t>(dim_));
    above_.assign(rows, 2);
    below_.assign(rows, 1);
    weight_.assign(rows, 1);
    at_above_.assign(rows, 0);
    number_.assign(rows, 0);
    RowPointers pointers;
    for (std::size_t k = 0; k < static_cast<std::size_t>(last - first); ++k) {
      const std::int64_t at = first + static_cast<std::int64_t>(k), row = band.rows ? band.rows[at] : at;
      pointers.push_back(static_cast<const float*>(ground.data) + row * dim_);
      above_[k] = band.above[at];
      if (band.below) below_[k] = band.below[at];
      if (weight) weight_[k] = weight[row];
      at_above_[k] = fixed.rounded(weight_[k] * static_cast<double>(above_[k]));
      number_[k] = static_cast<std::int32_t>(band.first + row);
    }
    to_panels(pointers.data(), last - first, dim_, panels_.data());
    dots_.resize(rows * kGainChunk);
    near_.resize(rows);
  }

  // A chunk of candidates that meet the tile together.
  static constexpr std::int64_t kGainChunk = 32;
  void meet(const float* candidates, std::int64_t many) {
    row_kernels().panel_dots(panels_.data(), rows_, candidates, many, dim_, dots_.data());
  }
  // The same where rows and candidates are shadows.
  void meet_shadows(const float* candidates, std::int64_t many) {
    row_kernels().shadow_dots(panels_.data(), rows_, candidates, many, dim_, dots_.data());
  }
  GainSum gain_bound(std::int64_t p) const { return sum_gain_bounds(dots_.data() + p * rows_, rows(), rows_, fixed_); }
  std::int64_t find_above(std::int64_t p, std::int32_t* found) const {
    return seine::find_above(dots_.data() + p * rows_, above_.data(), rows_, found);
  }
  // What the p-th of them gains here; with the rows that add, where they are wanted.
  GainSum gain(std::int64_t p, bool lists) {
    return sum_gains(dots_.data() + p * rows_, rows(), rows_, fixed_, lists ? near_.data() : nullptr);
  }
  const Near* near() const { return near_.data(); }

 private:
  GainRows rows() const { return {above_.data(), below_.data(), at_above_.data(), weight_.data(), number_.data()}; }

  std::int64_t dim_, rows_;  // whole panels
  FixedPoint fixed_;
  std::vector<float> panels_, above_, below_, dots_;
  std::vector<double> weight_, at_above_;
  std::vector<std::int32_t> number_;
  std::vector<Near> near_;
};

// Keeps the rows of a list that still add; how many.
std::int64_t drop_rows(Near* list, std::int64_t length, const float* best) {
  std::int64_t kept = 0;
  for (std::int64_t k = 0; k < length; ++k) {
    const Near here = list[k];
    list[kept] = here;
    kept += here.similarity > best[here.row];  // no branch: it would be guessed wrongly
  }
  return kept;
}

// Gains over rows [first, last) of a band, of candidates whose shadows have met those of the rows: products are
// computed where these say that there may be something to gain.
class ScreenedTile {
 public:
  ScreenedTile(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, std::int64_t first,
               std::int64_t last)
      : ground_(ground), band_(band), weight_(weight), fixed_(fixed), first_(first) {
    const auto rows = static_cast<std::size_t>(in_panels(last - first));
    found_.resize(rows + 8);
    rows_.resize(rows);
    dots_.resize(rows);
    near_.resize(rows);
  }

  GainSum gain(const GroundTile& shadows, std::int64_t p, const float* candidate) {
    const std::int64_t many = shadows.find_above(p, found_.data());
    const auto* x = static_cast<const float*>(ground_.data) + first_ * ground_.dim;
    for (std::int64_t k = 0; k < many; ++k) rows_[k] = x + found_[k] * ground_.dim;
    met_ += many;
    row_kernels().dots(rows_.data(), many, candidate, 1, ground_.dim, dots_.data());
    for (std::int64_t k = 0; k < many; ++k)
      near_[k] = {static_cast<std::int32_t>(first_) + found_[k], dots_[k] < 1 ? dots_[k] : 1};
    const std::int64_t adding = drop_rows(near_.data(), many, band_.above);
    return {sum_listed_gains(near_.data(), adding, band_.above, weight_, fixed_).gain, adding};
  }
  const Near* near(std::int64_t adding) {
    for (std::int64_t k = 0; k < adding; ++k) near_[k].row += static_cast<std::int32_t>(band_.first);
    return near_.data();
  }
  std::int64_t met() const { return met_; }  // pairs that did

 private:
  const Field& ground_;
  const Band& band_;
  const double* weight_;
  FixedPoint fixed_;
  std::int64_t first_, met_ = 0;
  std::vector<std::int32_t> found_;
  RowPointers rows_;
  std::vector<float> dots_;
  std::vector<Near> near_;
};

// The rows to which candidates add, from several threads; near[j] counts them.
class ListWriter {
 public:
  ListWriter(std::span<Near* const> lists, std::int64_t room, std::int64_t* near)
      : lists_(lists), room_(room), near_(near) {}
  // Whether the list is of use still.
  bool wants(std::int64_t j) const { return std::atomic_ref(near_[j]).load(std::memory_order_relaxed) <= room_; }
  void add(std::int64_t j, std::int64_t count, const Near* rows) const {
    const std::int64_t at = std::atomic_ref(near_[j]).fetch_add(count, std::memory_order_relaxed);
    if (rows && at < room_) std::copy_n(rows, std::min(count, room_ - at), lists_[j] + at);
  }

 private:
  std::span<Near* const> lists_;
  std::int64_t room_;
  std::int64_t* near_;
};

template <class Work>
void share_ground(Workers& workers, const Field& ground, const Band& band, const Work& work) {
  share_tiles(workers, band.count,
              in_panels(rows_in(1 << 17, static_cast<std::int64_t>(ground.row_bytes()), 1, kRowsOfThread)),
              [&](std::int64_t first, std::int64_t last, int thread) {
                if (stop_signal() == 0) work(first, last, thread);
              });
}

// visit(candidate, place in the tile's chunk) for every candidate that has met a tile.
template <auto kMeet, class Visit>
void meet_tile(GroundTile& tile, const Field& candidates, std::int64_t count, const Visit& visit) {
  const auto* y = static_cast<const float*>(candidates.data);
  for (std::int64_t chunk = 0; chunk < count; chunk += GroundTile::kGainChunk) {
    const std::int64_t many = std::min(GroundTile::kGainChunk, count - chunk);
    (tile.*kMeet)(y + chunk * candidates.dim, many);
    for (std::int64_t p = 0; p < many; ++p) visit(chunk + p, p);
  }
}

// visit(tile, candidate, place in the tile's chunk, thread) for every tile of a band and every candidate.
template <class Visit>
void meet_ground(Workers& workers, const Field& ground, const Band& band, const double* weight, FixedPoint fixed,
                 const Field& candidates, std::int64_t count, const Visit& visit) {
  share_ground(workers, ground, band, [&](std::int64_t first, std::int64_t last, int thread) {
    GroundTile tile(ground, band, first, last, weight, fixed);
    meet_tile<&GroundTile::meet>(tile, candidates, count, [&](std::int64_t candidate, std::int64_t place) {
      visit(tile, candidate, place, thread);
    });
  });
}

}  // namespace

void CpuBackend::gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed,
                       const Field& candidates, std::int64_t count, std::int64_t* gains) {
  SumsOfThreads sums(workers_.threads(), count);
  meet_ground(workers_, ground, band, weight, fixed, candidates, count,
              [&](GroundTile& tile, std::int64_t candidate, std::int64_t place, int thread) {
                sums.of(thread)[candidate] += tile.gain(place, false).gain;
              });
  sums.add_to(gains);
}

std::int64_t CpuBackend::first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                                     const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                                     std::int64_t room, std::int64_t* gains, std::int64_t* near) {
  const auto count = static_cast<std::int64_t>(lists.size());
  const ListWriter writer(lists, room, near);
  SumsOfThreads sums(workers_.threads(), count);
  std::atomic<std::int64_t> met = 0;
  if (shadows.ground.dim > 0) {
    const auto* y = static_cast<const float*>(candidates.data);
    share_ground(workers_, ground, all, [&](std::int64_t first, std::int64_t last, int thread) {
      ScreenedTile tile(ground, all, weight, fixed, first, last);
      GroundTile screen(shadows.ground, all, first, last, weight, fixed);
      meet_tile<&GroundTile::meet_shadows>(
          screen, shadows.candidates, count, [&](std::int64_t candidate, std::int64_t place) {
            const GainSum sum = tile.gain(screen, place, y + candidate * ground.dim);
            sums.of(thread)[candidate] += sum.gain;
            writer.add(candidate, sum.adding, writer.wants(candidate) ? tile.near(sum.adding) : nullptr);
          });
      met += tile.met();
    });
  } else {
    meet_ground(workers_, ground, all, weight, fixed, candidates, count,
                [&](GroundTile& tile, std::int64_t candidate, std::int64_t place, int thread) {
                  const bool wanted = writer.wants(candidate);
                  const GainSum sum = tile.gain(place, wanted);
                  sums.of(thread)[candidate] += sum.gain;
                  writer.add(candidate, sum.adding, wanted ? tile.near() : nullptr);
                });
    met = all.count * count;
  }
  sums.add_to(gains);
  return met;
}

void CpuBackend::gain_bounds(const ShadowFields& shadows, const Band& all, const double* weight, FixedPoint fixed,
                             std::int64_t count, std::int64_t* bounds, std::int64_t* near) {
  SumsOfThreads sums(workers_.threads(), count), adding(workers_.threads(), count);
  share_ground(workers_, shadows.ground, all, [&](std::int64_t first, std::int64_t last, int thread) {
    GroundTile tile(shadows.ground, all, first, last, weight, fixed);
    meet_tile<&GroundTile::meet_shadows>(tile, shadows.candidates, count,
                                         [&](std::int64_t candidate, std::int64_t place) {
                                           const GainSum sum = tile.gain_bound(place);
                                           sums.of(thread)[candidate] += sum.gain;
                                           adding.of(thread)[candidate] += static_cast<double>(sum.adding);
                                         });
  });
  sums.add_to(bounds);
  adding.add_to(near);
}

void CpuBackend::listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                              std::int64_t* near, std::int64_t* gains) {
  const auto count = static_cast<std::int64_t>(lists.size());
  constexpr std::int64_t kEntries = 1 << 14;  // less is not worth waking a thread
  const bool small = std::accumulate(near, near + count, std::int64_t{0}) < kEntries;
  for_tiles(workers_, count, small ? count : 4, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t j = first; j < last; ++j) {
      const GainSum sum = sum_listed_gains(lists[j], near[j], best, weight, fixed);
      gains[j] = static_cast<std::int64_t>(sum.gain);
      if (2 * sum.adding <= near[j]) near[j] = drop_rows(lists[j], near[j], best);
    }
  });
}

void CpuBackend::raise_listed(const Near* list, std::int64_t length, float* best) {
  for (std::int64_t k = 0; k < length; ++k) best[list[k].row] = std::max(best[list[k].row], list[k].similarity);
}

void CpuBackend::raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) {
  const auto* x = static_cast<const float*>(ground.data);
  const auto* y = static_cast<const float*>(picks.data);
  for_tiles(workers_, rows, [&](std::int64_t first, std::int64_t last) {
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

}  // namespace seine
