// Runs the library on a test scenario and compares the batch with what it must be.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "oracle.hpp"
#include "pools.hpp"
#include "seine/run.hpp"
#include "seine/strategy.hpp"
#include "world.hpp"

namespace seine::test {

inline std::unique_ptr<Backend> backend_of(const std::string& device, int threads) {
  std::string why;
  return make_backend(device, {.threads = threads, .local_rank = 0}, why);
}

// Collective over `comm`. Warnings are appended to `warnings` on rank 0.
inline Batch select_on(const Comm& comm, Request request, const PoolRequest& pool, const std::string& device = "cpu",
                       int threads = 1, std::vector<std::string>* warnings = nullptr) {
  request.pool = pool;
  request.pool.device = device;
  request.pool.threads = threads;
  Console console;
  if (warnings) console.warn = [warnings](const std::string& text) { warnings->push_back(text); };
  const std::unique_ptr<Backend> backend = backend_of(device, threads);
  return select(request, comm, *backend, console);
}

inline Request request_for(const std::string& strategy, std::int64_t batch, std::uint64_t seed = 1) {
  Request request;
  request.strategy = strategy;
  request.batch = batch;
  request.seed = seed;
  return request;
}

inline Request merged(Request request, int partitions, int fan_in) {
  request.reduce = Reduce::merge;
  request.partitions = partitions;
  request.fan_in = fan_in;
  return request;
}

// One line that says which run this was.
inline std::string name_of(const Request& request) {
  std::string name = request.strategy + " B=" + std::to_string(request.batch) + " S=" + std::to_string(request.seed);
  for (const auto& [key, value] : request.set) name += " " + key + "=" + value;
  if (request.score) name += " score=" + *request.score;
  if (request.keep) name += " keep=" + std::to_string(*request.keep);
  if (request.score_power > 0) name += " power=" + std::to_string(request.score_power);
  if (request.normalize == Normalize::l2) name += " l2";
  if (request.normalize == Normalize::none) name += " none";
  if (request.reduce == Reduce::merge)
    name += " merge P=" + std::to_string(request.partitions) + " F=" + std::to_string(request.fan_in);
  return name;
}

inline testing::AssertionResult near(double got, double want, double relative, double absolute) {
  if (std::isnan(got) && std::isnan(want)) return testing::AssertionSuccess();
  if (got == want) return testing::AssertionSuccess();  // infinities too
  if (std::isfinite(got) && std::isfinite(want) && std::abs(got - want) <= absolute + relative * std::abs(want))
    return testing::AssertionSuccess();
  return testing::AssertionFailure() << "got " << testing::PrintToString(got) << ", expected "
                                     << testing::PrintToString(want);
}

// Everything that a batch file says, apart from where and when it ran.
inline std::string bytes_of(const Batch& batch) {
  std::string bytes;
  const auto add = [&](const auto& values) {
    bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof values[0]);
  };
  add(batch.selection.rows);
  add(batch.selection.scores);
  add(batch.selection.gains);
  for (std::size_t i = 0; i < batch.selection.rows.size(); ++i) bytes += batch.ids.as_text(i) + "\n";
  const Certificate& c = batch.certificate;
  bytes += batch.digest + batch.pool_fingerprint + c.kind + c.objective + c.bound_kind;
  add(std::vector<double>{c.value, c.bound, c.ratio, c.random, static_cast<double>(c.rows)});
  return bytes + std::to_string(batch.candidates) + (batch.truncated ? "t" : "") + std::to_string(batch.pool_rows);
}

// Rows exactly; values to what float32 distances and similarities allow.
inline void expect_answer(const Batch& batch, const Answer& answer, const View& view, const Request& request) {
  const double relative = request.strategy == "badge" || request.strategy == "log_det" ? 1e-5 : 1e-6;
  const double absolute = request.strategy == "facility_location" ? 2e-7 * static_cast<double>(view.rows) : 1e-9;
  ASSERT_EQ(batch.selection.rows, answer.rows);
  ASSERT_EQ(batch.selection.scores.size(), answer.rows.size());
  ASSERT_EQ(batch.selection.gains.size(), answer.rows.size());
  for (std::size_t t = 0; t < answer.rows.size(); ++t) {
    EXPECT_TRUE(near(batch.selection.scores[t], answer.scores[t], 1e-6, 1e-12)) << "score of pick " << t;
    EXPECT_TRUE(near(batch.selection.gains[t], answer.gains[t], relative, absolute)) << "gain of pick " << t;
  }
  EXPECT_EQ(batch.candidates, answer.candidates);
  EXPECT_EQ(batch.truncated, answer.truncated);
  EXPECT_EQ(batch.pool_rows, view.rows);
  EXPECT_EQ(batch.strategy, request.strategy);
  EXPECT_EQ(batch.seed, request.seed);
  EXPECT_EQ(batch.digest, digest_of(batch.selection.rows));

  const Certificate &got = batch.certificate, &want = answer.certificate;
  EXPECT_EQ(got.kind, want.kind);
  EXPECT_TRUE(near(got.value, want.value, relative, absolute)) << "value";
  EXPECT_TRUE(near(got.random, want.random, relative, absolute)) << "random";
  if (want.kind == "none") {
    EXPECT_TRUE(std::isnan(got.bound) && std::isnan(got.ratio));
    return;
  }
  EXPECT_FALSE(got.objective.empty());
  if (std::isnan(want.bound)) {  // submodular, after a merge
    EXPECT_GE(got.bound, got.value * (1 - 1e-9));
    EXPECT_FALSE(got.bound_kind.empty());
  } else {
    const double room = want.kind == "submodular" ? 1e-4 : 1e-5;  // rounded away from the truth, and not far
    EXPECT_TRUE(near(got.bound, want.bound, room, 10 * absolute)) << "bound";
    EXPECT_TRUE(near(got.ratio, want.ratio, 2 * room, 1e-9)) << "ratio";
    const bool lower = want.kind == "radius", upper = want.kind == "submodular";
    EXPECT_TRUE(!lower || got.bound <= want.bound * (1 + 1e-7)) << "a lower bound is rounded down";
    EXPECT_TRUE(!upper || got.bound >= want.bound * (1 - 2e-6) - absolute)
        << "an upper bound is rounded up: " << got.bound << ", " << want.bound << ", " << got.bound_kind;
  }
  const bool undivided = got.value == 0 && got.bound == 0;
  EXPECT_TRUE(near(got.ratio, undivided ? 1 : got.value / got.bound, 1e-12, 0)) << "ratio of value and bound";
  if (want.kind != "scores") {
    EXPECT_EQ(got.rows, want.rows);
  }
}

// Collective over the world: selects, and compares with the oracle on rank 0.
inline Batch expect_oracle(const Scenario& scenario, const PoolRequest& pool, const Request& request) {
  Batch batch = select_on(world(), request, pool);
  if (world().is_root()) {
    SCOPED_TRACE(name_of(request));
    const View view = view_of(scenario);
    expect_answer(batch, expected(view, request), view, request);
    for (std::size_t t = 0; t < batch.selection.rows.size(); ++t)
      EXPECT_EQ(batch.ids.as_text(t), scenario.pool.id(batch.selection.rows[t])) << "id of pick " << t;
  }
  return batch;
}

// Whether merging is another batch: rows of a diversity strategy depend on each other.
inline bool has_merge(const std::string& name) {
  return strategy(name).objective >= Objective::radius;
}

}  // namespace seine::test
