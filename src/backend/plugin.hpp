// The door between the executable and the CUDA plug-in, which is loaded at run time so that one executable starts on
// machines without a driver.
//
// Backend and Error cross it as C++ objects: both sides are built by one compiler against one libstdc++, and the
// plug-in is never unloaded, because objects of its classes may outlive any scope of ours.
#pragma once

namespace seine {

class Backend;
struct BackendOptions;

struct CudaPlugin {
  int abi;                 // kPluginAbi of its build
  const char* version;     // of the program that it was built with
  const char* build_info;  // toolkit and architectures, one line
  // Throws Error: 69 with the driver's own text where no device is usable. The caller owns the backend.
  Backend* (*create)(const BackendOptions& options);
};

inline constexpr int kPluginAbi = 10;  // raise with every change of Backend's functions or of what they take
inline constexpr const char* kPluginFile = "libseine_cuda.so";
inline constexpr const char* kPluginEntry = "seine_cuda_plugin";
using PluginEntry = const CudaPlugin* (*)();

}  // namespace seine
