// Memory, copies, and items by position.
#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "backend/cpu/cpu_backend.hpp"
#include "backend/cpu/row_kernel.hpp"
#include "seine/console.hpp"
#include "seine/error.hpp"

namespace seine {

CpuBackend::CpuBackend(const BackendOptions& options) : workers_(std::max(1, options.threads)) {}

std::string CpuBackend::describe() const {
  return "cpu, " + counted(workers_.threads(), "thread") + ", " + row_kernels().name;
}

void* CpuBackend::allocate(std::size_t bytes) {
  void* memory = std::aligned_alloc(64, (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64);
  if (!memory) throw Error(Exit::system, "out of memory: " + std::to_string(bytes) + " bytes asked for");
  return memory;
}

void CpuBackend::release(void* memory, std::size_t) noexcept {
  std::free(memory);
}

void CpuBackend::copy_in(void* to, const void* host, std::size_t bytes) {
  std::memcpy(to, host, bytes);
}

void CpuBackend::copy_out(void* host, const void* from, std::size_t bytes) {
  std::memcpy(host, from, bytes);
}

void CpuBackend::gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* out = static_cast<std::byte*>(host);
  for (std::size_t i = 0; i < positions.size(); ++i)
    std::memcpy(out + i * item_bytes, source + static_cast<std::size_t>(positions[i]) * item_bytes, item_bytes);
}

void CpuBackend::scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
                         std::span<const std::int64_t> slots) {
  const auto* source = static_cast<const std::byte*>(from);
  auto* out = static_cast<std::byte*>(to);
  for (std::size_t i = 0; i < positions.size(); ++i)
    std::memcpy(out + static_cast<std::size_t>(slots[i]) * item_bytes,
                source + static_cast<std::size_t>(positions[i]) * item_bytes, item_bytes);
}

}  // namespace seine
