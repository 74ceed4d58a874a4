#include "seine/comm.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <new>
#include <numeric>
#include <system_error>

#include "errors.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

TEST(Comm, BroadcastsFromAnyRank) {
  const Comm& comm = world();
  for (int from = 0; from < comm.size(); ++from) {
    EXPECT_EQ(comm.broadcast(comm.rank() == from ? 42 + from : -1, from), 42 + from);
    std::string text = comm.rank() == from ? std::string("line\0two", 8) : "something longer than that";
    comm.broadcast(text, from);
    EXPECT_EQ(text, std::string("line\0two", 8));
    std::string empty = comm.rank() == from ? "" : "not empty";
    comm.broadcast(empty, from);
    EXPECT_EQ(empty, "");
  }
}

TEST(Comm, BroadcastsManyValues) {
  const Comm& comm = world();
  std::vector<std::int64_t> values(3'000'001, -1), expected(values.size());
  std::iota(expected.begin(), expected.end(), 7);
  if (comm.is_root()) values = expected;
  comm.broadcast(std::span(values));
  EXPECT_TRUE(values == expected);
}

TEST(Comm, GathersInRankOrderWithEmptyParts) {
  const Comm& comm = world();
  const std::vector<int> mine(static_cast<std::size_t>(comm.rank()), comm.rank());  // nothing from rank 0
  std::vector<int> expected;
  for (int r = 0; r < comm.size(); ++r) expected.insert(expected.end(), static_cast<std::size_t>(r), r);
  EXPECT_EQ(comm.gather(std::span(mine)), expected);
  EXPECT_TRUE(comm.gather(std::span<const double>()).empty());
}

TEST(Comm, ExchangesWithEmptyParts) {
  const Comm& comm = world();
  const auto ranks = static_cast<std::size_t>(comm.size());
  std::vector<std::vector<std::int64_t>> to(ranks), expected(ranks);
  for (int r = 0; r < comm.size(); ++r) {  // rank a sends (a + 2 b) mod 3 values to rank b
    to[static_cast<std::size_t>(r)].assign(static_cast<std::size_t>((comm.rank() + 2 * r) % 3), 10 * comm.rank() + r);
    expected[static_cast<std::size_t>(r)].assign(static_cast<std::size_t>((r + 2 * comm.rank()) % 3),
                                                 10 * r + comm.rank());
  }
  EXPECT_EQ(comm.exchange(to), expected);
  EXPECT_EQ(comm.exchange(std::vector<std::vector<std::int64_t>>(ranks)),
            std::vector<std::vector<std::int64_t>>(ranks));
}

TEST(Comm, ReducesIntegersAndMaxima) {
  const Comm& comm = world();
  const std::int64_t ranks = comm.size();
  EXPECT_EQ(comm.sum(std::int64_t{comm.rank()} + 1), ranks * (ranks + 1) / 2);
  EXPECT_EQ(comm.max(-1.5 * comm.rank()), 0);
  std::vector<std::int64_t> counts(1000);
  std::iota(counts.begin(), counts.end(), comm.rank());
  comm.sum(std::span(counts));
  for (std::int64_t i = 0; i < 1000; ++i)
    EXPECT_EQ(counts[static_cast<std::size_t>(i)], ranks * i + ranks * (ranks - 1) / 2);
  std::vector<double> values{comm.is_root() ? 3.0 : -1.0, static_cast<double>(comm.rank()),
                             -std::numeric_limits<double>::infinity()};
  comm.max(std::span(values));
  EXPECT_EQ(values, (std::vector<double>{3, static_cast<double>(ranks - 1), -std::numeric_limits<double>::infinity()}));
  comm.sum(std::span<std::int64_t>());
}

TEST(Comm, SplitsAndKeepsRankOrder) {
  const Comm& comm = world();
  const Comm half = comm.split(comm.rank() % 2);
  EXPECT_EQ(half.size(), (comm.size() + 1 - comm.rank() % 2) / 2);
  EXPECT_EQ(half.rank(), comm.rank() / 2);
  EXPECT_EQ(half.sum(std::int64_t{1}), half.size());
}

