// Products by cuBLAS on this machine's GPU are no further off than product_error says, on vectors that are made to hurt
// and in the shapes that the backend asks for: whether the assumptions of filter_bound.hpp are true here.
#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/cuda/cublas.hpp"
#include "backend/cuda/filter_bound.hpp"
#include "tensor_core.hpp"
#include "vectors_that_hurt.hpp"

namespace seine::test {
namespace {

void check(cudaError_t fault) {
  if (fault != cudaSuccess) throw std::runtime_error(cudaGetErrorString(fault));
}

// Memory that host and device see.
template <class T>
class Shared {
 public:
  explicit Shared(std::size_t size) { check(cudaMallocManaged(&data_, size * sizeof(T))); }
  Shared(const Shared&) = delete;
  Shared& operator=(const Shared&) = delete;
  ~Shared() { cudaFree(data_); }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
};

class Products : public testing::Test {
 protected:
  void SetUp() override {
    int devices = 0;
    if (const cudaError_t fault = cudaGetDeviceCount(&devices); fault != cudaSuccess || devices == 0)
      GTEST_SKIP() << cudaGetErrorString(fault);
    check(cudaSetDevice(0));
    std::string why;
    cublas_ = Cublas::open(nullptr, why);
    if (!cublas_) GTEST_SKIP() << why;
    std::printf("[   info   ] %s\n", why.c_str());
  }

  // The largest error of all pairs of a row of x and one of y, of what is allowed.
  double largest_error(const std::vector<Values>& x, const std::vector<Values>& y, Element type) const {
    const bool half = type == Element::f16;
    const auto dim = static_cast<std::int64_t>(x.front().size());
    const Shared<float> out(x.size() * y.size());
    const Shared<std::byte> rows(x.size() * x.front().size() * 4), others(y.size() * x.front().size() * 4);
    put(x, half, rows.data());
    put(y, half, others.data());
    cublas_->multiply({rows.data(), type, dim}, static_cast<std::int64_t>(x.size()), {others.data(), type, dim},
                      static_cast<std::int64_t>(y.size()), out.data());
    check(cudaDeviceSynchronize());
    const double error = product_error(type, dim);
    double largest = 0;
    for (std::size_t i = 0; i < x.size(); ++i)
      for (std::size_t j = 0; j < y.size(); ++j) {
        const ExactProduct exact = exact_product(x[i], y[j]);
        const double off = std::abs(static_cast<double>(out.data()[i * y.size() + j]) - exact.value);
        largest = std::max(largest, off / (error * exact.magnitudes + product_tiny(dim)));
      }
    return largest;
  }

 private:
  static void put(const std::vector<Values>& rows, bool half, std::byte* to) {
    for (const Values& row : rows)
      for (const float value : row) {
        const std::uint16_t bits = _cvtss_sh(value, 0);
        std::memcpy(to, half ? static_cast<const void*>(&bits) : &value, half ? 2 : 4);
        to += half ? 2 : 4;
      }
  }

  std::unique_ptr<Cublas> cublas_;
};

TEST_F(Products, AreNoFurtherOffThanIsAllowed) {
  for (const Element type : {Element::f16, Element::f32}) {
    const bool half = type == Element::f16;
    double largest = 0;
    for (const std::int64_t dim : {1, 5, 64, 100, 512, 1000, 4096}) {
      std::vector<Values> x, y;
      for (const Pair& pair : pairs_that_hurt(dim, half ? 1e-7f : 1e-20f, half ? 65504.0f : 1e12f)) {
        x.push_back(half ? as_float16(pair.x) : pair.x);
        y.push_back(half ? as_float16(pair.y) : pair.y);
      }
      largest = std::max(largest, largest_error(x, y, type));
    }
    std::mt19937_64 random(1);
    std::normal_distribution<float> normal(0.5f, 1);
    for (const std::int64_t dim : {128, 512, 784}) {  // many rows and 256 picks
      std::vector<Values> rows(3000, Values(static_cast<std::size_t>(dim)));
      for (Values& row : rows) {
        for (float& value : row) value = normal(random);
        if (half) row = as_float16(row);
      }
      largest = std::max(largest, largest_error(rows, {rows.begin(), rows.begin() + 256}, type));
    }
    std::printf("[   info   ] %s: the largest error is %.2g of what is allowed\n", half ? "float16" : "TF32", largest);
    EXPECT_LE(largest, 1);
  }
}

}  // namespace
}  // namespace seine::test
