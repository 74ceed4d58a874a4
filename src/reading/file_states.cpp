#include "reading/file_states.hpp"

#include "seine/error.hpp"

namespace seine {
namespace {

bool is_same(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino && a.st_size == b.st_size &&
         a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec;
}

}  // namespace

void FileStates::add(std::span<const std::string> paths) {
  for (const std::string& path : paths) {
    struct stat state {};
    if (::stat(path.c_str(), &state) == 0) states_.emplace_back(path, state);
  }
}

void FileStates::check() const {
  for (const auto& [path, before] : states_) {
    struct stat now {};
    if (::stat(path.c_str(), &now) == 0 && !is_same(before, now))
      throw Error(Exit::bad_data, path + ": written to or replaced while this run read it");
  }
}

}  // namespace seine
