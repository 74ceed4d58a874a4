// Scores at the speed of memory: a bound from above in float32 that is cheap enough for every row, and the float64
// score itself, with the bits of the structs in rules.hpp, for the rows that the bound does not rule out.
//
// The bound holds for distributions as pool files are checked to hold them: values >= 0 that sum to 1 within 1e-2. Its
// logarithm is the exponent of the number and a polynomial in the mantissa, off by at most kLogError (a test visits
// every mantissa); what the float32 operations around it add is bounded in score_kernel_blocks.hpp.
#pragma once

#include <cstdint>
#include <vector>

#include "seine/rules.hpp"

namespace seine {

inline constexpr double kLogError = 2.5e-6;  // of log2s, absolute, for normal numbers up to 2

struct ScoreKernels {
  const char* name;
  // out[i] >= the float64 score of row i. p: [rows, passes, classes], each value rounded once to float32 at most.
  // Bytes per row: its values once, of bald a second time from the caches, and 4. Flops per class: of entropy and bald
  // 15, of them 13 of a logarithm, of the others 3 at most; where there are several passes, 1 more, and 1 per value. Of
  // bald 15 per value besides.
  void (*bounds)(ScoreKind kind, const float* p, std::int64_t rows, std::int64_t passes, std::int64_t classes,
                 float* out);
  // Sums of the rows of a [rows, classes] matrix; each is within (classes / 8 + 6) 2^-24 sum |p| of the exact one.
  // Bytes per row: its values once, and 4; flops: 1 per value.
  void (*sums)(const float* p, std::int64_t rows, std::int64_t classes, float* out);
  // The approximate one. Bytes per value: 8; flops: 13.
  void (*log2s)(const float* x, std::int64_t count, float* out);
  // x_log_x of rules.hpp, bit by bit. Bytes per value: 16; flops: 41 in float64, one of them a division.
  void (*x_log_xs)(const double* p, std::int64_t count, double* out);
};

// Of this processor.
const ScoreKernels& score_kernels();

const ScoreKernels& score_kernels_avx2();
const ScoreKernels* score_kernels_avx512();  // null where the compiler or the processor has none

// The scores of rules.hpp, rounded once, with the same bits. One per thread: it keeps its memory.
class ExactScores {
 public:
  void operator()(ScoreKind kind, const double* p, std::int64_t rows, std::int64_t passes, std::int64_t classes,
                  float* out);

 private:
  const double* means(const double* p, std::int64_t rows, std::int64_t passes, std::int64_t classes);
  void entropies(const double* p, std::int64_t rows, std::int64_t classes, std::vector<double>& out);

  std::vector<double> means_, x_log_xs_, entropies_, pass_entropies_;
};

}  // namespace seine
