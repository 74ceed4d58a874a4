// What is known of the gains of facility location's candidates, and which of them may be the largest.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "seine/pool.hpp"
#include "seine/resume.hpp"

namespace seine {

inline constexpr std::int64_t kNever = -1;
inline constexpr std::int64_t kNotListed = std::numeric_limits<std::int64_t>::max();

// What is known of a candidate's gain.
struct Standing {
  double bound;                       // the gain after known_at picks; nothing is above it later
  std::int64_t row;                   // global
  std::int64_t known_at;              // kNever: only the bound is known
  std::int64_t fits_at;               // after how many picks its list may be short enough; 0: it has one
  std::int64_t shadowed_at = kNever;  // after how many picks its shadow was asked
  std::int64_t near = 0;              // to how many ground rows it might have added then
};

// Of all candidates. Those with the best bounds, the front, are known to all ranks; the others to their owners.
class Standings {
 public:
  explicit Standings(const Pool& pool);

  // Whether a candidate outside of the front may be better than all in it.
  bool is_spent() const { return front_.empty() || behind(front_.front(), behind_front_); }
  const Standing& best() const { return front_.front(); }  // of the front
  Standing pop();
  void push(const Standing& candidate);
  void refill();  // collective

  void close(std::span<const std::int64_t> rows);  // they were picked
  // These two put all candidates back to their owners: bounds of the own rows whose gain was never computed; gains of
  // the own candidates, of those that were popped an older one, which is a bound as well.
  void lower(std::span<const double> bounds);
  std::vector<KnownGain> known();
  void know(std::span<const KnownGain> gains, std::int64_t fits_at);

 private:
  static constexpr std::size_t kFront = 2048;

  void put_back();
  static bool behind(const Standing& a, const Standing& b) { return beats({b.bound, b.row}, {a.bound, a.row}); }

  const Pool& pool_;
  std::vector<Standing> own_;       // except of those in the front
  std::vector<std::uint8_t> open_;  // candidates that were not picked
  std::vector<Standing> front_;     // a heap
  Standing behind_front_{};         // the best that is not in it
};

}  // namespace seine
