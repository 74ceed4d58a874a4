// `seine inspect`: reads the whole pool, checks it, and says what is in it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seine/comm.hpp"
#include "seine/console.hpp"
#include "seine/request.hpp"

namespace seine {

struct Inspection {
  std::int64_t rows = 0;
  std::vector<std::string> files;
  std::int64_t dim = 0, classes = 0, passes = 0;
  std::vector<std::pair<std::string, std::string>> types;  // dataset, type
  std::int64_t labelled = 0;
  std::string ids;  // "row number", "integer", "text"
  double smallest_norm = 0, mean_norm = 0, largest_norm = 0;
  std::int64_t zero_norms = 0;
  std::vector<std::int64_t> class_histogram;  // argmax of the probabilities, or reference classes
  std::vector<std::string> faults;            // up to 20

  std::string to_json() const;  // keys: rows files dim classes passes types labelled ids norms class_histogram faults
  std::string to_text() const;
};

// Collective. Faults in the data are collected, not thrown: up to 20, in order of the rows. What keeps the pool from
// being opened at all (no such file, wrong option) is thrown.
Inspection inspect(const PoolRequest& request, const Comm& comm, const Console& console);

}  // namespace seine
