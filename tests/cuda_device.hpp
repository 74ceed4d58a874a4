// The CUDA device of this machine, for tests that need one, or why there is none: the text that they are skipped with.
#pragma once

#include <memory>
#include <string>

#include "seine/backend.hpp"
#include "seine/error.hpp"

namespace seine::test {

struct Cuda {
  std::unique_ptr<Backend> backend;
  std::string why_not;  // without one
  Exit code = Exit::done;
};

inline Cuda open_cuda() {
  Cuda cuda;
  std::string why;
  try {
    cuda.backend = make_backend("cuda", {.threads = 1, .local_rank = 0}, why);
  } catch (const Error& error) {  // thrown inside the plug-in where there is one
    cuda.why_not = error.what();
    cuda.code = error.code();
  }
  return cuda;
}

}  // namespace seine::test
