// A checkpoint on the disk: FILE and the generation before it, FILE.previous. No other file is ever harmed.
#pragma once

#include <string>
#include <utility>

#include "seine/console.hpp"

namespace seine {

class CheckpointFiles {
 public:
  explicit CheckpointFiles(std::string path) : path_(std::move(path)) {}

  // The bytes of the checkpoint that a run goes on from; empty: there is none. It is the older one, with a warning,
  // where the newest is damaged. What has not even the beginning of one is moved to NAME.damaged, beside a whole one.
  // Error 65 where no whole one is among them; 73 where one of the two is no regular file, or cannot be moved.
  std::string read(const Console& console);
  // Removes both. Error 73, and both stay, where one is no regular file or, without `force`, no checkpoint.
  void discard(bool force) const;
  // A new generation. Error 73.
  void write(const std::string& bytes);
  // After success.
  void remove() const;
  bool are_there() const;  // one of them

 private:
  std::string previous() const { return path_ + ".previous"; }

  std::string path_;
  bool newest_good_ = false;  // the newest file may become the older one
};

}  // namespace seine
