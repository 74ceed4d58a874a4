// Every strategy x {exact, merge} x ranks x threads x shards x {cpu, checked} x {resident, streamed}: the same bytes.
// One launch covers all rank counts up to its own: the first n ranks run, the others sleep.
#include <cstring>
#include <optional>

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

// `whole`: the full product of ranks, shards and threads; else threads go with the shards.
void expect_invariant(const Scenario& scenario, bool whole) {
  const int shard_counts[] = {1, 3, 7};
  std::vector<std::unique_ptr<SharedFolder>> folders;
  std::vector<PoolRequest> pools;
  for (const int shards : shard_counts) {
    Scenario sharded = scenario;
    const std::int64_t rows = scenario.pool.rows;
    sharded.storage.shard_rows = shards == 3 ? even_shards(rows, 3) : uneven_shards(rows, shards);
    folders.push_back(std::make_unique<SharedFolder>(world()));
    pools.push_back(share_scenario(world(), sharded, *folders.back()));
  }
  const std::string flag = folders.front()->path() + "/done.";
  const std::vector<Request> all = requests();

  std::vector<Batch> reference;  // on rank 0: alone, one shard, one thread, cpu
  std::vector<std::string> want(all.size());
  if (world().is_root()) {
    const Comm alone = Comm::self();
    for (std::size_t i = 0; i < all.size(); ++i)
      want[i] = bytes_of(reference.emplace_back(select_on(alone, all[i], pools[0], "cpu", 1)));
    write_text(flag + "0", "");
  }
  wait_for_file(flag + "0");
  for (std::string& bytes : want) world().broadcast(bytes);

  for (int ranks = 1; ranks <= world().size(); ++ranks) {
    const Comm group = world().split(world().rank() < ranks ? 0 : 1);
    const std::string done = flag + std::to_string(ranks);
    if (world().rank() < ranks) {
      const auto expect_same = [&](std::size_t p, const std::string& device, int threads,
                                   std::optional<std::int64_t> stream_room) {
        PoolRequest pool = pools[p];
        pool.stream_room = stream_room;
        for (std::size_t i = 0; i < all.size(); ++i) {
          const Batch batch = select_on(group, all[i], pool, device, threads);
          EXPECT_TRUE(bytes_of(batch) == want[i])
              << name_of(all[i]) << ", " << ranks << " ranks, " << threads << " threads, " << shard_counts[p]
              << " shards, " << device << (stream_room ? ", streamed: " : ": ")
              << (world().is_root() ? difference(batch, reference[i]) : "");
        }
      };
      for (std::size_t p = 0; p < pools.size(); ++p)
        for (const int threads : {1, 2})
          if (whole || (threads == 2) == (p == 1)) expect_same(p, "cpu", threads, std::nullopt);
      expect_same(1, "checked", 2, std::nullopt);  // once: it is slow, and what it finds does not depend on shards
      expect_same(1, "checked", 2, 20000);         // some rows stay
      expect_same(0, "cpu", 1, 0);                 // nothing stays but what always does
      expect_same(2, "cpu", 2, 1 << 20);           // all could
      group.barrier();
      if (world().is_root()) write_text(done, "");
    }
    wait_for_file(done);
    world().barrier();
  }
}

TEST(Invariance, RandomPool) {
  Scenario scenario{.pool = random_pool(900, 9, 4, 3, 200), .storage = {.chunk_rows = 100, .gzip = 1}};
  add_number_ids(scenario.pool);
  scenario.lists = {.labelled = {1, 700, 701}, .pending = {5, 300}, .excluded = {10, 11, 899}};
  expect_invariant(scenario, true);
}

TEST(Invariance, TiesAndNoCoveredRows) {
  Scenario scenario{.pool = grid_pool(700, 3, 4, 2, 201)};
  add_word_ids(scenario.pool);
  round_to(scenario.pool, Dtype::f16, Dtype::f32);
  scenario.storage.x = Dtype::f16;
  expect_invariant(scenario, false);
}

TEST(Invariance, FewerRowsThanRanks) {
  expect_invariant({.pool = random_pool(3, 33, 2, 2, 202)}, false);
}

}  // namespace
}  // namespace seine::test
