// A library with the functions of cuBLAS that are used, over the memory of the host: products of column-major matrices,
// as its documentation has them. They are formed as a tensor core may, or, where SEINE_FAKE_CUBLAS is `errs`, they are
// as much too small as product_error allows. `fails`: no device.
#include <immintrin.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "backend/cuda/filter_bound.hpp"
#include "tensor_core.hpp"

namespace {

using namespace seine;

bool mode_is(const char* name) {
  const char* mode = std::getenv("SEINE_FAKE_CUBLAS");
  return mode && std::string(mode) == name;
}

// Entry (row, column) of a matrix, or of its transpose.
float entry(const void* matrix, int type, int leading, bool transposed, int row, int column) {
  const std::int64_t at = transposed ? std::int64_t{row} * leading + column : std::int64_t{column} * leading + row;
  return type == 2 ? _cvtsh_ss(static_cast<const std::uint16_t*>(matrix)[at]) : static_cast<const float*>(matrix)[at];
}

float product(const std::vector<float>& x, const std::vector<float>& y, Element type) {
  if (mode_is("errs")) {
    const test::ExactProduct exact = test::exact_product(x, y);
    const double error = product_error(type, static_cast<std::int64_t>(x.size()));
    return std::nextafter(static_cast<float>(exact.value - error * exact.magnitudes), HUGE_VALF);
  }
  return test::TensorCore{4, 0, 1}.product(x, y, type);
}

}  // namespace

extern "C" {

int cublasCreate_v2(void** handle) {
  static int device;
  *handle = &device;
  return mode_is("fails") ? 1 : 0;
}
int cublasDestroy_v2(void*) {
  return 0;
}
int cublasGetVersion_v2(void*, int* version) {
  *version = 120304;
  return 0;
}
int cublasSetStream_v2(void*, void*) {
  return 0;
}
const char* cublasGetStatusString(int status) {
  return status == 1 ? "the fake has no device" : "the fake was called wrongly";
}
int cublasGemmEx(void*, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
                 int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c,
                 int ldc, int compute, int) {
  constexpr int kInvalidValue = 7;
  if (*static_cast<const float*>(alpha) != 1 || *static_cast<const float*>(beta) != 0 || type_a != type_b ||
      type_c != 0 || (type_a != 0 && type_a != 2) || compute != (type_a == 2 ? 68 : 77) || ldc < m ||
      lda < (transpose_a ? k : m) || ldb < (transpose_b ? n : k))
    return kInvalidValue;
  std::vector<float> x(static_cast<std::size_t>(k)), y(x.size());
  for (int j = 0; j < n; ++j)
    for (int i = 0; i < m; ++i) {
      for (int l = 0; l < k; ++l) {
        x[static_cast<std::size_t>(l)] = entry(a, type_a, lda, transpose_a != 0, i, l);
        y[static_cast<std::size_t>(l)] = entry(b, type_b, ldb, transpose_b != 0, l, j);
      }
      static_cast<float*>(c)[std::int64_t{j} * ldc + i] = product(x, y, type_a == 2 ? Element::f16 : Element::f32);
    }
  return 0;
}
}
