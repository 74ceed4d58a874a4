#include "backend/cuda/cublas.hpp"

#include <utility>

#include "backend/shared_library.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

// Numbers of the binary interface: operations, types, ways to compute, and the faults that are told apart.
enum { kPlain = 0, kTransposed = 1 };
enum { kFloat32 = 0, kFloat16 = 2 };
enum { kInFloat32 = 68, kInTf32 = 77, kDefaultAlgorithm = -1 };
enum { kSuccess = 0, kNoMemory = 3, kInvalidValue = 7, kNotSupported = 15 };

Exit exit_of(int status) {
  switch (status) {
    case kNoMemory:
      return Exit::system;
    case kInvalidValue:
    case kNotSupported:
      return Exit::bug;
    default:
      return Exit::no_device;
  }
}

}  // namespace

// The functions that are used, of the library that was found.
struct Cublas::Functions {
  int (*create)(void** handle);
  int (*destroy)(void* handle);
  int (*get_version)(void* handle, int* version);
  int (*set_stream)(void* handle, void* stream);
  const char* (*status_string)(int status);
  int (*gemm)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
              int type_a, int lda, const void* b, int type_b, int ldb, const void* beta, void* c, int type_c, int ldc,
              int compute, int algorithm);

  explicit Functions(const SharedLibrary& library) {
    library.find("cublasCreate_v2", create);
    library.find("cublasDestroy_v2", destroy);
    library.find("cublasGetVersion_v2", get_version);
    library.find("cublasSetStream_v2", set_stream);
    library.find("cublasGetStatusString", status_string);
    library.find("cublasGemmEx", gemm);
  }

  void check(int status, const char* while_what) const {
    if (status != kSuccess)
      throw Error(exit_of(status), std::string("cuBLAS: ") + status_string(status) + ", while " + while_what);
  }
};

std::unique_ptr<Cublas> Cublas::open(void* stream, std::string& why, std::initializer_list<const char*> names) {
  try {
    auto functions = std::make_unique<const Functions>(SharedLibrary(names));
    void* handle = nullptr;
    functions->check(functions->create(&handle), "starting it");
    std::unique_ptr<Cublas> cublas(new Cublas(std::move(functions), handle));
    int version = 0;
    cublas->functions_->check(cublas->functions_->get_version(handle, &version), "starting it");
    cublas->functions_->check(cublas->functions_->set_stream(handle, stream), "starting it");
    why = "cuBLAS " + std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100);
    return cublas;
  } catch (const Error& error) {
    why = error.what();
    return nullptr;
  }
}

Cublas::Cublas(std::unique_ptr<const Functions> functions, void* handle)
    : functions_(std::move(functions)), handle_(handle) {}

Cublas::~Cublas() {
  functions_->destroy(handle_);
}

// The library has columns where we have rows: of `out` it sees the transpose, [count, rows], and x and y as columns.
void Cublas::multiply(const Field& x, std::int64_t rows, const Field& y, std::int64_t count, float* out,
                      Float32 float32) const {
  const float one = 1, zero = 0;
  const bool half = x.type == Element::f16;
  const int type = half ? kFloat16 : kFloat32, dim = static_cast<int>(x.dim);
  functions_->check(
      functions_->gemm(handle_, kTransposed, kPlain, static_cast<int>(count), static_cast<int>(rows), dim, &one, y.data,
                       type, dim, x.data, type, dim, &zero, out, kFloat32, static_cast<int>(count),
                       half || float32 == Float32::whole ? kInFloat32 : kInTf32, kDefaultAlgorithm),
      "multiplying");
}

}  // namespace seine
