// Matrix products by cuBLAS, loaded where it is asked for, so that without the library there is a reason and no failure
// to start.
//
// This file needs neither CUDA nor the library's header, which compilers are often installed without: what it calls has
// had the same binary interface since CUDA 11.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>

#include "seine/backend.hpp"

namespace seine {

class Cublas {
 public:
  // Its calls go to `stream`, of the current device. Null where there is none that works; `why` says so, or which
  // version was found. `names`: what to look for; those of the toolkits.
  static std::unique_ptr<Cublas> open(void* stream, std::string& why,
                                      std::initializer_list<const char*> names = {"libcublas.so.13", "libcublas.so.12",
                                                                                  "libcublas.so"});
  Cublas(const Cublas&) = delete;
  Cublas& operator=(const Cublas&) = delete;
  ~Cublas();

  enum class Float32 { as_tf32, whole };

  // Begins to write out[i * count + j], in float32 the inner product of row i of x and row j of y, both float16 or both
  // float32. product_error says how far off it may be, of float32 as TF32; whole, they are only there to be measured.
  void multiply(const Field& x, std::int64_t rows, const Field& y, std::int64_t count, float* out,
                Float32 float32 = Float32::as_tf32) const;

 private:
  struct Functions;
  Cublas(std::unique_ptr<const Functions> functions, void* handle);

  std::unique_ptr<const Functions> functions_;
  void* handle_;
};

}  // namespace seine
