// The CUDA backend, a plug-in (plugin.hpp). Formulas are those of rules.hpp and row_math.hpp; what is here is who
// computes what. Loops are in the file of their noun, kernels in NAME.cuh and what launches them in NAME.cu:
//   backend.cu    the device, memory, copies, items by position
//   rows.cu       one value per row
//   rules.cu      what picks do to rows
//   selection.cu  selection among keys
//   coverage.cu   facility location
//   moments.cu    sums over rows
// A kernel has the name of the function that it works for, with what it goes over or adds to: raise_rows, add_gains.
// Where many rows meet many vectors, products by cuBLAS say which pairs need not (filter_bound.hpp, filter.cuh).
//
// Floats are never added across warps; integers may be, by atomics, because their sums have no order. Contraction is
// off (cuda.cmake).
#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <source_location>
#include <string>

#include "backend/cuda/cublas.hpp"
#include "backend/cuda/geometry.hpp"
#include "backend/cuda/nccl.hpp"
#include "seine/backend.hpp"
#include "seine/error.hpp"

namespace seine {

// Error where a call failed: what of CUDA's faults is ours (70), what is want of memory (71), and what is the device's
// (69).
void check(cudaError_t fault, std::source_location at = std::source_location::current());

class Stream {
 public:
  Stream() { check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { cudaStreamDestroy(stream_); }
  operator cudaStream_t() const { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

class CudaBackend final : public Backend {
 public:
  explicit CudaBackend(const BackendOptions& options);

  std::string name() const override { return "cuda"; }
  std::string describe() const override;
  DeviceMemory memory() const override;

  DevicePort* port() override { return port_.get(); }

  void* allocate(std::size_t bytes) override;
  void release(void* memory, std::size_t bytes) noexcept override;
  void copy_in(void* to, const void* host, std::size_t bytes) override;
  void copy_out(void* host, const void* from, std::size_t bytes) override;
  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override;
  void scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
               std::span<const std::int64_t> slots) override;

  void* allocate_staging(std::size_t bytes) override;
  void release_staging(void* memory, std::size_t bytes) noexcept override;
  void begin_copy_in(void* to, const void* staging, std::size_t bytes) override;
  void await_copies() override;

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override;
  void squared_norms(const Field& x, std::int64_t rows, double* out) override;

  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) override;
  std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                     const RowStates& states) override;
  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override;
  double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) override;
  std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) override;

  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override;
  std::int64_t first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                           const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                           std::int64_t room, std::int64_t* gains, std::int64_t* near) override;
  void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                    std::int64_t* near, std::int64_t* gains) override;
  void raise_listed(const Near* list, std::int64_t length, float* best) override;
  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override;

  void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                    std::int64_t* sums) override;
  void products(const Field& x, std::int64_t rows, const double* vector, double* out) override;
  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override;

 private:
  class Applying;  // picks to rows: rules.cu
  class Gaining;   // candidates over ground rows: coverage.cu

  // The current device belongs to the calling thread, which need not be the one that created the backend.
  void enter() const { check(cudaSetDevice(device_)); }
  void finish() const { check(cudaStreamSynchronize(stream_)); }
  bool is_idle() const;

  template <class... Takes, class... Given>
  void launch(void (*kernel)(Takes...), Grid grid, const Given&... given) const {
    launch_blocks_of(dim3(kThreads), kernel, grid, given...);
  }
  template <class... Takes, class... Given>
  void launch_blocks_of(dim3 threads, void (*kernel)(Takes...), Grid grid, const Given&... given) const {
    enter();
    kernel<<<dim3(grid.x, grid.y, grid.z), threads, 0, stream_>>>(given...);
    check(cudaGetLastError());
  }

  // `call(scratch, bytes)` as CUB has it: asks for the bytes first, then works. Memory is given and taken back in the
  // order of the stream, so nobody waits.
  template <class Call>
  void with_scratch(const Call& call) {
    enter();
    std::size_t bytes = 0;
    check(call(nullptr, bytes));
    const Array<std::byte> scratch(*this, static_cast<std::int64_t>(bytes));
    check(call(scratch.data(), bytes));
  }

  // Sums that a kernel adds to.
  Array<unsigned long long> zeros(std::int64_t count);
  static void add_to(std::int64_t* out, const Array<unsigned long long>& sums);

  // Rows as float32: where they lie, or widened into `values`; of picks, so that there is one kernel less per type.
  Field wide_rows(const Field& x, std::int64_t rows, Array<float>& values);

  std::vector<Candidate> best_of_slices(const double* key, const std::uint8_t* selectable,
                                        const std::int64_t* global_rows, std::int64_t rows);
  std::vector<Candidate> reaching(double floor, const double* key, const std::uint8_t* selectable,
                                  const std::int64_t* global_rows, std::int64_t rows, std::int64_t count);
  // Items at these positions to these slots, or, without, one behind the other.
  void move_items(const void* from, std::size_t item_bytes, const std::int64_t* positions, std::int64_t count, void* to,
                  const std::int64_t* slots = nullptr) const;

  int device_;
  cudaDeviceProp properties_{};
  Stream stream_;  // of everything
  Stream copies_;  // of what was staged, beside it
  std::unique_ptr<DevicePort> port_;
  std::string about_cublas_;
  std::unique_ptr<Cublas> cublas_;  // null: there is none
};

inline void expect(bool holds, const char* invariant) {
  if (!holds) throw Error(Exit::bug, std::string("internal error: in the CUDA backend: ") + invariant);
}

// Rows of a field, as what they are.
template <class Visit>
void with_elements(const Field& x, const Visit& visit) {
  expect(x.type != Element::f64, "rows are float32 or float16");
  if (x.type == Element::f16)
    visit(static_cast<const __half*>(x.data));
  else
    visit(static_cast<const float*>(x.data));
}

}  // namespace seine
