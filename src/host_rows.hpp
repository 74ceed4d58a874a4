// Single rows on the host by the canonical row kernel, and float16: for the CPU backend and for code outside of
// backends.
#pragma once

#include <cstdint>
#include <vector>

namespace seine {

// Squared distances of a row from `count` rows that lie one behind the other.
void distances2(const float* row, const float* others, std::int64_t count, std::int64_t dim, float* out);
// Its inner products with vectors likewise, in float64.
void wide_dots(const float* row, const double* others, std::int64_t count, std::int64_t dim, double* out);

// Canonical squared norm of a row in float64; `wide` receives the row.
double squared_norm(const float* row, std::int64_t dim, std::vector<double>& wide);

// Divides a row by its 2-norm, rounding to float32; a zero row stays zero. `wide` is scratch.
void make_unit(float* row, std::int64_t dim, std::vector<double>& wide);

// float16 to float32, exactly, and back.
void widen(const void* half, std::int64_t count, float* out);
void narrow(const float* values, std::int64_t count, void* half);

}  // namespace seine
