// Inner products as tensor cores may form them, for what is proven of their errors.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "seine/backend.hpp"

namespace seine::test {

// A float32 with 10 bits behind the point: cut, or rounded half up.
inline float tf32(float value, bool rounds) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + (rounds ? 0x1000u : 0u)) & ~0x1fffu);
}

// In float64, and the sum of the magnitudes of its terms, of which errors are a share.
struct ExactProduct {
  double value = 0, magnitudes = 0;
};
inline ExactProduct exact_product(std::span<const float> x, std::span<const float> y) {
  ExactProduct product;
  for (std::size_t c = 0; c < x.size(); ++c) {
    const double term = static_cast<double>(x[c]) * static_cast<double>(y[c]);
    product.value += term;
    product.magnitudes += std::abs(term);
  }
  return product;
}

struct TensorCore {
  std::size_t block;  // products that are added at once
  int extra_bits;     // that the sum has beyond float32's while it does
  int parts;          // of the components, that are summed apart and added in the end
  bool backwards = false;
  bool rounds = false;  // float32 inputs to TF32, where they are not cut

  // The addends aligned to the largest of them, each cut off at the last bit, and the sum, too.
  float sum_of(std::span<const double> addends) const {
    double largest = 0;
    for (const double addend : addends) largest = std::max(largest, std::abs(addend));
    if (largest == 0) return 0;
    const int last_bit = std::max(std::ilogb(largest) - 23 - extra_bits, -149);
    double sum = 0;
    for (const double addend : addends) sum += std::trunc(std::ldexp(addend, -last_bit));
    return cut(std::ldexp(sum, last_bit));
  }

  // Of float16 as it is, or of float32 as TF32: products that are exact in float32 (or float64, where they are below
  // its range).
  float product(std::span<const float> x, std::span<const float> y, Element type) const {
    const auto input = [&](float value) {
      return static_cast<double>(type == Element::f16 ? value : tf32(value, rounds));
    };
    std::vector<double> products;
    for (std::size_t c = 0; c < x.size(); ++c) products.push_back(input(x[c]) * input(y[c]));
    if (backwards) std::reverse(products.begin(), products.end());
    std::vector<double> sums;
    const std::size_t size = products.size(), part = (size + static_cast<std::size_t>(parts) - 1) / parts;
    for (std::size_t first = 0; first < size; first += part) {
      double sum = 0;
      for (std::size_t at = first, end = std::min(size, first + part); at < end; at += block) {
        std::vector<double> addends(products.begin() + static_cast<std::ptrdiff_t>(at),
                                    products.begin() + static_cast<std::ptrdiff_t>(std::min(end, at + block)));
        addends.push_back(sum);
        sum = sum_of(addends);
      }
      sums.push_back(sum);
    }
    return sum_of(sums);
  }

 private:
  static float cut(double value) {
    const auto nearest = static_cast<float>(value);
    return std::abs(static_cast<double>(nearest)) > std::abs(value) ? std::nextafter(nearest, 0.0f) : nearest;
  }
};

// The generations: 4, 8 and 16 products at once with 0, 1 and 2 bits more; and as unfavourable as is assumed.
inline std::vector<TensorCore> tensor_cores() {
  std::vector<TensorCore> cores;
  for (const bool backwards : {false, true})
    for (const int parts : {1, 3})
      for (const auto& [block, bits] : {std::pair<std::size_t, int>{4, 0}, {8, 1}, {16, 2}})
        cores.push_back({block, bits, parts, backwards, parts == 3});
  return cores;
}

}  // namespace seine::test
