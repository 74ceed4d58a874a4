#include "engines/shadows.hpp"

#include <algorithm>
#include <cmath>

#include "engines/symmetric.hpp"

namespace seine {
namespace {

constexpr std::int64_t kStep = 8;         // numbers of a shadow: a multiple of it
constexpr double kRest = 1.0 / 64;        // of the squared norms may lie outside of the directions
constexpr std::int64_t kRowsOnce = 4096;  // whose products are on the host together

}  // namespace

std::optional<Shadows> Shadows::of(const Pool& candidates, const Pool& ground, const std::vector<double>& moments) {
  const std::int64_t dim = ground.dim(), most_directions = most(dim) / kStep * kStep - 1;
  const bool some_do_not_pay = candidates.comm().max(candidates.backend().bounds_of_pairs_pay() ? 0 : 1) > 0;
  if (most_directions < 1 || some_do_not_pay) return std::nullopt;
  const Directions found = leading_directions(moments, dim, most_directions);
  double rest = 0;
  for (std::int64_t c = 0; c < dim; ++c) rest += moments[static_cast<std::size_t>(c * dim + c)];
  const double enough = kRest * rest;
  for (std::int64_t count = 0; count < most_directions;) {
    rest -= found.moment[static_cast<std::size_t>(count++)];
    if (rest <= enough && (count + 1) % kStep == 0)
      return Shadows(candidates, ground, std::span(found.vectors).first(static_cast<std::size_t>(count * dim)));
  }
  return std::nullopt;
}

Shadows::Shadows(const Pool& candidates, const Pool& ground, std::span<const double> directions)
    : dim_(static_cast<std::int64_t>(directions.size()) / ground.dim() + 1),
      candidates_(of_rows(candidates, directions)) {
  if (&ground != &candidates) ground_ = of_rows(ground, directions);
}

Array<float> Shadows::fetch(const Pool& candidates, std::span<const std::int64_t> rows) const {
  const std::vector<std::byte> bytes =
      candidates.fetch_items(rows, candidates_.data(), static_cast<std::size_t>(dim_) * sizeof(float));
  return {candidates.backend(), {reinterpret_cast<const float*>(bytes.data()), bytes.size() / sizeof(float)}};
}

Array<float> Shadows::of_rows(const Pool& pool, std::span<const double> directions) const {
  Backend& backend = pool.backend();
  const std::int64_t dim = pool.dim(), count = dim_ - 1;
  const Array<double> vectors(backend, directions);
  // Of a canonical product of unit rows, of a product of shadows, and of the numbers of a shadow. Because
  // (a + e)(b + e) >= (sqrt(a b) + e)^2, it is enough to add it to the squared length of the rest.
  const double rounding = canonical_error(dim) + static_cast<double>(dim_ + 16) * 0x1p-24;
  Array<float> shadows(backend, pool.own() * dim_);
  pool.store().visit_all([&](std::int64_t first, const Vectors& piece) {
    for (std::int64_t begin = 0; begin < piece.rows; begin += kRowsOnce) {
      const std::int64_t rows = std::min(kRowsOnce, piece.rows - begin);
      const Field x = piece.x.from(begin);
      Array<double> values(backend, rows);
      backend.squared_norms(x, rows, values.data());
      std::vector<double> rest = values.to_host();
      std::vector<float> host(static_cast<std::size_t>(rows * dim_));
      for (std::int64_t c = 0; c < count; ++c) {
        backend.products(x, rows, vectors.data() + c * dim, values.data());
        const std::vector<double> products = values.to_host();
        for (std::size_t i = 0; i < products.size(); ++i) {
          host[i * static_cast<std::size_t>(dim_) + static_cast<std::size_t>(c)] = static_cast<float>(products[i]);
          rest[i] -= products[i] * products[i];
        }
      }
      for (std::size_t i = 0; i < rest.size(); ++i)
        host[(i + 1) * static_cast<std::size_t>(dim_) - 1] =
            static_cast<float>(std::sqrt(std::max(rest[i], 0.0) + rounding));
      shadows.write(host, (first + begin) * dim_);
    }
  });
  return shadows;
}

}  // namespace seine
