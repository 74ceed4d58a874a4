// Facility location on the CPU: what candidates gain over ground rows, and coverage. See Backend, whose calls these
// are.
#pragma once

#include <cstdint>
#include <span>

#include "backend/workers.hpp"
#include "seine/backend.hpp"

namespace seine {

void add_gains(Workers& workers, const Field& ground, const Band& band, const double* weight, FixedPoint fixed,
               const Field& candidates, std::int64_t count, std::int64_t* gains);
std::int64_t add_first_gains(Workers& workers, const Field& ground, const Band& all, const double* weight,
                             FixedPoint fixed, const Field& candidates, const ShadowFields& shadows,
                             std::span<Near* const> lists, std::int64_t room, std::int64_t* gains, std::int64_t* near);
void add_gain_bounds(Workers& workers, const ShadowFields& shadows, const Band& all, const double* weight,
                     FixedPoint fixed, std::int64_t count, std::int64_t* bounds, std::int64_t* near);
void gains_of_lists(Workers& workers, std::span<Near* const> lists, const float* best, const double* weight,
                    FixedPoint fixed, std::int64_t* near, std::int64_t* gains);
void raise_coverage(Workers& workers, const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count,
                    float* best);

}  // namespace seine
