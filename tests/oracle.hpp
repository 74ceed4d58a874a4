// What the ten strategies must return, written from the contract (sections 5 to 7) and the mathematics in the plainest
// way: no bounds, no rounds, no ranks, float64 throughout. Slow on purpose.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "seine/request.hpp"

namespace seine::test {

enum class Part : std::uint8_t { candidate, bystander, covered };

// A pool as a strategy sees it. Rows [0, rows) are the pool's; the rows of labelled pools follow, up to total().
struct View {
  std::int64_t rows = 0, dim = 0, classes = 0, passes = 1;
  std::vector<float> x = {};         // [total, dim]
  std::vector<double> p = {};        // [total, passes, classes]
  std::vector<std::int64_t> y = {};  // label, or -1
  std::vector<Part> part = {};

  std::int64_t total() const { return static_cast<std::int64_t>(part.size()); }
};

struct Answer {
  std::vector<std::int64_t> rows = {};
  std::vector<float> scores = {};
  std::vector<double> gains = {};
  std::int64_t candidates = 0;
  bool truncated = false;
  Certificate certificate;  // bound: NaN where the contract leaves a choice (submodular, after a merge)
};

Answer expected(const View& view, const Request& request);

// The acquisition score of one row, rounded once to float32. NaN for other names.
float expected_score(const View& view, const std::string& name, std::int64_t row);

// Rows of strategy `random` with this seed.
std::vector<std::int64_t> expected_random(const View& view, std::uint64_t seed, std::int64_t batch);

// The quantity of the certificate for any batch: covering radius, f(covered and batch) - f(covered), mean potential, or
// sum of scores. For brute force.
double objective(const View& view, const Request& request, const std::vector<std::int64_t>& batch);

// log det of I + K / noise over these rows, by Cholesky in long double; diagonal of K as given by the dot products.
double log_det_of(const View& view, const std::vector<std::int64_t>& rows, double noise, bool unit_rows);

}  // namespace seine::test
