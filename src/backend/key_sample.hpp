// What Backend::nth looks at, so that the backends look at the same keys.
#pragma once

#include <algorithm>
#include <cstdint>

#include "seine/backend.hpp"

namespace seine {

// Of many rows, every so many-th: `size` keys, the row of each `stride` behind the one before. What is asked for is the
// `place`-th largest of these, counted from 1.
struct KeySample {
  std::int64_t stride, size, place;

  KeySample(std::int64_t rows, std::int64_t count)
      : stride(std::max<std::int64_t>(1, rows / Backend::kExactRows)),
        size((rows + stride - 1) / stride),
        place((count + stride - 1) / stride) {}
};

}  // namespace seine
