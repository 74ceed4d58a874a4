// The canonical row kernel of row_math.hpp on vector units: the same lanes, the same fold, so the same bits as the
// definition.
//
// A register holds a slice of neighbouring lanes. Rows meet picks in small blocks, slice by slice, so that a load
// serves several pairs and the arithmetic unit, not the load unit, is the bound. The block kernel is written once, over
// a vector type; the widest type that the processor has is chosen when the program starts.
#pragma once

#include <cstdint>
#include <vector>

#include "seine/backend.hpp"

namespace seine {

// out[r * picks + p] = op(rows[r], picks_p): rows are given one by one, picks lie one behind the other.
struct RowKernels {
  const char* name;
  void (*distances2)(const float* const* rows, std::int64_t count, const float* picks, std::int64_t pick_count,
                     std::int64_t dim, float* out);
  // The same, with picks given one by one.
  void (*scattered_distances2)(const float* const* rows, std::int64_t count, const float* const* picks,
                               std::int64_t pick_count, std::int64_t dim, float* out);
  void (*dots)(const float* const* rows, std::int64_t count, const float* picks, std::int64_t pick_count,
               std::int64_t dim, float* out);
  // The same products of rows in panels, a multiple of kPanelRows of them: out[p * rows + r]. A register holds one lane
  // of several rows, so nothing is folded across it: twice as fast where dim is small.
  void (*panel_dots)(const float* panels, std::int64_t rows, const float* picks, std::int64_t pick_count,
                     std::int64_t dim, float* out);
  // The same layout, summed in the order of the components: not the canonical products, for bounds only.
  void (*shadow_dots)(const float* panels, std::int64_t rows, const float* picks, std::int64_t pick_count,
                      std::int64_t dim, float* out);
  // Summed in float64.
  void (*wide_dots)(const float* const* rows, std::int64_t count, const double* picks, std::int64_t pick_count,
                    std::int64_t dim, double* out);
};

// Rows side by side: component c of row r lies at panels[(r / kPanelRows * dim + c) * kPanelRows + r % kPanelRows].
inline constexpr std::int64_t kPanelRows = 32;
inline std::int64_t in_panels(std::int64_t rows) {
  return (rows + kPanelRows - 1) / kPanelRows * kPanelRows;
}
void to_panels(const float* const* rows, std::int64_t count, std::int64_t dim,
               float* panels);  // the rest is left as is

// Of this processor.
const RowKernels& row_kernels();

const RowKernels& row_kernels_avx2();
const RowKernels* row_kernels_avx512();  // null where the compiler or the processor has none

// Some ground rows of facility location: a multiple of kPanelRows, with rows at the end to which nothing adds (above:
// 2).
struct GainRows {
  const float *above, *below;  // coverage; see gain_between in rules.hpp
  const double* at_above;      // fixed.rounded(weight * above)
  const double* weight;
  const std::int32_t* number;
};

// Sum of gain_between over the rows and how many of them add; dots: one per row. The rows that add are written to
// `near` where it is not null.
struct GainSum {
  double gain;
  std::int64_t adding;
};
GainSum sum_gains(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed, Near* near);
// Where dots are upper bounds of similarities: one of that sum, in whole units, and how many rows may add.
GainSum bound_gains(const float* dots, const GainRows& rows, std::int64_t count, FixedPoint fixed);
// Which dots are above; returns how many. `count` is a multiple of 8, and `found` has room for eight more.
std::int64_t find_above(const float* dots, const float* above, std::int64_t count, std::int32_t* found);
// sum_gains over a list, where `best` is how far each ground row is covered; weight: of each, null: 1.
GainSum sum_listed_gains(const Near* list, std::int64_t count, const float* best, const double* weight,
                         FixedPoint fixed);

// Inner product in float64.
double wide_dot(const double* x, const double* y, std::int64_t dim);

// Canonical squared norm of a row in float64; `wide` receives the row.
double squared_norm(const float* row, std::int64_t dim, std::vector<double>& wide);

// Divides a row by its 2-norm, rounding to float32; a zero row stays zero. `wide` is scratch.
void make_unit(float* row, std::int64_t dim, std::vector<double>& wide);

// Bit i: values[i] < limit, for the first `count` of at most 32.
std::uint32_t below(const float* values, std::int64_t count, float limit);

// float16 to float32, exactly, and back.
void widen(const void* half, std::int64_t count, float* out);
void narrow(const float* values, std::int64_t count, void* half);

}  // namespace seine
