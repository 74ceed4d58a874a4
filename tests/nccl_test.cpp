// The link between devices, without devices: NCCL's calls go to a library of our own over the memory of the host
// (fake_nccl.cpp), which works, fails or hangs. Whatever it does, all ranks go on together, or end with one message.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "backend/cuda/nccl.hpp"
#include "cuda_device.hpp"
#include "golden_cases.hpp"
#include "seine/device_link.hpp"

namespace seine::test {
namespace {

using std::chrono::milliseconds;

class Nccl : public testing::Test {
 protected:
  void SetUp() override { set_mode(""); }
  void TearDown() override { set_mode(""); }

  static void set_mode(const char* mode) { setenv("SEINE_FAKE_NCCL", mode, 1); }

  static int count(const char* function) {
    void* library = dlopen(SEINE_FAKE_NCCL_LIBRARY, RTLD_NOW);
    return library ? reinterpret_cast<int (*)()>(dlsym(library, function))() : -1;
  }

  // Each rank has a device of its own, whose stream is idle at the third look, or never.
  static std::unique_ptr<DevicePort> port(const std::string& library = SEINE_FAKE_NCCL_LIBRARY,
                                          milliseconds patience = std::chrono::minutes(1), bool is_stuck = false) {
    const DeviceStream stream{nullptr, [] {},
                              [is_stuck, looks = 0]() mutable { return !is_stuck && ++looks % 3 == 0; }};
    return make_nccl_port("GPU " + std::to_string(world().rank()), stream, library, patience);
  }

  // Why there is no link, on every rank.
  static std::string refusal(DevicePort* port) {
    std::string why;
    const auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(DeviceLink::open(world(), port, why), nullptr);
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_TRUE(why.starts_with("rows of other ranks come through the memory of the host: ")) << why;
    return why;
  }

  static void expect_contains(const std::string& text, const std::string& part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  }

  // Rank r has 7 r bytes, so rank 0 none.
  struct Shares {
    std::vector<std::size_t> bytes;
    std::vector<std::uint8_t> mine, all, want;
  };
  static Shares shares() {
    Shares s;
    for (int rank = 0; rank < world().size(); ++rank) {
      s.bytes.push_back(static_cast<std::size_t>(rank * 7));
      const std::vector<std::uint8_t> of_rank(s.bytes.back(), static_cast<std::uint8_t>(rank + 40));
      s.want.insert(s.want.end(), of_rank.begin(), of_rank.end());
      if (rank == world().rank()) s.mine = of_rank;
    }
    s.all.resize(s.want.size());
    return s;
  }

