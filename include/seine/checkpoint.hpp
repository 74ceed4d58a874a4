// The content of a checkpoint file: the picks of every selection so far, and what is known of single rows where it was
// dear to find out. None of it depends on ranks, threads, shards or device.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "seine/request.hpp"

namespace seine {

// Facility location: the gain of a candidate after `known_at` picks, in the units of the engine.
struct KnownGain {
  std::int64_t row;
  double gain;
  std::int64_t known_at;
};

// How far one selection has got.
struct Progress {
  Selection selection;
  std::vector<double> moments;     // of each pick: what a rule wants to know beside its vector; pick_falling only
  std::vector<double> represents;  // Picked::represents, when it is finished
  std::vector<KnownGain> gains;    // while it is not; of rows of this rank, of all ranks in a file
  bool finished = false;
};
inline const Progress kNoProgress;

// Which selection of a run: a node of the merge tree, or {0, 0} for the one of an exact run.
struct Place {
  int level = 0;  // 0: a partition
  std::int64_t node = 0;
  auto operator<=>(const Place&) const = default;
};

// The content of a file: what it belongs to, by key, and all selections.
struct Checkpoint {
  // The key of the whole path of the batch. The other facts of a request must agree with it; this one may change.
  static constexpr const char* kOut = "out";

  std::map<std::string, std::string> facts;
  std::map<Place, Progress> selections;

  // In words: how many picks and, where there are any, gains.
  std::string summary() const;

  std::string to_bytes() const;
  // Error 65 where these are not the bytes of a checkpoint, or were damaged.
  static Checkpoint from_bytes(std::string_view bytes, const std::string& path);
  // Whether a file that begins so was one, damaged or not.
  static bool begins(std::string_view bytes);
};

}  // namespace seine