TEST(Comm, SelfWorksOnOneRankAlone) {
  if (!world().is_root()) return;  // nothing below is collective over the world
  const Comm self = Comm::self();
  EXPECT_EQ(self.size(), 1);
  EXPECT_TRUE(self.is_root());
  const std::vector<int> values{1, 2, 3};
  EXPECT_EQ(self.gather(std::span(values)), values);
  EXPECT_EQ(self.exchange(std::vector<std::vector<int>>{values}), std::vector<std::vector<int>>{values});
  EXPECT_EQ(self.broadcast(5), 5);
  EXPECT_EQ(self.sum(std::int64_t{7}), 7);
  EXPECT_EQ(self.max(0.5), 0.5);
  EXPECT_EQ(self.split(3).size(), 1);
  EXPECT_EQ(self.agree([] { return 9; }), 9);
  EXPECT_EQ(error_of([&] { self.agree([] { throw Error(Exit::bad_data, "x"); }); }).code(), Exit::bad_data);
  self.barrier();
}

TEST(Comm, MovesLeaveOneOwner) {
  Comm first = world().split(0);
  Comm second = std::move(first);
  EXPECT_EQ(second.sum(std::int64_t{1}), world().size());
  EXPECT_EQ(first.size(), 1);  // NOLINT(bugprone-use-after-move): what is left is defined
  first = std::move(second);
  EXPECT_EQ(first.sum(std::int64_t{1}), world().size());
}

TEST(Agree, ReturnsWhatTheWorkReturned) {
  EXPECT_EQ(world().agree([] { return world().rank(); }), world().rank());
  bool ran = false;
  world().agree([&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(Agree, OneFailingRankFailsAll) {
  const Comm& comm = world();
  for (int failing = 0; failing < comm.size(); ++failing) {
    const Error error = error_of([&] {
      comm.agree([&] {
        if (comm.rank() == failing) throw Error(Exit::no_input, "rank " + std::to_string(failing));
        return 1;
      });
    });
    EXPECT_EQ(error.code(), Exit::no_input);
    EXPECT_EQ(error.what(), "rank " + std::to_string(failing));
    EXPECT_EQ(comm.sum(std::int64_t{1}), comm.size());  // and all go on
  }
}

TEST(Agree, LowestFailingRankSpeaks) {
  const Comm& comm = world();
  const int lowest = comm.size() > 1 ? 1 : 0;
  const Error error = error_of([&] {
    comm.agree([&] {
      if (comm.rank() >= lowest) throw Error(Exit::bad_data, std::string(5000, static_cast<char>('a' + comm.rank())));
    });
  });
  EXPECT_EQ(error.code(), Exit::bad_data);
  EXPECT_EQ(error.what(), std::string(5000, static_cast<char>('a' + lowest)));
}

TEST(Agree, GivesForeignExceptionsTheirExitCode) {
  const Comm& comm = world();
  const int last = comm.size() - 1;
  const auto thrown = [&](auto&& work) {
    return error_of([&] {
      comm.agree([&] {
        if (comm.rank() == last) work();
      });
    });
  };
  EXPECT_EQ(thrown([] { throw std::bad_alloc(); }).code(), Exit::system);
  EXPECT_STREQ(thrown([] { throw std::bad_alloc(); }).what(), "out of memory");
  EXPECT_EQ(thrown([] { std::filesystem::rename("/nowhere/at/all", "/nowhere"); }).code(), Exit::io);
  EXPECT_EQ(
      thrown([] { throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again)); }).code(),
      Exit::system);
  EXPECT_EQ(thrown([] { throw std::logic_error("odd"); }).code(), Exit::bug);
  EXPECT_STREQ(thrown([] { throw std::logic_error("odd"); }).what(), "internal error: odd; this is a bug in seine");
  EXPECT_EQ(thrown([] { throw 7; }).code(), Exit::bug);
  const Error broken = thrown([] { require(1 + 1 == 3, "arithmetic"); });
  EXPECT_EQ(broken.code(), Exit::bug);
  EXPECT_NE(std::string(broken.what()).find("comm_test.cpp:"), std::string::npos) << broken.what();
}

}  // namespace
}  // namespace seine::test
