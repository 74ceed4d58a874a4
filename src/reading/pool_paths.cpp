#include "seine/pool_paths.hpp"

#include <fmt/format.h>
#include <glob.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>

#include "seine/error.hpp"

namespace seine {
namespace {

// Runs of digits compare as numbers, so that part-2 comes before part-10; everything else by bytes.
bool naturally_before(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      const auto number = [&](const std::string& text, std::size_t& at) {
        const std::size_t first = std::min(text.find_first_not_of('0', at), text.size());
        while (at < text.size() && digit(text[at])) ++at;
        return std::string_view(text).substr(std::min(first, at), at - std::min(first, at));
      };
      const std::string_view x = number(a, i), y = number(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
      ++i, ++j;
    }
  }
  if (i < a.size() || j < b.size()) return i == a.size();
  return a < b;  // they differ in leading zeros at most
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

void check_there(const std::string& path) {
  if (!is_there(path)) throw Error(Exit::no_input, path + ": no such file");
}

std::vector<std::string> read_path_list(const std::string& list) {
  std::ifstream file(list);
  if (!file || std::filesystem::is_directory(list))
    throw Error(Exit::no_input, fmt::format("{}: cannot be read: {}", list, std::strerror(errno ? errno : EISDIR)));
  std::vector<std::string> paths;
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos || line[first] == '#') continue;
    paths.push_back(line.substr(first, line.find_last_not_of(" \t\r") + 1 - first));
  }
  if (file.bad()) throw Error(Exit::io, list + ": cannot be read to its end");
  if (paths.empty()) throw Error(Exit::bad_data, list + ": expected one path per line, found none");
  for (const std::string& path : paths) check_there(path);
  return paths;
}

void expand_glob(const std::string& pattern, std::vector<std::string>& paths) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), GLOB_ERR | GLOB_NOSORT, nullptr, &found);
  for (std::size_t i = 0; status == 0 && i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  ::globfree(&found);
  if (status == GLOB_NOSPACE) throw Error(Exit::system, "out of memory while expanding " + pattern);
  if (status == GLOB_ABORTED) throw Error(Exit::no_input, pattern + ": a folder of this pattern cannot be read");
  if (status != 0) throw Error(Exit::no_input, pattern + ": no file matches");
}

}  // namespace

std::vector<std::string> expand_pool_paths(std::span<const std::string> given) {
  if (given.size() == 1 && given[0].ends_with(".txt")) {
    check_there(given[0]);
    return read_path_list(given[0]);
  }
  std::vector<std::string> paths;
  for (const std::string& path : given) {
    if (path.find_first_of("*?[") != std::string::npos && !is_there(path)) {
      expand_glob(path, paths);
    } else {
      check_there(path);
      paths.push_back(path);
    }
  }
  std::vector<std::pair<std::string, std::string>> keyed;  // full path, path as given
  for (std::string& path : paths)
    keyed.emplace_back(std::filesystem::absolute(path).lexically_normal().string(), std::move(path));
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return naturally_before(a.first, b.first); });
  for (std::size_t i = 0; i < paths.size(); ++i) paths[i] = std::move(keyed[i].second);
  return paths;
}

std::vector<std::string> pool_paths(const Comm& comm, std::span<const std::string> given) {
  const auto mine = comm.agree([&] { return comm.is_root() ? expand_pool_paths(given) : std::vector<std::string>(); });
  return comm.gather(std::span<const std::string>(mine));  // only rank 0 has any
}

}  // namespace seine
