// Whether files are still those that were read before: a run reads a pool more than once.
#pragma once

#include <sys/stat.h>

#include <span>
#include <string>
#include <utility>
#include <vector>

namespace seine {

class FileStates {
 public:
  void add(std::span<const std::string> paths);  // as they are now

  // Error 65 that names the first file that was written to or replaced since. One that is gone is no such file: who
  // needs it again says so.
  void check() const;

 private:
  std::vector<std::pair<std::string, struct stat>> states_;
};

}  // namespace seine
