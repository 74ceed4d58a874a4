// Whole selections on a CUDA device: what the CPU gives, to the bit. With several ranks these share one GPU. Skipped,
// with the driver's text, where no device is usable.
#include <cstdint>
#include <vector>

#include "cuda_device.hpp"
#include "golden_cases.hpp"
#include "seine/device_link.hpp"

namespace seine::test {
namespace {

class Gpu : public testing::Test {
 protected:
  void SetUp() override {
    if (const Cuda cuda = open_cuda(); !cuda.backend) GTEST_SKIP() << cuda.why_not;  // the same on every rank
  }
};

template <class T>
void expect_same_bits(const std::vector<T>& got, const std::vector<T>& want, const char* what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (std::size_t t = 0; t < got.size(); ++t)
    EXPECT_TRUE(std::memcmp(&got[t], &want[t], sizeof(T)) == 0)
        << what << " of pick " << t << ": " << testing::PrintToString(got[t]) << ", on the CPU "
        << testing::PrintToString(want[t]);
}

void expect_same(const Batch& got, const Batch& want) {
  EXPECT_EQ(got.selection.rows, want.selection.rows);
  expect_same_bits(got.selection.scores, want.selection.scores, "score");
  expect_same_bits(got.selection.gains, want.selection.gains, "gain");
  EXPECT_EQ(got.digest, want.digest);
  EXPECT_EQ(got.pool_fingerprint, want.pool_fingerprint);
  EXPECT_EQ(got.certificate.kind, want.certificate.kind);
  EXPECT_TRUE(near(got.certificate.value, want.certificate.value, 1e-5, 0)) << "value";
  EXPECT_TRUE(near(got.certificate.bound, want.certificate.bound, 1e-5, 0)) << "bound";
}

// Collective. The pool on the CPU, and as it is on the device.
void expect_same(const PoolRequest& pool, const PoolRequest& on_device, const Request& request) {
  SCOPED_TRACE(name_of(request) + ", " + std::to_string(world().size()) + " ranks");
  const Batch want = select_on(world(), request, pool, "cpu", 2);
  expect_same(select_on(world(), request, on_device, "cuda"), want);
}

TEST_F(Gpu, GoldenRequestsAreThoseOfTheCpu) {
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), golden_scenario(), folder);
  for (const GoldenCase& golden : golden_cases()) expect_same(pool, pool, golden.request);
}

TEST_F(Gpu, SteeredAndConditionedRequestsAreThoseOfTheCpu) {
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), golden_scenario(), folder);
  Request conditioned = request_for("badge", 30, 5);
  conditioned.set["conditioned"] = "true";
  expect_same(pool, pool, conditioned);
  for (const char* name : {"k_center", "k_means_pp", "facility_location"}) {
    Request steered = request_for(name, 30, 6);
    steered.score = "entropy";
    steered.keep = 11;
    steered.score_power = 1.5;
    expect_same(pool, pool, steered);
  }
}

// float16 rows stay so in the memory of the device; many exact ties.
TEST_F(Gpu, Float16RowsAndTiesAreThoseOfTheCpu) {
  const SharedFolder folder(world());
  Scenario scenario{.pool = grid_pool(900, 33, 4, 0, 3), .storage = {.x = Dtype::f16}};
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const char* name : {"k_center", "k_means_pp", "badge", "facility_location", "log_det"})
    expect_same(pool, pool, request_for(name, 60, 8));
}

TEST_F(Gpu, PoolsLargerThanTheMemoryGivenAreStreamed) {
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), golden_scenario(), folder);
  PoolRequest streamed = pool;
  streamed.stream_room = 64 * 1024;  // of about 190 KiB
  for (const GoldenCase& golden : golden_cases())
    if (strategy(golden.request.strategy).needs.embeddings) expect_same(pool, streamed, golden.request);
}

TEST_F(Gpu, RanksWithAGpuEachFetchRowsByNccl) {
  std::string why;
  const std::unique_ptr<Backend> backend = make_backend("cuda", {.threads = 1, .local_rank = world().rank()}, why);
  const std::unique_ptr<DeviceLink> link = DeviceLink::open(world(), backend->port(), why);
  if (!link) GTEST_SKIP() << (why.empty() ? "one rank needs no link" : why);  // the same on every rank
  backend->use(link.get());
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), golden_scenario(), folder);
  for (GoldenCase golden : golden_cases()) {
    SCOPED_TRACE(golden.name);
    const Batch want = select_on(world(), golden.request, pool);
    golden.request.pool = pool;
    expect_same(select(golden.request, world(), *backend, {}), want);
  }
}

// More rows than a block of threads, a tile or a piece of a file has.
TEST_F(Gpu, ManyRowsAreThoseOfTheCpu) {
  const SharedFolder folder(world());
  const Scenario scenario{.pool = random_pool(30'000, 65, 7, 0, 9), .storage = {.shard_rows = even_shards(30'000, 2)}};
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const char* name : {"entropy", "k_center", "k_means_pp", "badge", "log_det"})
    expect_same(pool, pool, request_for(name, 500, 10));
  Request represent = request_for("facility_location", 50, 10);
  represent.set["ground"] = "2000";
  expect_same(pool, pool, represent);
}

// So many values that products by cuBLAS pay, where the device has it.
TEST_F(Gpu, RowsAndPicksThatProductsRuleOutAreThoseOfTheCpu) {
  const SharedFolder folder(world());
  const Scenario scenario{.pool = random_pool(60'000, 512, 2, 0, 11), .storage = {.x = Dtype::f16}};
  const PoolRequest pool = share_scenario(world(), scenario, folder);
  for (const char* name : {"k_center", "k_means_pp"}) expect_same(pool, pool, request_for(name, 700, 12));
  expect_same(pool, pool, request_for("facility_location", 20, 12));
}

}  // namespace
}  // namespace seine::test
