// What this machine can do at most, measured: the bounds that kernels.cpp holds the kernels against. Of the processor
// in peaks.cpp, of a GPU in card_peaks.cpp.
#pragma once

struct Peaks {
  double read = 0;  // GB/s, of memory far beyond the caches
  double copy = 0;  // GB/s, read and written bytes together
  double fma = 0;   // Gflop/s in float32, of fused multiply-adds on registers
  double gemm = 0;  // Gflop/s in float32, of the library's matrix product
  // The same on tensor cores, of float32 inputs as TF32 and of float16 ones; 0: there are none.
  double gemm_tf32 = 0, gemm_f16 = 0;
};

Peaks measure_peaks(int threads);  // a second or two; the best of several runs
