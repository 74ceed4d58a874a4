#include "seine/ownership.hpp"

namespace seine {

namespace {

std::int64_t run_length(std::int64_t rows, int ranks) {
  const std::int64_t tiles = (rows + Ownership::kTileRows - 1) / Ownership::kTileRows;
  return Ownership::kTileRows * std::clamp<std::int64_t>(tiles / (4 * ranks), 1, 256);
}

}  // namespace

std::int64_t Ownership::largest_share(std::int64_t rows, int ranks) {
  const std::int64_t run = run_length(rows, ranks), round = run * ranks;
  return rows / round * run + std::min(rows % round, run);
}

Ownership::Ownership(std::int64_t rows, int rank, int ranks)
    : rows_(rows), run_length_(run_length(rows, ranks)), rank_(rank), ranks_(ranks) {
  for (std::int64_t first = rank * run_length_; first < rows; first += ranks * run_length_) {
    runs_.push_back({first, std::min(run_length_, rows - first)});
    own_ += runs_.back().count;
  }
}

int Ownership::owner(std::int64_t row) const {
  return static_cast<int>(row / run_length_ % ranks_);
}

std::int64_t Ownership::local(std::int64_t row) const {
  return row / run_length_ / ranks_ * run_length_ + row % run_length_;
}

}  // namespace seine
