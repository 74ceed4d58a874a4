#include "backend/cpu/by_nearest.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include "backend/cpu/row_kernel.hpp"
#include "backend/places.hpp"
#include "host_rows.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

// Rows that meet picks together. They have one nearest pick, so they may skip about the same ones.
constexpr std::size_t kBlockRows = 8;
// Picks that a block meets before rows that have fallen below the floor drop out.
constexpr std::int64_t kTogether = 8;
// A row leaves its block where its nearest pick has come so much nearer.
constexpr double kMuchNearer = 0.7;

using Block = std::span<const std::int64_t>;

std::vector<std::int64_t> joined(const std::vector<std::vector<std::int64_t>>& parts) {
  std::vector<std::int64_t> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

// Rows of [first, last) that have not seen all picks and whose key is at least `floor`, ascending.
std::vector<std::int64_t> rows_behind(Workers& workers, std::int64_t first, std::int64_t last, std::int64_t picks,
                                      double floor, const Places& places) {
  constexpr std::int64_t kScanRows = 32768;  // less is not worth waking a thread
  std::vector<std::vector<std::int64_t>> found(static_cast<std::size_t>((last - first + kScanRows - 1) / kScanRows));
  workers.share(static_cast<std::int64_t>(found.size()), [&](std::int64_t tile, int) {
    const std::int64_t begin = first + tile * kScanRows, end = std::min(last, begin + kScanRows);
    std::vector<std::int64_t>& mine = found[static_cast<std::size_t>(tile)];
    mine.resize(static_cast<std::size_t>(end - begin));
    std::size_t count = 0;
    for (std::int64_t row = begin; row < end; ++row) {  // no branch: it would be guessed wrongly
      mine[count] = row;
      count += places.is_behind(row, picks, floor);
    }
    mine.resize(count);
  });
  return joined(found);
}

// Rows of one nearest pick side by side, those that have seen about the same picks first to last.
class Grouped {
 public:
  Grouped(std::span<const std::int64_t> rows, std::int64_t picks, const Places& places) : rows_(rows.size()) {
    std::vector<std::size_t> ends(static_cast<std::size_t>(picks) + 2);
    const auto group = [&](std::int64_t row) {  // kNobody is the first
      return static_cast<std::size_t>(places.state<Nearest>(row).nearest + std::uint32_t{1});
    };
    for (const std::int64_t row : rows) ++ends[group(row) + 1];
    for (std::size_t g = 1; g < ends.size(); ++g) ends[g] += ends[g - 1];
    const std::vector<std::size_t> borders = ends;
    for (const std::int64_t row : rows) rows_[ends[group(row)]++] = row;
    for (std::size_t g = 0; g + 1 < borders.size(); ++g) {
      const std::span<std::int64_t> mine(rows_.data() + borders[g], borders[g + 1] - borders[g]);
      std::sort(mine.begin(), mine.end(), [&](std::int64_t a, std::int64_t b) {
        return std::pair(places.seen(a), a) < std::pair(places.seen(b), b);
      });
      for (std::size_t at = 0; at < mine.size(); at += kBlockRows)
        blocks_.push_back(mine.subspan(at, std::min(kBlockRows, mine.size() - at)));
    }
  }

  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  std::vector<std::int64_t> rows_;
  std::vector<Block> blocks_;
};

// What one thread does with blocks.
class BlockMeeting {
 public:
  BlockMeeting(const Vectors& rows, const float* picks_x, const Picks& picks, double floor, const Places& places)
      : vectors_(rows.x),
        picks_x_(picks_x),
        picks_(picks),
        dim_(rows.x.dim),
        floor_(floor),
        slack_(1 + 8 * canonical_error(dim_)),
        places_(places) {
    if (vectors_.type != Element::f32) wide_.resize(kBlockRows * static_cast<std::size_t>(dim_));
  }

  // The rows of a block lie here and there, so they are asked for one block ahead.
  void fetch_ahead(const Block& block) const {
    const auto bytes = static_cast<std::int64_t>(vectors_.row_bytes());
    for (const std::int64_t number : block) {
      const auto* row = static_cast<const std::byte*>(vectors_.from(number).data);
      for (std::int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(row + at, 0, 2);
    }
  }

  // Brings the rows of a block up to date, but for those that are left; how many pairs met.
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

  // Rows whose nearest pick is another one now, so near that they had better go on among that one's rows.
  const std::vector<std::int64_t>& left() const { return left_; }

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
    for (std::size_t i = 0; i < block.size(); ++i) {
      const std::int64_t number = block[i];
      const Nearest::State state = places_.state<Nearest>(number);
      rows_.push_back({number, places_.seen(number), state, std::sqrt(state.distance2)});
      x_[i] = static_cast<const float*>(vectors_.from(number).data);
      if (wide_.empty()) continue;
      float* const wide = wide_.data() + static_cast<std::int64_t>(i) * dim_;
      widen(vectors_.from(number).data, dim_, wide);
      x_[i] = wide;
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
      const bool known = centre != kNobody && first < picks_.compared;
      const std::int64_t count = std::min(kChunk, (known ? std::min(total, picks_.compared) : total) - first);
      std::uint32_t maybe = ~std::uint32_t{0} >> (kChunk - count);
      if (known) maybe = below(picks_.between + centre * picks_.compared + first, count, static_cast<float>(reach2_));
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
      const bool falls = !(Nearest::key(row.state, places_.weight(row.number)) >= floor_);
      const bool leaves = std::sqrt(row.state.distance2) < kMuchNearer * row.from_centre && next < picks_.vectors.rows;
      if (falls || leaves) {
        places_.settle<Nearest>(row.number, row.state, std::max(row.seen, next));
        if (!falls) left_.push_back(row.number);
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

  std::vector<std::int64_t> left_;
  std::vector<Row> rows_;  // of the block
  const float* x_[kBlockRows];
  std::vector<float> wide_;
  double reach2_ = 0;
  std::int64_t waiting_ = 0;  // picks that the rows meet next
  std::uint32_t ordinal_[kTogether];
  const float* pick_[kTogether];
  float out_[static_cast<std::int64_t>(kBlockRows) * kTogether];
};

}  // namespace

std::int64_t apply_by_nearest(Workers& workers, const Vectors& rows, const float* picks_x, const Picks& picks,
                              double floor, const RowStates& states) {
  const Places places(states);
  const std::int64_t total = picks.vectors.rows;
  std::atomic<std::int64_t> met = 0;
  // What is known of rows that meet picks stays small.
  for (std::int64_t slice = 0; slice < rows.rows; slice += Backend::kBoundedRows) {
    auto active = rows_behind(workers, slice, std::min(rows.rows, slice + Backend::kBoundedRows), total, floor, places);
    while (!active.empty()) {
      const Grouped grouped(active, total, places);
      const auto& blocks = grouped.blocks();
      constexpr std::size_t kShare = 16;  // blocks that one thread takes at once
      std::vector<std::vector<std::int64_t>> left((blocks.size() + kShare - 1) / kShare);
      workers.share(static_cast<std::int64_t>(left.size()), [&](std::int64_t share, int) {
        if (stop_signal() != 0) return;  // rows that are not up to date are known to be
        BlockMeeting meeting(rows, picks_x, picks, floor, places);
        const std::size_t first = static_cast<std::size_t>(share) * kShare;
        const std::size_t end = std::min(blocks.size(), first + kShare);
        for (std::size_t b = first; b < end; ++b) {
          if (b + 1 < end) meeting.fetch_ahead(blocks[b + 1]);
          met += meeting.meet(blocks[b]);
        }
        left[static_cast<std::size_t>(share)] = meeting.left();
      });
      active = joined(left);
    }
  }
  return met;
}

}  // namespace seine
