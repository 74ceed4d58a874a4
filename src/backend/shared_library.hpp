// A library that is looked for where it is asked for, so that without it there is a reason and no failure to start.
// Never unloaded: those that are opened so have threads of their own, or code on a device.
#pragma once

#include <dlfcn.h>

#include <initializer_list>
#include <string>

#include "seine/error.hpp"

namespace seine {

class SharedLibrary {
 public:
  // The first that is found. Error 69 with the loader's own text about the first name where there is none.
  explicit SharedLibrary(std::initializer_list<const char*> names) {
    std::string fault;
    for (const char* name : names) {
      library_ = dlopen(name, RTLD_NOW | RTLD_LOCAL);
      if (library_) return;
      if (fault.empty()) fault = dlerror();
    }
    throw Error(Exit::no_device, fault);
  }

  // Error 69 with the loader's own text where there is no such function.
  template <class Function>
  void find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    if (!function) throw Error(Exit::no_device, dlerror());
  }

 private:
  void* library_ = nullptr;
};

}  // namespace seine
