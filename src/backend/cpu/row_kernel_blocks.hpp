// The block kernel over a vector type V; included by one source per instruction set. Everything is in an anonymous
// namespace: code of one instruction set must never be linked where another was meant.
//
// V has kWidth lanes of V::Value, zero, load(pointer[, lanes]) of float32 or V::Value, fma, add, subtract, and fold:
// kWidth lanes to one, halves first, of one register or of four at once.
#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/row_kernel.hpp"
#include "seine/row_math.hpp"

namespace seine {
namespace {

// What one component adds to a lane: the terms of canonical_dot and canonical_distance2.
struct Product {
  template <class V>
  static inline auto add(typename V::Register x, typename V::Register y, typename V::Register sum) {
    return V::fma(x, y, sum);
  }
};

struct SquaredDifference {
  template <class V>
  static inline auto add(typename V::Register x, typename V::Register y, typename V::Register sum) {
    const auto difference = V::subtract(x, y);
    return V::fma(difference, difference, sum);
  }
};

// Sums of one slice of lanes for a block of R rows and P picks.
template <class V, int R, int P>
struct Block {
  typename V::Register sum[R][P];

  void add(const Block& other) {
    for (int r = 0; r < R; ++r)
      for (int p = 0; p < P; ++p) sum[r][p] = V::add(sum[r][p], other.sum[r][p]);
  }
};

// Picks one behind the other, or given one by one.
template <class Value>
inline const Value* pick_at(const Value* picks, std::int64_t p, std::int64_t dim) {
  return picks + p * dim;
}
template <class Value>
inline const Value* pick_at(const Value* const* picks, std::int64_t p, std::int64_t) {
  return picks[p];
}

template <class Value>
inline const Value* picks_from(const Value* picks, std::int64_t first, std::int64_t dim) {
  return picks + first * dim;
}
template <class Value>
inline const Value* const* picks_from(const Value* const* picks, std::int64_t first, std::int64_t) {
  return picks + first;
}

template <class Term, class V, int R, int P, class X, class Y>
inline Block<V, R, P> slice(const X* const* x, Y y, std::int64_t dim, int first_lane) {
  Block<V, R, P> block;
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) block.sum[r][p] = V::zero();
  std::int64_t c = first_lane;
  for (; c + V::kWidth <= dim; c += kLanes) {
    typename V::Register xs[R];
    for (int r = 0; r < R; ++r) xs[r] = V::load(x[r] + c);
    for (int p = 0; p < P; ++p) {
      const auto ys = V::load(pick_at(y, p, dim) + c);
      for (int r = 0; r < R; ++r) block.sum[r][p] = Term::template add<V>(xs[r], ys, block.sum[r][p]);
    }
  }
  if (c < dim) {
    const int lanes = static_cast<int>(dim - c);
    typename V::Register xs[R];
    for (int r = 0; r < R; ++r) xs[r] = V::load(x[r] + c, lanes);
    for (int p = 0; p < P; ++p) {
      const auto ys = V::load(pick_at(y, p, dim) + c, lanes);
      for (int r = 0; r < R; ++r) block.sum[r][p] = Term::template add<V>(xs[r], ys, block.sum[r][p]);
    }
  }
  return block;
}

// The slices first, first + stride, ... folded as row_math.hpp pairs them: the slice with the one half of all lanes
// away.
template <class Term, class V, int R, int P, int Slices, class X, class Y>
inline Block<V, R, P> slices(const X* const* x, Y y, std::int64_t dim, int first, int stride) {
  if constexpr (Slices == 1) {
    return slice<Term, V, R, P>(x, y, dim, first * V::kWidth);
  } else {
    Block<V, R, P> even = slices<Term, V, R, P, Slices / 2>(x, y, dim, first, 2 * stride);
    if ((first + stride) * V::kWidth < dim)  // else those lanes are empty, and adding zeros changes nothing
      even.add(slices<Term, V, R, P, Slices / 2>(x, y, dim, first + stride, 2 * stride));
    return even;
  }
}

template <class Term, class V, int R, int P, class X, class Y>
inline void meet_block(const X* const* x, Y y, std::int64_t dim, typename V::Value* out, std::int64_t stride) {
  const Block<V, R, P> block = slices<Term, V, R, P, kLanes / V::kWidth>(x, y, dim, 0, 1);
  if constexpr (R == 4 && P == 1) {
    if (stride == 1) {
      const typename V::Register sums[R] = {block.sum[0][0], block.sum[1][0], block.sum[2][0], block.sum[3][0]};
      return V::fold(sums, out);
    }
  }
  for (int r = 0; r < R; ++r) {
    if constexpr (P == 4) {
      V::fold(block.sum[r], out + r * stride);
    } else {
      for (int p = 0; p < P; ++p) out[r * stride + p] = V::fold(block.sum[r][p]);
    }
  }
}

// A few picks stay in the first-level cache while all rows pass by.
template <class Term, class V, int R, int P, class X, class Y>
void meet(const X* const* rows, std::int64_t count, Y picks, std::int64_t pick_count, std::int64_t dim,
          typename V::Value* out) {
  std::int64_t p = 0;
  const auto band = [&]<int Width>() {
    std::int64_t r = 0;
    const Y some = picks_from(picks, p, dim);
    for (; r + R <= count; r += R)
      meet_block<Term, V, R, Width>(rows + r, some, dim, out + r * pick_count + p, pick_count);
    for (; r < count; ++r) meet_block<Term, V, 1, Width>(rows + r, some, dim, out + r * pick_count + p, pick_count);
    p += Width;
  };
  while (p + P <= pick_count) band.template operator()<P>();
  while (p < pick_count) band.template operator()<1>();
}

// Components first, first + Step, ... of R registers of rows in a panel with P picks.
template <class V, int R, int P, int Step>
[[gnu::always_inline]] inline Block<V, R, P> panel_sums(const float* panel, const float* picks, std::int64_t dim,
                                                        int first) {
  Block<V, R, P> block;
  for (int r = 0; r < R; ++r)
    for (int p = 0; p < P; ++p) block.sum[r][p] = V::zero();
  for (std::int64_t c = first; c < dim; c += Step) {
    typename V::Register xs[R];
    for (int r = 0; r < R; ++r) xs[r] = V::load(panel + c * kPanelRows + r * V::kWidth);
    for (int p = 0; p < P; ++p) {
      const auto y = V::broadcast(picks + p * dim + c);
      for (int r = 0; r < R; ++r) block.sum[r][p] = V::fma(xs[r], y, block.sum[r][p]);
    }
  }
  return block;
}

// Lanes first, first + stride, ..., folded as row_math.hpp pairs them.
template <class V, int R, int P, int Stride>
[[gnu::always_inline]] inline Block<V, R, P> panel_lanes(const float* panel, const float* picks, std::int64_t dim,
                                                         int first) {
  if constexpr (Stride == kLanes) {
    return panel_sums<V, R, P, kLanes>(panel, picks, dim, first);
  } else {
    Block<V, R, P> even = panel_lanes<V, R, P, 2 * Stride>(panel, picks, dim, first);
    if (first + Stride < dim)  // else those lanes are empty
      even.add(panel_lanes<V, R, P, 2 * Stride>(panel, picks, dim, first + Stride));
    return even;
  }
}

enum class Order { canonical, of_components };

template <class V, Order kOrder>
void meet_panels(const float* panels, std::int64_t rows, const float* picks, std::int64_t pick_count, std::int64_t dim,
                 float* out) {
  constexpr int R = 2, P = 4;
  for (std::int64_t r = 0; r < rows; r += R * V::kWidth) {
    const float* panel = panels + r / kPanelRows * dim * kPanelRows + r % kPanelRows;
    std::int64_t p = 0;
    const auto band = [&]<int Width>() {
      const Block<V, R, Width> block = kOrder == Order::canonical
                                           ? panel_lanes<V, R, Width, 1>(panel, picks + p * dim, dim, 0)
                                           : panel_sums<V, R, Width, 1>(panel, picks + p * dim, dim, 0);
      for (int i = 0; i < R; ++i)
        for (int k = 0; k < Width; ++k) V::store(out + (p + k) * rows + r + i * V::kWidth, block.sum[i][k]);
      p += Width;
    };
    while (p + P <= pick_count) band.template operator()<P>();
    while (p < pick_count) band.template operator()<1>();
  }
}

}  // namespace
}  // namespace seine
