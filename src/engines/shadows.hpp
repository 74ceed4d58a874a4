// Short vectors that stand for unit rows in facility location: their inner products are upper bounds of similarities,
// for a fraction of the work.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "seine/pool.hpp"

namespace seine {

// With orthonormal directions Q, x.y = Qx.Qy + (x - Q'Qx).(y - Q'Qy) <= Qx.Qy + |x - Q'Qx| |y - Q'Qy|: a shadow is Qx
// and the length of the rest, a little longer for what rounding may take away. Q is where most of the ground rows lie.
class Shadows {
 public:
  // The most numbers that one has.
  static constexpr std::int64_t most(std::int64_t dim) { return dim / 4 < 64 ? dim / 4 : 64; }

  // Collective. `moments`: sum of x x' over the ground rows, lower triangle. Absent where short vectors say too
  // little, or where a backend makes no use of them.
  static std::optional<Shadows> of(const Pool& candidates, const Pool& ground, const std::vector<double>& moments);

  std::int64_t dim() const { return dim_; }
  Field ground() const { return {(ground_.empty() ? candidates_ : ground_).data(), Element::f32, dim_}; }
  Array<float> fetch(const Pool& candidates, std::span<const std::int64_t> rows) const;  // collective

 private:
  Shadows(const Pool& candidates, const Pool& ground, std::span<const double> directions);
  Array<float> of_rows(const Pool& pool, std::span<const double> directions) const;

  std::int64_t dim_;
  Array<float> candidates_, ground_;  // ground_: empty where they are the same rows
};

}  // namespace seine
