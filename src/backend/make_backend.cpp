// Which backend a run gets. The CUDA one is a library that is looked for beside the executable and loaded only where it
// is asked for.
#include <elf.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "atomic_file.hpp"
#include "backend/checked.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/plugin.hpp"
#include "backend/shared_library.hpp"
#include "seine/backend.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

struct Found {
  const CudaPlugin* plugin = nullptr;
  bool present = false;  // a file of that name is there, usable or not
  std::string fault;     // why there is no plugin: the loader's own text
};

// Where the plug-in may be: beside the executable, where `cmake --install` puts it, and for the tests of a build tree.
std::vector<std::filesystem::path> plugin_places() {
  std::error_code failed;
  const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe", failed).parent_path();
  return {folder / kPluginFile, folder / "../lib/seine" / kPluginFile, folder / "../bin" / kPluginFile};
}

// What is wrong with a file that is to be loaded, where the loader would not say it: it waits for a pipe, and touches
// pages that a half-copied library does not have. Its section headers come last.
std::string fault_of(const std::filesystem::path& place) {
  std::error_code failed;
  if (!std::filesystem::is_regular_file(place, failed)) return place.string() + " is not a file";
  std::ifstream file(place, std::ios::binary);
  Elf64_Ehdr head{};
  file.read(reinterpret_cast<char*>(&head), sizeof head);
  const std::string_view magic(reinterpret_cast<const char*>(head.e_ident), SELFMAG);
  if (magic != ELFMAG || head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_shnum == 0) return "";
  Elf64_Shdr last{};
  file.seekg(static_cast<std::streamoff>(head.e_shoff + (head.e_shnum - 1u) * sizeof last));
  file.read(reinterpret_cast<char*>(&last), sizeof last);
  return !file || last.sh_size == 0 ? place.string() + " is cut off" : "";
}

Found find_plugin() {
  Found found;
  for (const std::filesystem::path& place : plugin_places()) {
    std::error_code failed;
    if (!std::filesystem::exists(place, failed)) continue;
    found.present = true;
    found.fault = fault_of(place);
    if (!found.fault.empty()) return found;
    PluginEntry entry = nullptr;
    try {
      SharedLibrary({place.c_str()}).find(kPluginEntry, entry);
    } catch (const Error& error) {
      found.fault = error.what();
      return found;
    }
    const CudaPlugin* plugin = entry();
    const auto words = [](const std::string& version, int abi) {
      return "seine " + version + " (interface " + std::to_string(abi) + ")";
    };
    const std::string theirs = words(plugin->version, plugin->abi), ours = words(SEINE_VERSION, kPluginAbi);
    if (theirs == ours)
      found.plugin = plugin;
    else
      found.fault = place.string() + " was built with " + theirs + ", this is " + ours;
    return found;
  }
  found.fault = std::string("CUDA was not built in: there is no ") + kPluginFile + " beside the executable";
  return found;
}

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options, std::string& why) {
  const Found found = find_plugin();
  if (!found.plugin) throw Error(Exit::no_device, "--device cuda: " + found.fault);
  try {
    std::unique_ptr<Backend> backend(found.plugin->create(options));
    why = "device cuda: " + backend->describe();
    return backend;
  } catch (const Error& error) {
    throw Error(error.code(), "--device cuda: " + host_name() + ": " + error.what());
  }
}

std::unique_ptr<Backend> make_auto_backend(const BackendOptions& options, std::string& why) {
  const Found found = find_plugin();
  std::string fault = found.fault;
  if (found.plugin) {
    try {
      std::unique_ptr<Backend> backend(found.plugin->create(options));
      why = "device cuda: " + backend->describe() + ", which auto prefers";
      return backend;
    } catch (const Error& error) {
      fault = error.what();
    }
  }
  why = "device cpu: ";
  why += found.present ? "CUDA was built in but no device is usable: " + fault : fault;
  return std::make_unique<CpuBackend>(options);
}

}  // namespace

std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options, std::string& why) {
  if (name == "auto") return make_auto_backend(options, why);
  if (name == "cuda") return make_cuda_backend(options, why);
  why = "device " + name + ": asked for";
  if (name == "cpu") return std::make_unique<CpuBackend>(options);
  if (name == "checked") return make_checked_backend(options);
  throw Error(Exit::usage, "--device " + name + ": there is no such device; known are auto, cpu, cuda");
}

std::string cuda_build_info() {
  const Found found = find_plugin();
  return found.plugin ? found.plugin->build_info : found.fault;
}

}  // namespace seine
