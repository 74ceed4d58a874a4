// A configuration file: every option of a command as a TOML key, `score-power` or `score_power`.
#pragma once

#include <string>
#include <vector>

#include "cli/options.hpp"

namespace seine {

// Gives the options of the file to those that the command line did not give; KEY=VALUE pairs are merged key by key.
// Errors: 66 no such file; 64 not TOML (with the line), an unknown key (with the known ones), a value of a wrong type.
void read_config(const std::string& path, std::vector<Option>& options);

}  // namespace seine
