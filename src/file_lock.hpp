// One run at a time writes a file: a lock on a file beside it that says who writes.
#pragma once

#include <string>

#include "descriptor.hpp"

namespace seine {

class FileLock {
 public:
  // Error 73 that names host, process and time of the run that has the lock. A run that has died has it no more,
  // however it died. Where no lock can be had (a folder that cannot be written, a file system without locks) nobody is
  // kept out.
  explicit FileLock(const std::string& path);
  ~FileLock();  // the file beside it vanishes
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  bool take();

  std::string path_, lock_path_;
  Descriptor file_;
};

}  // namespace seine
