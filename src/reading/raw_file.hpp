// A file that is only read, by position and without the HDF5 library; and a few of them, kept open. Threads may use
// different files at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "descriptor.hpp"

namespace seine {

// Between rows that are read: cheaper to read over than to call the system again.
inline constexpr std::int64_t kGapBytes = 4096;

// All of these bytes; false: not so, and errno says why, 0 where the file ends before.
bool read_at(const Descriptor& file, std::int64_t offset, std::size_t bytes, void* out);

class RawFile {
 public:
  // Errors: 66 not there or not readable, 65 empty, 71 no more files can be open, 74 the disk fails.
  explicit RawFile(const std::string& path);

  // `path` and `name`, of the dataset, are for messages. Errors: 65 where the file ends before, 74 where the disk
  // fails.
  void read(std::int64_t offset, std::size_t bytes, void* out, const std::string& path, const std::string& name) const;

 private:
  Descriptor file_;
};

// Files by number. Whoever reads takes a file out and gives it back, so nobody else has it meanwhile.
class RawFiles {
 public:
  RawFile take(std::size_t number, const std::string& path);
  void give(std::size_t number, RawFile file);

 private:
  static constexpr std::size_t kKept = 64;

  std::mutex mutex_;
  std::list<std::pair<std::size_t, RawFile>> kept_;  // last used first
};

}  // namespace seine
