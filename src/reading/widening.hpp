// Stored floats as wider ones, without rounding: every float16 is a float32, every float32 a float64.
//
// In place, so that a read needs no second buffer: the `count` stored values lie at the end of the memory of `out`.
#pragma once

#include <cstdint>

namespace seine {

void widen_halves(float* out, std::int64_t count, bool swapped);  // swapped: stored big-endian
void widen_halves(double* out, std::int64_t count, bool swapped);
void widen_singles(double* out, std::int64_t count);

}  // namespace seine
