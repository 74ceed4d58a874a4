#include "cli/resources.hpp"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include "atomic_file.hpp"
#include "process_memory.hpp"
#include "seine/bytes.hpp"

namespace seine {
namespace {

constexpr double kUnlimited = std::numeric_limits<double>::infinity();

// --- CPUs ---

using CpuSet = std::array<cpu_set_t, 8>;  // 8,192 CPUs

CpuSet affinity() {
  CpuSet set{};
  if (sched_getaffinity(0, sizeof set, set.data()) != 0) {
    CPU_ZERO_S(sizeof set, set.data());
    CPU_SET_S(0, sizeof set, set.data());
  }
  return set;
}

std::size_t hash_of(std::string_view bytes) {
  return std::hash<std::string_view>{}(bytes);
}

// The same for the ranks of a node.
std::size_t host_key() {
  return hash_of(host_name());
}

// The ranks on this node. A launcher that binds ranks gives each its own CPUs, which must not be divided once more:
// only ranks with the same CPUs share them.
struct Neighbours {
  int on_node = 0;
  int same_cpus = 0;
  int local_rank = 0;
};

Neighbours count_neighbours(const Comm& comm, const CpuSet& cpus) {
  struct Seat {
    std::size_t host, cpus;
  };
  const Seat mine{host_key(), hash_of({reinterpret_cast<const char*>(cpus.data()), sizeof cpus})};
  const std::vector<Seat> seats = comm.gather(std::span<const Seat>(&mine, 1));

  Neighbours neighbours;
  for (std::size_t rank = 0; rank < seats.size(); ++rank) {
    if (seats[rank].host != mine.host) continue;
    if (static_cast<int>(rank) < comm.rank()) ++neighbours.local_rank;
    if (seats[rank].cpus == mine.cpus) ++neighbours.same_cpus;
    ++neighbours.on_node;
  }
  return neighbours;
}

// How many ranks work on the device of this one, itself included; `memory`: as it was before any of them took some.
int count_sharers(const Comm& comm, const DeviceMemory& memory) {
  struct Seat {
    std::size_t host;
    DeviceMemory memory;
  };
  const Seat mine{host_key(), memory};
  int sharers = 0;
  for (const Seat& seat : comm.gather(std::span<const Seat>(&mine, 1)))
    sharers += seat.memory.total > 0 && seat.host == mine.host && seat.memory.device == memory.device;
  return sharers;
}

// Collective. Ranks must agree on what they have room for, so `auto` takes GPUs only where all of them have one with
// memory to spare: a line about the first that has not, or nothing. `fault`: why this one has none.
std::string rank_without_gpu(const Comm& comm, const std::string& fault) {
  const std::string mine = fault.empty() ? "" : host_name() + ": " + fault;
  const std::vector<std::string> all = comm.gather(std::span<const std::string>(&mine, 1));
  const auto first = std::find_if(all.begin(), all.end(), [](const std::string& text) { return !text.empty(); });
  if (first == all.end()) return "";
  return fmt::format("device cpu: auto takes GPUs where all ranks have one that can be used; rank {} of {} on {}",
                     first - all.begin(), comm.size(), *first);
}

// --- memory ---

double number_or_unlimited(const std::string& text) {
  double value = 0;
  const auto [stop, fault] = std::from_chars(text.data(), text.data() + text.size(), value);
  return fault == std::errc{} && stop != text.data() ? value : kUnlimited;  // also "max"
}

double number_in_file(const std::filesystem::path& path) {
  std::string text;
  std::ifstream(path) >> text;
  return number_or_unlimited(text);
}

double number_in_environment(const char* name) {
  const char* text = std::getenv(name);
  return text ? number_or_unlimited(text) : kUnlimited;
}

// The smallest limit in a control group and in the groups around it.
double smallest_limit(const std::filesystem::path& mount, std::filesystem::path group, const char* file) {
  double limit = number_in_file(mount / file);
  for (group = group.relative_path(); !group.empty(); group = group.parent_path())
    limit = std::min(limit, number_in_file(mount / group / file));
  return limit;
}

double cgroup_limit() {
  double limit = kUnlimited;
  std::ifstream groups("/proc/self/cgroup");  // lines of "id:controllers:path"; version 2 has "0::path"
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") limit = std::min(limit, smallest_limit("/sys/fs/cgroup", path, "memory.max"));
    if (controllers.find(",memory,") != std::string::npos)
      limit = std::min(limit, smallest_limit("/sys/fs/cgroup/memory", path, "memory.limit_in_bytes"));
  }
  return limit;
}

double slurm_limit() {
  const double per_cpu = number_in_environment("SLURM_MEM_PER_CPU") * number_in_environment("SLURM_CPUS_ON_NODE");
  const double limit = std::min(number_in_environment("SLURM_MEM_PER_NODE"), per_cpu);
  return limit > 0 ? limit * kMiB : kUnlimited;  // Slurm writes 0 for all of the node
}

double free_memory() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("MemAvailable:"))
      return number_or_unlimited(line.substr(std::min(line.find_first_of("0123456789"), line.size()))) * kKiB;
  return kUnlimited;
}

}  // namespace

