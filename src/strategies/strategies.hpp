// One function per file of this folder; table.cpp puts them in order.
#pragma once

#include "engines/log_determinant.hpp"
#include "seine/cover.hpp"
#include "seine/pick.hpp"
#include "seine/strategy.hpp"

namespace seine {

Entry random_entry();
Entry entropy_entry();
Entry least_confidence_entry();
Entry margin_entry();
Entry bald_entry();
Entry k_center_entry();
Entry k_means_pp_entry();
Entry badge_entry();
Entry facility_location_entry();
Entry log_det_entry();

// A parameter's value that is none of the choices: error 64.
[[noreturn]] void bad_parameter(const Request& request, std::string_view name, std::string_view expected);

}  // namespace seine
