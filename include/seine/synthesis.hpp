// `seine synth`: a seeded synthetic pool in shards; the same rows for any number of ranks and shards.
#pragma once

#include <cstdint>
#include <string>

#include "seine/comm.hpp"
#include "seine/console.hpp"

namespace seine {

struct SynthesisRequest {
  std::int64_t rows = 10000;
  std::int64_t dim = 64;
  std::int64_t classes = 10;
  std::int64_t passes = 0;     // 0: probabilities [N,C]
  std::int64_t clusters = 10;  // Gaussian clusters; cluster k belongs to class k mod classes
  double spread = 1.0;         // standard deviation inside a cluster, in units of the distance between centres
  double labelled = 0;         // share of rows with a label >= 0
  std::string dtype = "f32";   // f16 | f32 | f64
  std::string ids = "int";     // none | int | string
  int shards = 1;
  std::uint64_t seed = 0;
  std::string out;  // folder: part-00000.h5 ...
};

// Collective; shards are dealt to ranks. Every file appears by an atomic rename.
void synthesise(const SynthesisRequest& request, const Comm& comm, const Console& console);

}  // namespace seine
