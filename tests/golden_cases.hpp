// The golden requests: one per strategy and reduction, each with its pool. Also what another device must reproduce.
#pragma once

#include <string>
#include <vector>

#include "selecting.hpp"

namespace seine::test {

// 1,200 rows with labelled, pending and excluded ones, three shards, seven dimensions more than a lane group.
inline Scenario golden_scenario() {
  Scenario scenario{.pool = random_pool(1200, 39, 5, 4, 77), .storage = {.shard_rows = even_shards(1200, 3)}};
  add_number_ids(scenario.pool);
  scenario.lists = {.labelled = {7, 600, 601, 1199}, .pending = {64}, .excluded = {0, 1, 2, 3, 900}};
  return scenario;
}

struct GoldenCase {
  std::string name;
  Request request;
};

inline std::vector<GoldenCase> golden_cases() {
  std::vector<GoldenCase> cases;
  for (const Entry& entry : strategies()) {
    const Request request = request_for(std::string(entry.name), 40, 20240607);
    cases.push_back({request.strategy + ".exact", request});
    cases.push_back({request.strategy + ".merge", merged(request, 7, 3)});
  }
  return cases;
}

}  // namespace seine::test
