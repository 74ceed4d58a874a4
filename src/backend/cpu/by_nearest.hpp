// Nearest picks on the CPU where the picks' distances from each other are known: by the triangle inequality, a pick
// that is far enough from a row's nearest pick cannot be nearer to the row, and the two need not meet.
#pragma once

#include <cstdint>

#include "seine/backend.hpp"
#include "workers.hpp"

namespace seine {

// Backend::apply for RuleKind::nearest with picks.between; picks_x: the picks as float32. Of Backend::kBoundedRows rows
// at a time.
std::int64_t apply_by_nearest(Workers& workers, const Vectors& rows, const float* picks_x, const Picks& picks,
                              double floor, const RowStates& states);

}  // namespace seine
