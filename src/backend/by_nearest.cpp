#include "backend/by_nearest.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <memory>
#include <vector>

#include "backend/places.hpp"
#include "backend/row_kernel.hpp"

namespace seine {
namespace {

// Rows that meet picks together. They have one nearest pick, so they may skip about the same ones.
constexpr std::int64_t kBlockRows = 8;
// Picks that a block meets before rows that have fallen below the floor drop out.
constexpr std::int64_t kTogether = 8;

struct Block {
  const std::int32_t* rows;
  std::int64_t count;
};

// Rows that have not seen all picks and whose key is at least `floor`, those with one nearest pick side by side.
class Grouped {
 public:
  Grouped(Workers& workers, std::int64_t rows, std::int64_t picks, double floor, const Places& places) {
    constexpr std::int64_t kScanRows = 16384;  // less is not worth waking a thread
    const std::int64_t tiles = (rows + kScanRows - 1) / kScanRows;
    std::vector<std::vector<std::int32_t>> active(static_cast<std::size_t>(tiles));
    workers.share(tiles, [&](std::int64_t tile, int) {
      const std::int64_t first = tile * kScanRows, last = std::min(rows, first + kScanRows);
      std::vector<std::int32_t>& mine = active[static_cast<std::size_t>(tile)];
      mine.resize(static_cast<std::size_t>(last - first));
      std::size_t count = 0;
      for (std::int64_t row = first; row < last; ++row) {  // no branch: it would be guessed wrongly
        mine[count] = static_cast<std::int32_t>(row);
        count += (places.key(row) >= floor) & (places.seen(row) < picks);
      }
      mine.resize(count);
    });
    std::vector<std::int64_t> ends(static_cast<std::size_t>(picks) + 2);
    const auto group = [&](std::int32_t row) {  // kNobody is the first
      return static_cast<std::size_t>(places.state<Nearest>(row).nearest + std::uint32_t{1});
    };
    for (const auto& some : active)
      for (const std::int32_t row : some) ++ends[group(row) + 1];
    for (std::size_t g = 1; g < ends.size(); ++g) ends[g] += ends[g - 1];
    const std::vector<std::int64_t> borders = ends;
    rows_.resize(static_cast<std::size_t>(ends.back()));
    for (const auto& some : active)
      for (const std::int32_t row : some) rows_[static_cast<std::size_t>(ends[group(row)]++)] = row;
    for (std::size_t g = 0; g + 1 < borders.size(); ++g)
      std::sort(rows_.begin() + borders[g], rows_.begin() + borders[g + 1], [&](std::int32_t a, std::int32_t b) {
        return std::pair(places.seen(a), a) < std::pair(places.seen(b), b);
      });
    for (std::size_t g = 0; g + 1 < borders.size(); ++g)
      for (std::int64_t at = borders[g]; at < borders[g + 1]; at += kBlockRows)
        blocks_.push_back({rows_.data() + at, std::min(kBlockRows, borders[g + 1] - at)});
  }

  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  std::vector<std::int32_t> rows_;
  std::vector<Block> blocks_;
};

// What one thread does with blocks.
class Meeting {
 public:
  Meeting(const Vectors& rows, const float* picks_x, const Picks& picks, double floor, const Places& places)
      : vectors_(rows.x),
        picks_x_(picks_x),
        picks_(picks),
        dim_(rows.x.dim),
        floor_(floor),
        slack_(1 + 8 * distance2_error(dim_)),
        places_(places) {
    if (vectors_.type != Element::f32) wide_.resize(static_cast<std::size_t>(kBlockRows * dim_));
  }