void check_processor() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
      __builtin_cpu_supports("f16c"))
    return;
  throw Error(Exit::system, "this processor is older than x86-64-v3 (AVX2, FMA, BMI2 and F16C are needed)");
}

int own_cpus() {
  const CpuSet cpus = affinity();
  return CPU_COUNT_S(sizeof cpus, cpus.data());
}

std::optional<double> own_device_gib(const DeviceMemory& memory, int sharers, std::optional<double> given) {
  if (memory.total == 0) return std::nullopt;
  // For what the loops take for a moment, and what the driver's libraries bring.
  constexpr double kScratch = 0.5 * kGiB;
  const double share = static_cast<double>(memory.free) / sharers - kScratch;
  return std::min(std::max(share, 0.0) / kGiB, given.value_or(kUnlimited));
}

std::unique_ptr<Backend> take_resources(PoolRequest& request, const Comm& comm, Terminal& terminal) {
  return_freed_memory();
  const std::optional<double> given = request.memory_gib;
  const CpuSet cpus = affinity();
  const Neighbours neighbours = count_neighbours(comm, cpus);
  if (request.threads == 0) request.threads = std::max(1, CPU_COUNT_S(sizeof cpus, cpus.data()) / neighbours.same_cpus);
  if (!request.memory_gib) {
    const double bytes = std::min({cgroup_limit(), slurm_limit(), free_memory()});
    if (bytes < kUnlimited) request.memory_gib = bytes / kGiB / neighbours.on_node;
  }
  terminal.debug(fmt::format("{}, {} on this node; each with {} and {:.2f} GiB", counted(comm.size(), "rank"),
                             neighbours.on_node, counted(request.threads, "thread"),
                             request.memory_gib.value_or(kUnlimited)));

  std::string why;
  const auto make = [&](const std::string& device) {
    return comm.agree(
        [&] { return make_backend(device, {.threads = request.threads, .local_rank = neighbours.local_rank}, why); });
  };
  auto backend = make(request.device);
  const bool may_choose = request.device == "auto" && comm.max(backend->name() == "cuda" ? 1 : 0) > 0;
  std::string fault;  // of this rank's GPU, where that is no reason to end
  const DeviceMemory memory = comm.agree([&] {
    try {
      return backend->memory();
    } catch (const Error& error) {
      if (!may_choose) throw;
      fault = error.what();
      return DeviceMemory();
    }
  });
  const int sharers = count_sharers(comm, memory);
  request.device_gib = own_device_gib(memory, sharers, given);
  if (may_choose) {
    if (backend->name() != "cuda") fault = why.substr(why.find(": ") + 2);
    if (request.device_gib <= 0.0 && fault.empty())
      fault = fmt::format("{:.2f} GiB of its GPU are free for {}, of which each leaves 0.5", in_gib(memory.free),
                          counted(sharers, "rank"));
    if (std::string line = rank_without_gpu(comm, fault); !line.empty()) {
      backend.reset();
      backend = make("cpu");
      request.device_gib.reset();
      why = std::move(line);
    }
  }
  if (request.device_gib)
    why += fmt::format("; {:.1f} GiB are free, {:.1f} for {}", in_gib(memory.free), *request.device_gib,
                       sharers > 1 ? fmt::format("each of {} ranks", sharers) : "this rank");
  terminal.info(why);
  return backend;
}

std::unique_ptr<DeviceLink> link_devices(const Comm& comm, Backend& backend, Terminal& terminal) {
  std::string why;
  std::unique_ptr<DeviceLink> link = DeviceLink::open(comm, backend.port(), why);
  if (!why.empty()) terminal.info(why);
  backend.use(link.get());
  return link;
}

}  // namespace seine
