// Virtual datasets, whose elements lie in other files: the library reads a missing source as fill values, without a
// word.
#pragma once

#include <string>
#include <vector>

#include "reading/hdf5.hpp"

namespace seine {

// Error 65 or 66 unless every source is there and has what is mapped. `properties`: how dataset `name` of the file at
// `path` was created.
void check_virtual(hid_t properties, const std::vector<hsize_t>& shape, const std::string& path,
                   const std::string& name);

}  // namespace seine
