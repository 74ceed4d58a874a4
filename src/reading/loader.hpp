// From pool files to a Pool: every rank reads its own rows, scores them on the way, and keeps what the strategy needs.
// Each thread takes blocks of rows and does everything with them while they are in its cache, so reading, checking,
// hashing and scoring overlap. Scores are computed on the host, whatever the device: a row is looked at once, which
// costs no more than sending it.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "memory_need.hpp"
#include "seine/console.hpp"
#include "seine/input.hpp"
#include "seine/pool.hpp"

namespace seine {

// What the memory of a rank has room for beside what must be in it, and whether the vectors are part of that: all ranks
// stream, or none. One for all pools of a request.
struct Memory {
  std::shared_ptr<Room> room;  // where vectors are: of a device of its own, or the host's
  std::shared_ptr<Room> host;
  bool streams = false;
  bool limited = false;  // what does not fit is an error
};

// Collective. Error 71 with the numbers where not even what is known of every row fits, on the host or a device.
Memory memory_for(const Comm& comm, const MemoryNeed& need, const PoolRequest& request);

struct Loaded {
  Pool pool;
  std::string fingerprint;  // of the content read, whatever the sharding
  double read_seconds = 0, score_seconds = 0;
  std::vector<Candidate> best;  // where wanted: this rank's best candidates; the pool has no scores then
};

// Collective. Vectors that are streamed are read again when they are asked for: from the pool's files, or, where these
// have no single rows to read, from a temporary file on the way.
Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted, const Memory& memory,
            const Console* console);
// The same for the only pool of a request.
Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted,
            const PoolRequest& request, const Console* console);

// Collective. Scores of single rows by global number, in the order given, read again.
std::vector<float> scores_of(const Pool& pool, const PoolFiles& files, ScoreKind kind,
                             std::span<const std::int64_t> rows);

}  // namespace seine
