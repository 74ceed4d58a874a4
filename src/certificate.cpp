#include "seine/certificate.hpp"

namespace seine {

double certificate_ratio(double value, double bound) {
  return value == 0 && bound == 0 ? 1 : value / bound;
}

}  // namespace seine
