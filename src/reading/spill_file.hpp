// A temporary file of one process, for rows that would be dear to read again. It has no name, so nothing is left of it
// however the process ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "descriptor.hpp"

namespace seine {

// Threads may write and read at once, different bytes.
class SpillFile {
 public:
  // Of so many bytes, in $TMPDIR or /tmp. Error 73 where that is no disk, or one without room for them.
  explicit SpillFile(std::int64_t bytes);

  // Error 74.
  void write(std::int64_t offset, std::size_t bytes, const void* from) const;
  void read(std::int64_t offset, std::size_t bytes, void* out) const;

 private:
  [[noreturn]] void fail(const char* what) const;

  std::string folder_;
  Descriptor file_;
};

}  // namespace seine
