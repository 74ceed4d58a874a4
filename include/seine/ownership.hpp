// Which global rows a rank owns: runs of whole 256-row tiles, dealt round-robin so that sorted pools stay balanced.
// Nothing in a result depends on it.
#pragma once

#include <cstdint>
#include <vector>

namespace seine {

class Ownership {
 public:
  Ownership(std::int64_t rows, int rank, int ranks);
  struct Run {
    std::int64_t first, count;
  };
  const std::vector<Run>& runs() const { return runs_; }
  std::int64_t own() const { return own_; }  // number of rows of this rank
  int owner(std::int64_t row) const;
  std::int64_t local(std::int64_t row) const;  // position among the owner's rows

 private:
  std::int64_t rows_, run_length_, own_ = 0;
  int ranks_;
  std::vector<Run> runs_;
};

}  // namespace seine
