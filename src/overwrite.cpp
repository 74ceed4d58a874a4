#include "overwrite.hpp"

#include <fmt/format.h>

#include <filesystem>

#include "seine/error.hpp"
#include "seine/pool_paths.hpp"

namespace seine {

std::vector<std::string> input_paths(const PoolRequest& request) {
  std::vector<std::string> paths = expand_pool_paths(request.pool);
  const auto add = [&](const std::vector<std::string>& more) { paths.insert(paths.end(), more.begin(), more.end()); };
  if (!request.labelled_pool.empty()) add(expand_pool_paths(request.labelled_pool));
  for (const auto* lists : {&request.labelled, &request.pending, &request.exclude, &request.candidates}) add(*lists);
  // A list of pool files is an input of its own.
  for (const auto* given : {&request.pool, &request.labelled_pool}) add(*given);
  return paths;
}

std::string whole_path(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  const std::filesystem::path folder = std::filesystem::weakly_canonical(absolute.parent_path(), error);
  return (error ? absolute : folder / absolute.filename()).string();
}

void refuse_to_overwrite(const std::string& option, const std::string& output, std::span<const std::string> inputs) {
  const std::string whole = whole_path(output);
  for (const std::string& input : inputs) {
    std::error_code ignored;  // what is not there cannot be overwritten
    if (whole == whole_path(input) || std::filesystem::equivalent(output, input, ignored))
      throw Error(Exit::usage, fmt::format("{} {}: this would overwrite {}", option, output, input));
  }
}

}  // namespace seine
