// The bounds of a GPU: what its own runtime library copies and cuBLAS multiplies. The card keeps no secrets from these,
// so they stand for the machine as Eigen and memcpy do in peaks.cpp.
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "peaks.hpp"
#include "seine/error.hpp"

namespace {

using Clock = std::chrono::steady_clock;

void check(cudaError_t fault) {
  if (fault != cudaSuccess)
    throw seine::Error(seine::Exit::no_device, std::string("CUDA: ") + cudaGetErrorString(fault));
}

void check(cublasStatus_t fault) {
  if (fault != CUBLAS_STATUS_SUCCESS)
    throw seine::Error(seine::Exit::no_device, std::string("cuBLAS: ") + cublasGetStatusString(fault));
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

class Blas {
 public:
  Blas() { check(cublasCreate(&handle_)); }
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;
  ~Blas() { cublasDestroy(handle_); }
  operator cublasHandle_t() const { return handle_; }

 private:
  cublasHandle_t handle_ = nullptr;
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

}  // namespace

// A card has no peak of its own for reading and for multiply-adds here: the copy and the product are taken for them.
Peaks measure_peaks(int) {
  constexpr int kSide = 8192;
  constexpr std::size_t kValues = std::size_t{kSide} * kSide, kBytes = kValues * sizeof(float);
  std::minstd_rand random;  // zeros would be multiplied faster
  std::vector<float> values(kValues);
  for (float& value : values) value = 1e-9f * static_cast<float>(random()) - 1;
  const DeviceMemory from(values), to(values), product(kBytes);
  Peaks peaks;
  peaks.copy = 2e-9 * static_cast<double>(kBytes) * best_rate([&] {
                 check(cudaMemcpyAsync(to.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, nullptr));
               });
  const Blas blas;
  check(cublasSetMathMode(blas, CUBLAS_PEDANTIC_MATH));  // float32, as the kernels
  const float one = 1, zero = 0;
  peaks.gemm = 2e-9 * kSide * kSide * kSide * best_rate([&] {
                 check(cublasSgemm(blas, CUBLAS_OP_T, CUBLAS_OP_N, kSide, kSide, kSide, &one, from.get(), kSide,
                                   to.get(), kSide, &zero, product.get(), kSide));
               });
  peaks.read = peaks.copy;
  peaks.fma = peaks.gemm;
  return peaks;
}