  // The rows of a block lie here and there, so they are asked for one block ahead.
  void fetch_ahead(const Block& block) const {
    const auto bytes = static_cast<std::int64_t>(vectors_.row_bytes());
    for (std::int64_t i = 0; i < block.count; ++i) {
      const auto* row = static_cast<const std::byte*>(vectors_.from(block.rows[i]).data);
      for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
  }

  // Brings the rows of a block up to date; how many pairs met.
  std::int64_t meet(const Block& block) {
    open(block);
    const std::int64_t total = picks_.vectors.rows;
    std::int64_t met = 0, next = total;
    for (const Row& row : rows_) next = std::min(next, row.seen);
    for (const std::uint32_t centre = rows_.front().state.nearest; next < total && !rows_.empty();) {
      next = choose(centre, next);
      if (waiting_ == 0) continue;
      row_kernels().scattered_distances2(x_, static_cast<std::int64_t>(rows_.size()), pick_, waiting_, dim_, out_);
      met += static_cast<std::int64_t>(rows_.size()) * waiting_;
      settle(next);
    }
    for (const Row& row : rows_) places_.settle<Nearest>(row.number, row.state, total);
    return met;
  }

 private:
  struct Row {
    std::int64_t number, seen;
    Nearest::State state;
    double from_centre;  // distance from the nearest pick at the start
  };
  static constexpr std::int64_t kChunk = 32;
  static constexpr double kSmallest = 1e-30;  // below, squares lose digits to underflow

  void open(const Block& block) {
    rows_.clear();
    for (std::int64_t i = 0; i < block.count; ++i) {
      const std::int64_t number = block.rows[i];
      const Nearest::State state = places_.state<Nearest>(number);
      rows_.push_back({number, places_.seen(number), state, std::sqrt(state.distance2)});
      x_[i] = static_cast<const float*>(vectors_.from(number).data);
      if (wide_.empty()) continue;
      widen(vectors_.from(number).data, dim_, wide_.data() + i * dim_);
      x_[i] = wide_.data() + i * dim_;
    }
    find_reach();
  }

  // With c the nearest pick at the start and n that of now, a pick p is no nearer to the row x than n where
  // d(c, p) >= d(x, c) + d(x, n): this is the largest square of such a sum, and more by what rounding may take away.
  void find_reach() {
    reach2_ = 0;
    for (const Row& row : rows_) {
      const double d2 = row.state.distance2;
      const double reach = d2 < kSmallest && d2 != 0 ? HUGE_VAL : row.from_centre + std::sqrt(d2);
      reach2_ = std::max(reach2_, slack_ * reach * reach);
    }
  }

  // The picks from `first` on that may be nearer to one of the rows, as many as meet together; where the next begin.
  std::int64_t choose(std::uint32_t centre, std::int64_t first) {
    waiting_ = 0;
    const std::int64_t total = picks_.vectors.rows;
    while (first < total && waiting_ < kTogether) {
      const std::int64_t count = std::min(kChunk, total - first);
      std::uint32_t maybe = ~std::uint32_t{0} >> (kChunk - count);
      if (centre != kNobody && first + count <= picks_.compared)
        maybe = below(picks_.between + centre * picks_.compared + first, count, static_cast<float>(reach2_));
      for (; maybe != 0 && waiting_ < kTogether; maybe &= maybe - 1) {
        const std::int64_t p = first + std::countr_zero(maybe);
        ordinal_[waiting_] = static_cast<std::uint32_t>(p);
        pick_[waiting_++] = picks_x_ + p * dim_;
      }
      first = maybe != 0 ? first + std::countr_zero(maybe) : first + count;
    }
    return first;
  }

  // The rows have met the picks before `next`; those that have fallen below the floor drop out.
  void settle(std::int64_t next) {
    std::size_t kept = 0;
    bool nearer = false;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      Row& row = rows_[i];
      const double before = row.state.distance2;
      const float* distances2 = out_ + static_cast<std::int64_t>(i) * waiting_;
      // Most are not nearer; a limit above the distance, whatever rounding to float32 does.
      for (auto maybe = below(distances2, waiting_, static_cast<float>(before * (1 + 1e-6))); maybe != 0;
           maybe &= maybe - 1) {
        const int k = std::countr_zero(maybe);
        Nearest::apply(row.state, 1, distances2[k], 0, ordinal_[k]);
      }
      nearer |= row.state.distance2 < before;
      if (!(Nearest::key(row.state, places_.weight(row.number)) >= floor_)) {
        places_.settle<Nearest>(row.number, row.state, std::max(row.seen, next));
        nearer = true;
        continue;
      }
      rows_[kept] = row;
      x_[kept++] = x_[i];
    }
    rows_.resize(kept);
    if (nearer) find_reach();
  }

  const Field vectors_;
  const float* picks_x_;
  const Picks& picks_;
  const std::int64_t dim_;
  const double floor_, slack_;
  const Places& places_;

  std::vector<Row> rows_;  // of the block
  const float* x_[kBlockRows];
  std::vector<float> wide_;
  double reach2_ = 0;
  std::int64_t waiting_ = 0;  // picks that the rows meet next
  std::uint32_t ordinal_[kTogether];
  const float* pick_[kTogether];
  float out_[kBlockRows * kTogether];
};

}  // namespace

std::int64_t apply_by_nearest(Workers& workers, const Vectors& rows, const float* picks_x, const Picks& picks,
                              double floor, const RowStates& states) {
  const Places places(states);
  const Grouped grouped(workers, rows.rows, picks.vectors.rows, floor, places);
  const auto count = static_cast<std::int64_t>(grouped.blocks().size());
  constexpr std::int64_t kShare = 16;  // blocks that one thread takes at once
  std::atomic<std::int64_t> met = 0;
  workers.share((count + kShare - 1) / kShare, [&](std::int64_t share, int) {
    Meeting meeting(rows, picks_x, picks, floor, places);
    std::int64_t here = 0;
    for (std::int64_t b = share * kShare, end = std::min(count, b + kShare); b < end; ++b) {
      if (b + 1 < end) meeting.fetch_ahead(grouped.blocks()[static_cast<std::size_t>(b) + 1]);
      here += meeting.meet(grouped.blocks()[static_cast<std::size_t>(b)]);
    }
    met += here;
  });
  return met;
}

}  // namespace seine
