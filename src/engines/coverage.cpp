#include "engines/coverage.hpp"

#include "seine/cover.hpp"

namespace seine {

Coverage::Coverage(const Pool& ground)
    : ground_(ground),
      best_(similarities_before(ground, ground.columns.before)),
      now_(best_.to_host()),
      raised_at_(now_.size(), 0) {
  for (const float best : now_) history_.push_back({{0, best}});
}

void Coverage::raise(const Packed& pick) {
  ++picks_;
  seine::raise(ground_, pick, best_);
  const std::vector<float> now = best_.to_host();
  for (std::size_t i = 0; i < now.size(); ++i) raise_to(i, now[i], picks_);
}

void Coverage::raise(const Near* list, std::int64_t length) {
  ++picks_;
  ground_.backend().raise_listed(list, length, best_.data());
  std::vector<Near> rows(static_cast<std::size_t>(length));
  if (length > 0) ground_.backend().copy_out(rows.data(), list, rows.size() * sizeof(Near));
  for (const Near& near : rows) raise_to(static_cast<std::size_t>(near.row), near.similarity, picks_);
}

void Coverage::raise_in_order(const Packed& picks) {
  Backend& backend = ground_.backend();
  const Field& all = picks.vectors().x;
  std::vector<float> now;
  ground_.store().visit_all([&](std::int64_t first, const Vectors& piece) {
    now.resize(static_cast<std::size_t>(piece.rows));
    for (std::int64_t k = 0; k < picks.rows(); ++k) {
      backend.raise(piece.x, piece.rows, all.from(k), 1, best_.data() + first);
      best_.read(now, first);
      for (std::size_t i = 0; i < now.size(); ++i)
        raise_to(static_cast<std::size_t>(first) + i, now[i], picks_ + 1 + k);
    }
  });
  picks_ += picks.rows();
}

std::int64_t Coverage::losses_since(std::int64_t since, const Packed& candidates, const Array<double>& weight,
                                    FixedPoint fixed, std::int64_t* losses) {
  find_raised(since);
  std::size_t at = 0;
  ground_.store().visit_all([&](std::int64_t first, const Vectors& piece) {
    std::size_t end = at;
    while (end < raised_.rows.size() && raised_.rows[end] < first + piece.rows) ++end;
    if (end == at) return;
    std::vector<std::int64_t> in_piece(raised_.rows.begin() + static_cast<std::ptrdiff_t>(at),
                                       raised_.rows.begin() + static_cast<std::ptrdiff_t>(end));
    for (std::int64_t& row : in_piece) row -= first;
    Backend& backend = ground_.backend();
    const Array<std::int64_t> rows(backend, std::span<const std::int64_t>(in_piece));
    const Array<float> then(backend, std::span<const float>(raised_.then).subspan(at, end - at));
    const Array<float> now(backend, std::span<const float>(raised_.now).subspan(at, end - at));
    backend.gains(piece.x, {rows.size(), rows.data(), then.data(), now.data()},
                  weight.empty() ? nullptr : weight.data() + first, fixed, candidates.vectors().x, candidates.rows(),
                  losses);
    at = end;
  });
  return static_cast<std::int64_t>(raised_.rows.size());
}

void Coverage::find_raised(std::int64_t since) {
  if (raised_.since == since && raised_.picks == picks_) return;
  raised_ = {since, picks_, {}, {}, {}};
  for (std::size_t i = 0; i < history_.size(); ++i) {
    if (raised_at_[i] <= since) continue;
    const std::vector<Level>& levels = history_[i];
    std::size_t at = levels.size() - 1;
    while (levels[at].picks > since) --at;
    raised_.rows.push_back(static_cast<std::int64_t>(i));
    raised_.then.push_back(levels[at].similarity);
    raised_.now.push_back(levels.back().similarity);
  }
}

void Coverage::raise_to(std::size_t row, float similarity, std::int64_t picks) {
  if (!(similarity > now_[row])) return;
  now_[row] = similarity;
  history_[row].push_back({picks, similarity});
  raised_at_[row] = picks;
}

}  // namespace seine
