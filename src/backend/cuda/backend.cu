// The device, memory, copies, and items by position.
#include <algorithm>
#include <cstring>

#include "backend/cuda/cuda_backend.cuh"
#include "backend/cuda/warp.cuh"
#include "backend/plugin.hpp"
#include "seine/bytes.hpp"

namespace seine {
namespace {

// Is there code for the architecture of a device?
__global__ void probe() {}

// A thread owns a Unit of an item. Bytes per item: its own twice, 8 of its position, and 8 of its slot where it has
// one.
template <class Unit>
__global__ void move_units(const Unit* from, std::int64_t units, const std::int64_t* positions, std::int64_t count,
                           Unit* to, const std::int64_t* slots) {
  for (std::int64_t i = thread_of_grid(); i < count * units; i += threads_of_grid()) {
    const std::int64_t item = i / units, slot = slots ? slots[item] : item;
    to[slot * units + i % units] = from[positions[item] * units + i % units];
  }
}

Exit exit_of(cudaError_t fault) {
  switch (fault) {
    case cudaErrorMemoryAllocation:
      return Exit::system;
    case cudaErrorInvalidValue:
    case cudaErrorInvalidConfiguration:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchOutOfResources:
      return Exit::bug;
    default:
      return Exit::no_device;
  }
}

// What the runtime's own text leaves open: without a driver it speaks of its version, too.
std::string driver_and_toolkit() {
  int driver = 0;
  cudaDriverGetVersion(&driver);
  const auto version = [](int number) {
    return "CUDA " + std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
  };
  return driver == 0 ? "there is no driver: no libcuda.so.1"
                     : "the driver is for " + version(driver) + ", this was built with " + version(CUDART_VERSION);
}

// Makes the device of `local_rank` the calling thread's, and says which; Error 69 where there is none that runs our
// code.
int use_device(int local_rank) {
  const auto usable = [](cudaError_t fault) {
    if (fault == cudaSuccess) return;
    cudaGetLastError();
    std::string text = cudaGetErrorString(fault);
    if (fault == cudaErrorInsufficientDriver) text += " (" + driver_and_toolkit() + ")";
    throw Error(Exit::no_device, text);
  };
  int devices = 0;
  usable(cudaGetDeviceCount(&devices));
  if (devices == 0) usable(cudaErrorNoDevice);
  const int device = local_rank % devices;
  usable(cudaSetDevice(device));
  usable(cudaFree(nullptr));  // creates the context
  cudaFuncAttributes attributes;
  usable(cudaFuncGetAttributes(&attributes, probe));  // is there code for this architecture?
  return device;
}

}  // namespace

void check(cudaError_t fault, std::source_location at) {
  if (fault == cudaSuccess) return;
  cudaGetLastError();  // forgets it, where the device still can
  const Exit code = exit_of(fault);
  std::string text = std::string("CUDA: ") + cudaGetErrorString(fault);
  if (code == Exit::bug) text += std::string(" in ") + at.function_name() + ", line " + std::to_string(at.line());
  throw Error(code, text);
}

CudaBackend::CudaBackend(const BackendOptions& options) : device_(use_device(options.local_rank)) {
  check(cudaGetDeviceProperties(&properties_, device_));
  cudaMemPool_t pool;
  check(cudaDeviceGetDefaultMemPool(&pool, device_));
  // What is freed goes back to the device except so much: scratch memory of the calls below.
  std::uint64_t kept = 256 * kMiB;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept));

  cublas_ = Cublas::open(stream_, about_cublas_);  // now, so that who asks for free memory sees what it took

  char bus[32] = "";
  check(cudaDeviceGetPCIBusId(bus, sizeof bus, device_));
  port_ = make_nccl_port(std::string("GPU ") + bus, {stream_, [this] { enter(); }, [this] { return is_idle(); }});
}

std::string CudaBackend::describe() const {
  return std::string(properties_.name) + ", cuda device " + std::to_string(device_) + ", compute capability " +
         std::to_string(properties_.major) + "." + std::to_string(properties_.minor) + ", " +
         std::to_string(properties_.totalGlobalMem / kGiB) + " GiB, " +
         (cublas_ ? "products by " : "no products that filter: ") + about_cublas_;
}

bool CudaBackend::is_idle() const {
  const cudaError_t state = cudaStreamQuery(stream_);
  if (state != cudaErrorNotReady) check(state);
  cudaGetLastError();  // "not ready" is no fault of the next launch
  return state == cudaSuccess;
}

DeviceMemory CudaBackend::memory() const {
  enter();
  std::size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total));
  DeviceMemory memory{static_cast<std::int64_t>(total), static_cast<std::int64_t>(free)};
  std::memcpy(&memory.device, properties_.uuid.bytes, sizeof memory.device);
  return memory;
}

