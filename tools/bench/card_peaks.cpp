// The bounds of a GPU: what its own runtime library copies and cuBLAS multiplies; where that is not found, the clock
// and the number of processors tell.
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "backend/cuda/cublas.hpp"
#include "peaks.hpp"
#include "seine/error.hpp"

namespace {

using namespace seine;
using Clock = std::chrono::steady_clock;
constexpr int kSide = 8192;

void check(cudaError_t fault) {
  if (fault != cudaSuccess) throw Error(Exit::no_device, std::string("CUDA: ") + cudaGetErrorString(fault));
}

class DeviceValues {
 public:
  explicit DeviceValues(std::size_t bytes) { check(cudaMalloc(&memory_, bytes)); }
  explicit DeviceValues(const std::vector<float>& values) : DeviceValues(values.size() * sizeof(float)) {
    check(cudaMemcpy(memory_, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice));
  }
  DeviceValues(const DeviceValues&) = delete;
  DeviceValues& operator=(const DeviceValues&) = delete;
  ~DeviceValues() { cudaFree(memory_); }
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

// Gflop/s of the product of two such matrices.
double product_rate(const Cublas& cublas, Element type, const void* a, const void* b, float* c,
                    Cublas::Float32 float32 = Cublas::Float32::as_tf32) {
  return 2e-9 * kSide * kSide * kSide * best_rate([&] {
           cublas.multiply({a, type, kSide}, kSide, {b, type, kSide}, kSide, c, float32);
         });
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
  const DeviceValues from(values), to(values), product(kBytes);
  Peaks peaks;
  peaks.copy = 2e-9 * static_cast<double>(kBytes) * best_rate([&] {
                 check(cudaMemcpyAsync(product.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, nullptr));
               });
  std::string why;
  if (const std::unique_ptr<Cublas> cublas = Cublas::open(nullptr, why)) {
    peaks.gemm = product_rate(*cublas, Element::f32, from.get(), to.get(), product.get(), Cublas::Float32::whole);
    peaks.gemm_tf32 = product_rate(*cublas, Element::f32, from.get(), to.get(), product.get());
    // Two float16 from 1/8 to 1 in the place of each float32.
    const auto half = [&] { return 0x3000u + static_cast<std::uint32_t>(random() % 0xc00u); };
    for (float& value : values) value = std::bit_cast<float>(half() << 16 | half());
    const DeviceValues halves(values);
    peaks.gemm_f16 = product_rate(*cublas, Element::f16, halves.get(), halves.get(), product.get());
  } else {
    std::fprintf(stderr, "seine: no product by cuBLAS (%s); its place takes what the clock allows\n", why.c_str());
    peaks.gemm = arithmetic_by_the_clock();
  }
  peaks.read = peaks.copy;
  peaks.fma = peaks.gemm;
  return peaks;
}
