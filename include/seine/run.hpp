// The main job: a pool in, a batch out. And `seine score`, which stops after the scores.
#pragma once

#include "seine/backend.hpp"
#include "seine/batch_file.hpp"
#include "seine/comm.hpp"
#include "seine/console.hpp"
#include "seine/request.hpp"
#include "seine/resume.hpp"

namespace seine {

// Error 64 for a request that contradicts itself or the table of strategies; touches no file. Every rank alike.
void check_request(const Request& request);

// Called on one rank. Error 64 where an output is an input or ends in an unknown way, 73 where it cannot be created or
// is somebody else's file.
void check_outputs(const Request& request);

// Collective. Reads the pool, selects, certifies; the same Batch on every rank. Writes nothing but the checkpoint of
// `resume`, where there is one.
Batch select(const Request& request, const Comm& comm, Backend& backend, const Console& console,
             Resume* resume = nullptr);

// Collective. select, then rank 0 writes request.out and removes the checkpoint. The Batch has timing.write. Error 73
// where another run writes one of these files.
Batch select_and_write(const Request& request, const Comm& comm, Backend& backend, const Console& console);

// `seine score`: for every pool file one of the same base name in `folder`, with /score float32 [n] and the root
// attributes strategy, request, pool_fingerprint. Collective.
struct ScoreRequest {
  PoolRequest pool;
  std::string strategy;  // a strategy that scores rows: entropy, least_confidence, margin, bald
  std::map<std::string, std::string> set;
  std::string out;  // folder, made if it is not there

  std::string to_json() const;
};
// Returns their paths, in the order of the pool files.
std::vector<std::string> write_scores(const ScoreRequest& request, const Comm& comm, Backend& backend,
                                      const Console& console);

}  // namespace seine
