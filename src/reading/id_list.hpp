// The files that list ids.
#pragma once

#include <string>
#include <vector>

namespace seine {

// The ids in a list file, as text in the order of the file: .csv (RFC 4180) with a column `id`, .h5 with /ids, a .json
// batch file, or one id per line (blank lines are skipped, CRLF accepted). Errors: 66 no such file, 65 not such a list.
std::vector<std::string> read_id_list(const std::string& path);

}  // namespace seine
