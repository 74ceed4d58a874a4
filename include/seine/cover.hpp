// What covered rows, and any rows as centres, leave of the rows of a pool.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "seine/pool.hpp"

namespace seine {

// What covered rows leave behind, besides the column `before` of the pool.
struct Prior {
  const Pool* outside = nullptr;  // labelled rows that are not in the pool; null: none
  std::vector<double> precision;  // log_det: P = (I + X^T X / noise)^-1 over covered rows, [dim, dim]; empty: I
  double noise = 0;               // log_det: of the request
  double covered_value = 0;       // log_det: log det of the covered rows
};

// Collective. What `centres` (rows of `of`) leave of the rows of `on`: squared distance to the nearest of them and of
// what `on.columns.before` says. One value per own row of `on`.
std::vector<double> distances2_to(const Pool& on, const Pool& of, std::span<const std::int64_t> centres,
                                  const std::optional<std::vector<double>>& before);
// Likewise the largest clipped cosine; unit rows.
std::vector<float> similarities_to(const Pool& on, const Pool& of, std::span<const std::int64_t> centres,
                                   const std::optional<std::vector<double>>& before);

// Collective. Covered rows of the pool and outside of it, into columns.before.
void cover_by_distance(Pool& pool, const Prior& prior);
void cover_by_similarity(Pool& pool, const Prior& prior);
// Collective. Calls visit with the vectors of these rows of `of`, chunk by chunk, in order.
void in_chunks(const Pool& of, std::span<const std::int64_t> rows, const std::function<void(const Packed&)>& visit);
// The same for all covered rows: those of the pool, then those outside of it.
void in_covered_chunks(const Pool& pool, const Prior& prior, const std::function<void(const Packed&)>& visit);
std::int64_t covered_rows(const Pool& pool, const Prior& prior);

// Calls visit(i, squared distances of row i to the rows before it) for every row of a batch, in order. Collective; the
// host holds the batch as float32.
void for_earlier_distances2(const Pool& of, std::span<const std::int64_t> rows,
                            const std::function<void(std::size_t, std::span<const float>)>& visit);

// best_i = max(best_i, clipped cosine of own row i and each pick). Backend memory.
void raise(const Pool& ground, const Packed& picks, const Array<float>& best);

// Largest clipped cosine so far, per own row: 0 without covered rows.
Array<float> similarities_before(const Pool& pool, const std::optional<std::vector<double>>& before);

}  // namespace seine