  // The gather fails on all ranks, with the same error of some rank, soon.
  static void expect_failure(const DeviceLink& link, const std::string& text) {
    Shares s = shares();
    const auto begin = std::chrono::steady_clock::now();
    std::string found;
    int ranks = 0;
    Exit code = Exit::done;
    try {
      link.gather(s.mine.data(), s.bytes, s.all.data());
    } catch (const AgreedError& error) {
      found = error.what(), ranks = error.ranks(), code = error.code();
    }
    EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(10));
    EXPECT_EQ(code, Exit::io);
    EXPECT_EQ(ranks, world().size());
    expect_contains(found, text);
    std::string of_root = found;
    world().broadcast(of_root);
    EXPECT_EQ(found, of_root);
  }
};

TEST_F(Nccl, OneProcessAndProcessorsNeedNoLink) {
  std::string why = "?";
  EXPECT_EQ(DeviceLink::open(Comm::self(), port().get(), why), nullptr);
  EXPECT_EQ(why, "");
  EXPECT_EQ(DeviceLink::open(world(), nullptr, why), nullptr);
  EXPECT_EQ(why, "");
}

TEST_F(Nccl, SaysWhyRowsGoThroughTheHost) {
  const std::string ranks = std::to_string(world().size());
  expect_contains(refusal(world().is_root() ? nullptr : port().get()), "1 of " + ranks + " ranks have no GPU");
  expect_contains(refusal(make_nccl_port("GPU 0000:01:00.0", {}, SEINE_FAKE_NCCL_LIBRARY).get()),
                  "ranks 0 and 1 share GPU 0000:01:00.0 of ");
  expect_contains(refusal(port("libnothing_of_that_name.so").get()), "rank 0: libnothing_of_that_name.so: cannot open");
  set_mode("old");
  expect_contains(refusal(port().get()), "NCCL 2.13.5 was found, 2.14 or later is needed");
}

TEST_F(Nccl, ARankThatCannotJoinIsNoReasonToWait) {
  set_mode("join_fails");
  expect_contains(refusal(port().get()), "rank 1: NCCL: no such GPU, while joining the other ranks");
  set_mode("join_hangs");
  expect_contains(refusal(port(SEINE_FAKE_NCCL_LIBRARY, std::chrono::seconds(1)).get()),
                  "rank 1: NCCL: no answer of the other ranks in 1 s");
}

TEST_F(Nccl, TheRealLibrarySaysThatThereIsNoDriver) {
  if (const Cuda cuda = open_cuda(); cuda.backend) GTEST_SKIP() << "a device is usable: " << cuda.backend->describe();
  const std::string why = refusal(port("libnccl.so.2").get());
  if (why.find("cannot open shared object") == std::string::npos) expect_contains(why, "unhandled cuda error");
  if (world().is_root()) std::printf("[   info   ] %s\n", why.c_str());
}

TEST_F(Nccl, RowsOfAllRanksComeInTheirOrder) {
  const auto own = port();
  const int aborts = count("fake_nccl_aborts");
  {
    std::string why;
    const std::unique_ptr<DeviceLink> link = DeviceLink::open(world(), own.get(), why);
    ASSERT_NE(link, nullptr) << why;
    EXPECT_EQ(why, "rows of other ranks come by NCCL 2.28.9 between " + std::to_string(world().size()) + " GPUs");
    for (int time = 0; time < 3; ++time) {
      Shares s = shares();
      link->gather(s.mine.data(), s.bytes, s.all.data());
      EXPECT_EQ(s.all, s.want);
    }
  }
  EXPECT_EQ(count("fake_nccl_aborts"), aborts + 1);  // nothing is left behind
}

TEST_F(Nccl, SelectionsAreThoseWithoutALink) {
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), golden_scenario(), folder);
  const auto own = port();
  std::string why;
  const std::unique_ptr<DeviceLink> link = DeviceLink::open(world(), own.get(), why);
  ASSERT_NE(link, nullptr) << why;
  const std::unique_ptr<Backend> backend = backend_of("cpu", 1);
  backend->use(link.get());
  for (const GoldenCase& golden : golden_cases()) {
    SCOPED_TRACE(golden.name);
    Request request = golden.request;
    request.pool = pool;
    const int before = count("fake_nccl_broadcasts");
    const Batch linked = select(request, world(), *backend, {});
    const bool fetches = strategy(request.strategy).objective >= Objective::radius;
    EXPECT_EQ(count("fake_nccl_broadcasts") > before, fetches);
    const Batch want = select_on(world(), golden.request, pool);
    EXPECT_EQ(linked.selection.rows, want.selection.rows);
    EXPECT_TRUE(near(linked.certificate.value, want.certificate.value, 0, 0));
  }
}

TEST_F(Nccl, AFaultOfOneRankEndsAll) {
  set_mode("rows_fail");
  const auto own = port();
  std::string why;
  const std::unique_ptr<DeviceLink> link = DeviceLink::open(world(), own.get(), why);
  ASSERT_NE(link, nullptr) << why;
  expect_failure(*link, "NCCL: a rank is gone, while sending rows");
  expect_failure(*link, "the link has failed before");
}

TEST_F(Nccl, AStreamThatStandsStillEndsAll) {
  const auto own = port(SEINE_FAKE_NCCL_LIBRARY, std::chrono::seconds(1), world().rank() == world().size() - 1);
  std::string why;
  const std::unique_ptr<DeviceLink> link = DeviceLink::open(world(), own.get(), why);
  ASSERT_NE(link, nullptr) << why;
  expect_failure(*link, "NCCL: no answer of the other ranks in 1 s, while sending rows");
}

}  // namespace
}  // namespace seine::test
