// The bounds of a GPU: what its own runtime library copies and cuBLAS multiplies. cuBLAS is looked for while the
// program runs, as a compiler is often installed without it; where there is none the clock and the number of processors
// tell.
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "peaks.hpp"
#include "seine/error.hpp"

namespace {

using Clock = std::chrono::steady_clock;
constexpr int kSide = 8192;

void check(cudaError_t fault) {
  if (fault != cudaSuccess)
    throw seine::Error(seine::Exit::no_device, std::string("CUDA: ") + cudaGetErrorString(fault));
}

class DeviceMemory {
 public:
  explicit DeviceMemory(std::size_t bytes) { check(cudaMalloc(&memory_, bytes)); }
  explicit DeviceMemory(const std::vector<float>& values) : DeviceMemory(values.size() * sizeof(float)) {
    check(cudaMemcpy(memory_, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice));
  }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  ~DeviceMemory() { cudaFree(memory_); }
  float* get() const { return static_cast<float*>(memory_); }

 private:
  void* memory_ = nullptr;
};

// Calls per second, of the fastest of several runs of some calls.
double best_rate(const std::function<void()>& call) {
  constexpr int kRuns = 5, kCalls = 10;
  call();
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    check(cudaDeviceSynchronize());
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < kCalls; ++i) call();
    check(cudaDeviceSynchronize());
    best = std::max(best, kCalls / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

// The three functions of cuBLAS that are used, by its binary interface.
struct Blas {
  int (*create)(void** handle) = nullptr;
  int (*destroy)(void* handle) = nullptr;
  int (*sgemm)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const float* alpha, const float* a,
               int lda, const float* b, int ldb, const float* beta, float* c, int ldc) = nullptr;

  static Blas open() {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12", "libcublas.so"})
      if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) {
        Blas blas;
        blas.create = reinterpret_cast<decltype(create)>(dlsym(library, "cublasCreate_v2"));
        blas.destroy = reinterpret_cast<decltype(destroy)>(dlsym(library, "cublasDestroy_v2"));
        blas.sgemm = reinterpret_cast<decltype(sgemm)>(dlsym(library, "cublasSgemm_v2"));
        return blas;
      }
    return {};
  }
  bool is_there() const { return create && destroy && sgemm; }
};

// Products of two such matrices in a second, in float32; 0 where cuBLAS cannot tell.
double products_per_second(const Blas& blas, const float* a, const float* b, float* c) {
  void* handle = nullptr;
  if (!blas.is_there() || blas.create(&handle) != 0) return 0;
  constexpr int kPlain = 0, kTransposed = 1;
  const float one = 1, zero = 0;
  int fault = 0;
  const double rate = best_rate([&] {
    fault |= blas.sgemm(handle, kTransposed, kPlain, kSide, kSide, kSide, &one, a, kSide, b, kSide, &zero, c, kSide);
  });
  blas.destroy(handle);
  return fault == 0 ? rate : 0;
}

// Of a fused multiply-add in each of 128 lanes of all processors in every cycle, Gflop/s.
double arithmetic_by_the_clock() {
  int processors = 0, kilohertz = 0;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0));
  check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, 0));
  return 1e-6 * 2 * 128 * processors * kilohertz;
}

}  // namespace

// A card has no peak of its own for reading and for multiply-adds here: the copy and the product are taken for them.
Peaks measure_peaks(int) {
  constexpr std::size_t kValues = std::size_t{kSide} * kSide, kBytes = kValues * sizeof(float);
  std::minstd_rand random;  // zeros would be multiplied faster
  std::vector<float> values(kValues);
  for (float& value : values) value = 1e-9f * static_cast<float>(random()) - 1;
  const DeviceMemory from(values), to(values), product(kBytes);
  Peaks peaks;
  peaks.copy = 2e-9 * static_cast<double>(kBytes) * best_rate([&] {
                 check(cudaMemcpyAsync(product.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, nullptr));
               });
  peaks.gemm = 2e-9 * kSide * kSide * kSide * products_per_second(Blas::open(), from.get(), to.get(), product.get());
  if (!(peaks.gemm > 0)) {
    std::fputs("seine: no product by cuBLAS; its place takes what the clock allows\n", stderr);
    peaks.gemm = arithmetic_by_the_clock();
  }
  peaks.read = peaks.copy;
  peaks.fma = peaks.gemm;
  return peaks;
}