void* CudaBackend::allocate(std::size_t bytes) {
  enter();
  void* memory = nullptr;
  const cudaError_t fault = cudaMallocAsync(&memory, std::max<std::size_t>(bytes, 1), stream_);
  if (fault == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    throw Error(Exit::system, "out of memory of the GPU: " + std::to_string(bytes) + " bytes asked for, " +
                                  std::to_string(free) + " of " + std::to_string(total) + " free");
  }
  check(fault);
  return memory;
}

void CudaBackend::release(void* memory, std::size_t) noexcept {
  cudaSetDevice(device_);
  cudaFreeAsync(memory, stream_);
}

void CudaBackend::copy_in(void* to, const void* host, std::size_t bytes) {
  enter();
  check(cudaMemcpyAsync(to, host, bytes, cudaMemcpyHostToDevice, stream_));
  finish();
}

void CudaBackend::copy_out(void* host, const void* from, std::size_t bytes) {
  enter();
  check(cudaMemcpyAsync(host, from, bytes, cudaMemcpyDeviceToHost, stream_));
  finish();
}

void CudaBackend::gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions,
                         void* host) {
  if (positions.empty() || item_bytes == 0) return;
  const Array<std::int64_t> where(*this, positions);
  const Array<std::byte> items(*this, static_cast<std::int64_t>(item_bytes * positions.size()));
  move_items(from, item_bytes, where.data(), where.size(), items.data());
  copy_out(host, items.data(), item_bytes * positions.size());
}

void CudaBackend::scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
                          std::span<const std::int64_t> slots) {
  if (positions.empty() || item_bytes == 0) return;
  const Array<std::int64_t> where(*this, positions), whither(*this, slots);
  move_items(from, item_bytes, where.data(), where.size(), to, whither.data());
  finish();
}

void CudaBackend::move_items(const void* from, std::size_t item_bytes, const std::int64_t* positions,
                             std::int64_t count, void* to, const std::int64_t* slots) const {
  const auto move_as = [&](auto unit) {
    using Unit = decltype(unit);
    const auto units = static_cast<std::int64_t>(item_bytes / sizeof(Unit));
    launch(move_units<Unit>, blocks(units * count, kThreads), static_cast<const Unit*>(from), units, positions, count,
           static_cast<Unit*>(to), slots);
  };
  const std::uintptr_t all = item_bytes | reinterpret_cast<std::uintptr_t>(from) | reinterpret_cast<std::uintptr_t>(to);
  if (all % sizeof(uint4) == 0)
    move_as(uint4{});
  else if (all % sizeof(std::uint32_t) == 0)
    move_as(std::uint32_t{});
  else
    move_as(std::uint8_t{});
}

void* CudaBackend::allocate_staging(std::size_t bytes) {
  enter();
  void* memory = nullptr;
  const cudaError_t fault = cudaMallocHost(&memory, std::max<std::size_t>(bytes, 1));
  if (fault == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(Exit::system, "out of page-locked memory: " + std::to_string(bytes) + " bytes asked for");
  }
  check(fault);
  finish();  // what was allocated before is there for the other stream, too
  return memory;
}

void CudaBackend::release_staging(void* memory, std::size_t) noexcept {
  cudaSetDevice(device_);
  cudaStreamSynchronize(copies_);
  cudaFreeHost(memory);
}

void CudaBackend::begin_copy_in(void* to, const void* staging, std::size_t bytes) {
  enter();
  check(cudaMemcpyAsync(to, staging, bytes, cudaMemcpyHostToDevice, copies_));
}

void CudaBackend::await_copies() {
  enter();
  check(cudaStreamSynchronize(copies_));
}

Array<unsigned long long> CudaBackend::zeros(std::int64_t count) {
  Array<unsigned long long> array(*this, count);
  check(cudaMemsetAsync(array.data(), 0, static_cast<std::size_t>(count) * sizeof(unsigned long long), stream_));
  return array;
}

void CudaBackend::add_to(std::int64_t* out, const Array<unsigned long long>& sums) {
  const std::vector<unsigned long long> host = sums.to_host();
  for (std::size_t i = 0; i < host.size(); ++i) out[i] += static_cast<std::int64_t>(host[i]);
}

namespace {

Backend* create(const BackendOptions& options) {
  return new CudaBackend(options);
}

constexpr CudaPlugin kPlugin{kPluginAbi, SEINE_VERSION, SEINE_CUDA_BUILD, create};

}  // namespace
}  // namespace seine

extern "C" __attribute__((visibility("default"))) const seine::CudaPlugin* seine_cuda_plugin() {
  return &seine::kPlugin;
}
