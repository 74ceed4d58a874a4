// Inputs are never modified (contract, section 5): no output may take the place of one.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "seine/request.hpp"

namespace seine {

// Every file that a request reads, globs expanded. Errors as of expand_pool_paths.
std::vector<std::string> input_paths(const PoolRequest& request);

// Where a rename to `path` puts a file, whatever it is called: absolute, with the links of its folders followed.
std::string whole_path(const std::string& path);

// Error 64 where the output of this option is one of the inputs, by whatever path or link, even if none is there yet.
void refuse_to_overwrite(const std::string& option, const std::string& output, std::span<const std::string> inputs);

}  // namespace seine
