// Writes a batch as .h5, .csv or .json, by ending (contract, section 3); whole or not at all.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "seine/ids.hpp"
#include "seine/request.hpp"

namespace seine {

struct Batch {
  Selection selection;
  IdColumn ids;  // of selection.rows
  std::string strategy, request_json, pool_fingerprint, digest;
  std::uint64_t seed = 0;
  std::int64_t pool_rows = 0, candidates = 0;
  bool truncated = false;
  Certificate certificate;
  Timing timing;
};

// XXH3-128 in hex of the rows as little-endian int64.
std::string digest_of(std::span<const std::int64_t> rows);

// Whether `request` may have its `out`, before any work. Error 64 for an unknown ending. Error 73 where the file cannot
// be created, which is tried, so one rank is enough; and, without `force`, where a file is there whose content somebody
// might miss: anything but nothing, or a batch of this same request. A .csv does not say of which request it is, and
// counts only where a checkpoint is there of a run that had this output; errors as of reading one.
void check_output(const Request& request);

// Called on one rank. Its own seconds go into /timing as `write`. Error 73, whatever fails.
void write_batch(const std::string& path, const Batch& batch);

}  // namespace seine
