// `seine evaluate`: judges batches against the pool, beside random batches of the same size (contract, section 1).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "seine/backend.hpp"
#include "seine/comm.hpp"
#include "seine/console.hpp"
#include "seine/request.hpp"

namespace seine {

struct EvaluationRequest {
  PoolRequest pool;
  std::vector<std::string> picked;  // id lists or batch files
  int random = 5;  // random batches: those of `select --strategy random`, seeds seed + 1 .. seed + random
  std::uint64_t seed = 0;
  std::optional<std::int64_t> sample;            // measure over this many rows, drawn by (seed, row); absent: all
  Normalize normalize = Normalize::by_strategy;  // by_strategy: none
  std::string out;                               // .json or .csv, or empty
};

struct Evaluation {
  std::vector<std::string> files;              // the columns, as given
  std::vector<std::string> metrics;            // the rows of the table
  std::vector<std::vector<double>> values;     // [metric][file]; undefined: NaN
  std::vector<double> random_mean, random_sd;  // [metric]; of batches of the size of the first file

  std::string to_json() const;
  std::string to_csv() const;    // header metric,<file>...,random_mean,random_sd
  std::string to_table() const;  // for people
};

// Collective; the same answer on every rank. Writes nothing.
Evaluation evaluate(const EvaluationRequest& request, const Comm& comm, Backend& backend, const Console& console);

}  // namespace seine
