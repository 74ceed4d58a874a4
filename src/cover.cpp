#include "seine/cover.hpp"

#include <algorithm>

#include "engines/rule_state.hpp"
#include "host_rows.hpp"

namespace seine {
namespace {

// State of the rule `Nearest` that `chunks` feeds with centres.
std::vector<double> nearest_distances2(const Pool& on, const std::optional<std::vector<double>>& before,
                                       const std::function<void(const std::function<void(const Packed&)>&)>& chunks) {
  Backend& backend = on.backend();
  RuleState state(backend, RuleKind::nearest, on.own());
  const Array<double> start = on.device(before);
  state.start({start.data(), on.global_rows(), 0, Purpose("none")}, nullptr);
  chunks([&](const Packed& centres) { state.apply_all(on.store(), {centres.vectors(), nullptr}); });
  return state.key.to_host();
}

std::vector<float> largest_similarities(const Pool& on, const std::optional<std::vector<double>>& before,
                                        const std::function<void(const std::function<void(const Packed&)>&)>& chunks) {
  Array<float> best = similarities_before(on, before);
  chunks([&](const Packed& centres) { raise(on, centres, best); });
  return best.to_host();
}

// Global numbers of the rows that `accept` takes, on every rank, ascending.
std::vector<std::int64_t> rows_with(const Pool& pool, const std::function<bool(Role)>& accept) {
  std::vector<std::int64_t> mine;
  for (std::size_t i = 0; i < pool.columns.rows.size(); ++i)
    if (accept(pool.columns.role[i])) mine.push_back(pool.columns.rows[i]);
  std::vector<std::int64_t> all = pool.comm().gather(std::span<const std::int64_t>(mine));
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace

void in_chunks(const Pool& of, std::span<const std::int64_t> rows, const std::function<void(const Packed&)>& visit) {
  const auto chunk = static_cast<std::size_t>(of.at_once(RowStore::kRowsAtOnce));
  for (std::size_t first = 0; first < rows.size(); first += chunk)
    visit(of.fetch(rows.subspan(first, std::min(chunk, rows.size() - first))));
}

void in_covered_chunks(const Pool& pool, const Prior& prior, const std::function<void(const Packed&)>& visit) {
  in_chunks(pool, rows_with(pool, is_covered), visit);
  if (prior.outside) in_chunks(*prior.outside, rows_with(*prior.outside, [](Role) { return true; }), visit);
}

std::int64_t covered_rows(const Pool& pool, const Prior& prior) {
  return pool.covered() + (prior.outside ? prior.outside->rows() : 0);
}

Array<float> similarities_before(const Pool& pool, const std::optional<std::vector<double>>& before) {
  std::vector<float> best(static_cast<std::size_t>(pool.own()), 0.0f);
  if (before) best.assign(before->begin(), before->end());
  return Array<float>(pool.backend(), std::span<const float>(best));
}

void raise(const Pool& ground, const Packed& picks, const Array<float>& best) {
  ground.store().visit_all([&](std::int64_t first, const Vectors& rows) {
    ground.backend().raise(rows.x, rows.rows, picks.vectors().x, picks.rows(), best.data() + first);
  });
}

void for_earlier_distances2(const Pool& of, std::span<const std::int64_t> rows,
                            const std::function<void(std::size_t, std::span<const float>)>& visit) {
  const std::int64_t dim = of.dim();
  std::vector<float> all;
  all.reserve(rows.size() * static_cast<std::size_t>(dim));
  in_chunks(of, rows, [&](const Packed& some) {
    const std::vector<float> values = some.widened();
    all.insert(all.end(), values.begin(), values.end());
  });
  std::vector<float> out(rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto earlier = static_cast<std::int64_t>(i);
    distances2(all.data() + earlier * dim, all.data(), earlier, dim, out.data());
    visit(i, std::span(out).first(i));
  }
}

std::vector<double> distances2_to(const Pool& on, const Pool& of, std::span<const std::int64_t> centres,
                                  const std::optional<std::vector<double>>& before) {
  return nearest_distances2(on, before, [&](const auto& visit) { in_chunks(of, centres, visit); });
}

std::vector<float> similarities_to(const Pool& on, const Pool& of, std::span<const std::int64_t> centres,
                                   const std::optional<std::vector<double>>& before) {
  return largest_similarities(on, before, [&](const auto& visit) { in_chunks(of, centres, visit); });
}

void cover_by_distance(Pool& pool, const Prior& prior) {
  if (covered_rows(pool, prior) == 0) return;
  pool.columns.before = nearest_distances2(pool, {}, [&](const auto& visit) { in_covered_chunks(pool, prior, visit); });
}

void cover_by_similarity(Pool& pool, const Prior& prior) {
  if (covered_rows(pool, prior) == 0) return;
  const std::vector<float> best =
      largest_similarities(pool, {}, [&](const auto& visit) { in_covered_chunks(pool, prior, visit); });
  pool.columns.before.emplace(best.begin(), best.end());
}

}  // namespace seine
