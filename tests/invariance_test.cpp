// Every strategy x {exact, merge} x ranks x threads x shards x {cpu, checked}: the same bytes. One launch covers all
// rank counts up to its own: the first n ranks run, the others wait at a barrier.
#include <cstring>

#include "selecting.hpp"

namespace seine::test {
namespace {

std::vector<Request> requests() {
  std::vector<Request> requests;
  for (const Entry& entry : strategies()) {
    const std::string name(entry.name);
    requests.push_back(request_for(name, 20, 12));
    requests.push_back(merged(request_for(name, 20, 12), 4, 3));
  }
  Request request = request_for("badge", 20, 13);
  request.set["conditioned"] = "true";
  requests.push_back(request);
  requests.push_back(merged(request, 4, 2));
  for (const char* name : {"k_center", "k_means_pp", "facility_location"}) {
    request = request_for(name, 20, 14);
    request.score = "entropy";
    request.score_power = 1.5;
    request.keep = 17;
    requests.push_back(request);
    requests.push_back(merged(request, 5, 3));
  }
  request = request_for("k_center", 300, 15);
  request.set["first"] = "farthest_from_mean";
  requests.push_back(request);
  request = request_for("facility_location", 20, 16);
  request.set["ground"] = "100";
  requests.push_back(request);
  request = request_for("log_det", 20, 17);
  request.normalize = Normalize::none;
  requests.push_back(request);
  return requests;
}

template <class T>
void append(std::string& bytes, const std::vector<T>& values) {
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
}

std::string bytes_of(double value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  return {bytes, sizeof value};
}

// Everything that a batch file says, apart from where and when it ran.
std::string bytes_of(const Batch& batch) {
  std::string bytes;
  append(bytes, batch.selection.rows);
  append(bytes, batch.selection.scores);
  append(bytes, batch.selection.gains);
  for (std::size_t i = 0; i < batch.selection.rows.size(); ++i) bytes += batch.ids.as_text(i) + "\n";
  const Certificate& c = batch.certificate;
  bytes += batch.digest + batch.pool_fingerprint + c.kind + c.objective + c.bound_kind;
  for (const double value : {c.value, c.bound, c.ratio, c.random, static_cast<double>(c.rows)})
    bytes += bytes_of(value);
  return bytes + std::to_string(batch.candidates) + (batch.truncated ? "t" : "") + std::to_string(batch.pool_rows);
}

// The first difference, for the message.
std::string difference(const Batch& got, const Batch& want) {
  for (std::size_t t = 0; t < std::min(got.selection.rows.size(), want.selection.rows.size()); ++t) {
    if (got.selection.rows[t] != want.selection.rows[t]) return "row of pick " + std::to_string(t);
    if (std::memcmp(&got.selection.gains[t], &want.selection.gains[t], sizeof(double)) != 0)
      return "gain of pick " + std::to_string(t);
    if (std::memcmp(&got.selection.scores[t], &want.selection.scores[t], sizeof(float)) != 0)
      return "score of pick " + std::to_string(t);
  }
  if (got.pool_fingerprint != want.pool_fingerprint) return "pool fingerprint";
  if (got.digest != want.digest) return "digest";
  return testing::PrintToString(got.certificate.value) + " " + testing::PrintToString(got.certificate.bound) + " " +
         testing::PrintToString(got.certificate.random) + " is not " + testing::PrintToString(want.certificate.value) +
         " " + testing::PrintToString(want.certificate.bound) + " " + testing::PrintToString(want.certificate.random);
}

void expect_invariant(const Scenario& scenario) {
  std::vector<Batch> reference;
  const std::vector<Request> all = requests();
  for (int ranks = 1; ranks <= world().size(); ++ranks) {
    const Comm group = world().split(world().rank() < ranks ? 0 : 1);
    for (const int shards : {1, 3, 7}) {
      Scenario sharded = scenario;
      sharded.storage.shard_rows =
          shards == 3 ? even_shards(scenario.pool.rows, 3) : uneven_shards(scenario.pool.rows, shards);
      const SharedFolder folder(world());
      const PoolRequest pool = share_scenario(world(), sharded, folder);
      for (const char* device : {"cpu", "checked"})
        for (const int threads : {1, 2}) {
          for (std::size_t i = 0; i < all.size(); ++i) {
            std::string mine;
            std::optional<Batch> batch;
            if (world().rank() < ranks) mine = bytes_of(batch.emplace(select_on(group, all[i], pool, device, threads)));
            if (reference.size() == i) {  // only in the first run: one rank, one shard, one thread, cpu
              if (world().is_root())
                reference.push_back(*batch);
              else
                reference.emplace_back();
            }
            std::string want = world().is_root() ? bytes_of(reference[i]) : "";
            world().broadcast(want);
            if (world().rank() < ranks) {
              EXPECT_TRUE(mine == want) << name_of(all[i]) << ", " << ranks << " ranks, " << threads << " threads, "
                                        << shards << " shards, " << device << ": "
                                        << (world().is_root() ? difference(*batch, reference[i]) : "");
            }
          }
        }
    }
  }
}

TEST(Invariance, RandomPool) {
  Scenario scenario{.pool = random_pool(900, 9, 4, 3, 200), .storage = {.chunk_rows = 100, .gzip = 1}};
  add_number_ids(scenario.pool);
  scenario.lists = {.labelled = {1, 700, 701}, .pending = {5, 300}, .excluded = {10, 11, 899}};
  expect_invariant(scenario);
}

TEST(Invariance, TiesAndNoCoveredRows) {
  Scenario scenario{.pool = grid_pool(700, 3, 4, 2, 201)};
  add_word_ids(scenario.pool);
  round_to(scenario.pool, Dtype::f16, Dtype::f32);
  scenario.storage.x = Dtype::f16;
  expect_invariant(scenario);
}

TEST(Invariance, FewerRowsThanRanks) {
  expect_invariant({.pool = random_pool(3, 33, 2, 2, 202)});
}

}  // namespace
}  // namespace seine::test
