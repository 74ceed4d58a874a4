// Texts and numbers as they stand in CSV files and tables.
#pragma once

#include <string>

namespace seine {

// As a field of RFC 4180.
std::string csv_field(const std::string& text);

// The fewest digits that read back as the same float64, or so many; `nan` never has a sign.
std::string number_text(double value);
std::string number_text(double value, int digits);

}  // namespace seine
