// The main job: a pool in, a batch out.
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

}  // namespace seine
