// The canonical row kernel of row_math.hpp on vector units: the same lanes, the same fold, so the same bits as the
// definition.
//
// A register holds a slice of neighbouring lanes. Rows meet picks in small blocks, slice by slice, so that a load
// serves several pairs and the arithmetic unit, not the load unit, is the bound. The block kernel is written once, over
// a vector type; the widest type that the processor has is chosen when the program starts.
#pragma once

#include <cstdint>

#include "seine/backend.hpp"

namespace seine {

// out[r * picks + p] = op(rows[r], picks_p): rows are given one by one, picks lie one behind the other.
//
// Bytes per row: its vector once per 4 picks that it meets, and once for each that is left (the first time from memory,
// then from the caches if they hold it), and its results once; picks come from the caches. Canonical sums fold 32
// lanes, at most 31 additions more per row and pick than is said below.
struct RowKernels {
  const char* name;
  // Flops per row and pick: 3 per component.
  void (*distances2)(const float* const* rows, std::int64_t count, const float* picks, std::int64_t pick_count,
                     std::int64_t dim, float* out);
  // The same, with picks given one by one; bytes and flops, too.
  void (*scattered_distances2)(const float* const* rows, std::int64_t count, const float* const* picks,
                               std::int64_t pick_count, std::int64_t dim, float* out);
  // Flops per row and pick: 2 per component.
  void (*dots)(const float* const* rows, std::int64_t count, const float* picks, std::int64_t pick_count,
               std::int64_t dim, float* out);
  // The same products of rows in panels, a multiple of kPanelRows of them: out[p * rows + r]. A register holds one lane
  // of several rows, so nothing is folded across it: twice as fast where dim is small. Flops per row and pick: 2 per
  // component.
  void (*panel_dots)(const float* panels, std::int64_t rows, const float* picks, std::int64_t pick_count,
                     std::int64_t dim, float* out);
  // The same layout, summed in the order of the components: not the canonical products, for bounds only. Flops per row
  // and pick: 2 per component, and no fold.
  void (*shadow_dots)(const float* panels, std::int64_t rows, const float* picks, std::int64_t pick_count,
                      std::int64_t dim, float* out);
  // Summed in float64. Flops per row and pick: 2 per component, in float64.
  void (*wide_dots)(const float* const* rows, std::int64_t count, const double* picks, std::int64_t pick_count,
                    std::int64_t dim, double* out);
};

// Rows side by side: component c of row r lies at panels[(r / kPanelRows * dim + c) * kPanelRows + r % kPanelRows].
inline constexpr std::int64_t kPanelRows = 32;
inline std::int64_t in_panels(std::int64_t rows) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows;
}
// The rest of the panels is left as is. Bytes per row: its vector twice.
void to_panels(const float* const* rows, std::int64_t count, std::int64_t dim, float* panels);

// Of this processor.
const RowKernels& row_kernels();

const RowKernels& row_kernels_avx2();
const RowKernels* row_kernels_avx512();  // null where the compiler or the processor has none

// Inner product in float64. Bytes: 16 per component; flops: 2 per component, in float64.
double wide_dot(const double* x, const double* y, std::int64_t dim);

// Bit i: values[i] < limit, for the first `count` of at most 32. Bytes per value: 4; flops: 1.
std::uint32_t below(const float* values, std::int64_t count, float limit);

}  // namespace seine
