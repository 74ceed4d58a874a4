// What this machine can do at most, measured: the bounds that kernels.cpp holds the kernels against. Of the processor
// in peaks.cpp, of a GPU in card_peaks.cpp.
#pragma once

struct Peaks {
  double read = 0;  // GB/s, of memory far beyond the caches
  double copy = 0;  // GB/s, read and written bytes together
  double fma = 0;   // Gflop/s in float32, of fused multiply-adds on registers
  double gemm = 0;  // Gflop/s in float32, of the library's matrix product
};

Peaks measure_peaks(int threads);  // a second or two; the best of several runs
