// What a matrix product proves of distances and similarities, so that most pairs of a row and a vector need not meet.
// Plain functions, which need neither nvcc nor a GPU.
//
// A product p of x and y is off by at most e S + tiny, where S = sum |x_c y_c| <= |x| |y| <= (|x|^2 + |y|^2) / 2:
//   inputs   float16 is multiplied as stored; float32 is cut or rounded to TF32, 10 bits behind the point, so it loses
//            2^-10 of itself at most. Products of two such numbers are exact in float32.
//   sums     A tensor core aligns four or more products and the sum so far to the largest of them, and cuts off what
//            falls below float32's last bit (Fasi, Higham, Mikaitis, Pranesh 2021): 6 * 2^-23 of the largest for four
//            products. Assumed is that each addition, in any order, loses at most 2^-22 of the sum of magnitudes.
//   tiny     Inputs, products and sums below 2^-126 may become 0: 3 dim 2^-126, and dim 2^-126 of |x|^2 + |y|^2.
//            product_tiny is more than twice the first.
// So |x - y|^2 >= (1 - e) (|x|^2 + |y|^2) - 2 p - 2 tiny, of which the canonical float32 kernel loses canonical_error
// more, and dim 2^-149. 32 additions more than there are components pay for norms and bounds in float64 (2^-17 where
// they lose dim 2^-53), for rows of unit length that are longer by 2^-23, and for what the library does at the end.
#pragma once

#include <cmath>
#include <cstdint>

#include "seine/backend.hpp"
#include "seine/row_math.hpp"

namespace seine {

// e, of rows of float16 or of float32, multiplied as TF32. Infinite where sums are too long to say.
inline double product_error(Element type, std::int64_t dim) {
  const double lost = static_cast<double>(dim + 32) * 0x1p-22;
  if (!(lost < 0.5)) return HUGE_VAL;
  const double sums = lost / (1 - lost), rounded = type == Element::f16 ? 0 : 0x1p-9 + 0x1p-20;
  return rounded + sums + rounded * sums;
}

// tiny.
inline double product_tiny(std::int64_t dim) {
  return static_cast<double>(dim) * 0x1p-123;
}

// Canonical squared distances from below.
class DistanceBound {
 public:
  DistanceBound(Element type, std::int64_t dim) {
    const double left = std::fmax(1 - canonical_error(dim), 0);
    of_norms_ = left * (1 - product_error(type, dim));
    of_product_ = -2 * left;
    vanishing_ = 2 * product_tiny(dim);
  }

  // Of rows with these squared norms and that product. Where it is not below a distance, the canonical one is not
  // either; not a number where nothing is known. Rows so long that sums may overflow get 0.
  SEINE_HD double operator()(double x2, double y2, float product) const {
    const double norms = x2 + y2;
    if (!(norms < 0x1p120)) return 0;
    return fma(of_product_, static_cast<double>(product), of_norms_ * norms) - vanishing_;
  }

 private:
  double of_norms_, of_product_, vanishing_;
};

// How much more than a product the canonical inner product of two unit (or zero) rows of float32 may be: e, what the
// canonical kernel loses, and 2^-22 for the float32 addition of this.
inline float similarity_slack(std::int64_t dim) {
  return static_cast<float>((product_error(Element::f32, dim) + canonical_error(dim)) * (1 + 0x1p-20) + 0x1p-22);
}

}  // namespace seine
