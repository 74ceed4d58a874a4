// How every output comes about: written to a temporary name in the same folder, synced, read back, renamed. Whole or
// not at all.
#pragma once

#include <string>

namespace seine {

// Removes what a dead process left for `path`, and in the destructor what was not committed. Error 73, whatever fails;
// at once where `path` is a folder.
// main ignores SIGXFSZ, so that a file above the limit of its size is an error like any other.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  const std::string& temporary() const { return temporary_; }
  void write_text(const std::string& text);  // the whole content; synced and read back
  void commit();                             // fsync file, rename, fsync folder

 private:
  std::string path_, temporary_;
  bool committed_ = false;
};

// Of this machine: part of the names of temporary files, and of what a lock says of its holder.
std::string host_name();

// With the folders above it, where they are missing; error 73.
void make_folder(const std::string& path);

}  // namespace seine
