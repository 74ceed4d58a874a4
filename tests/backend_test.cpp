// Memory of a backend: staging, and items that move inside it. Loops are in row_math_test.cpp and cuda_test.cpp.
#include "seine/backend.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>

namespace seine::test {
namespace {

class Memory : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    std::string why;
    backend_ = make_backend(GetParam(), {.threads = 2, .local_rank = 0}, why);
  }
  std::unique_ptr<Backend> backend_;
};
INSTANTIATE_TEST_SUITE_P(Backends, Memory, testing::Values("cpu", "checked"),
                         [](const auto& backend) { return std::string(backend.param); });

std::vector<float> counting(std::int64_t count, float first) {
  std::vector<float> values(static_cast<std::size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

TEST_P(Memory, StagedValuesArrive) {
  for (const std::int64_t count : {0, 1, 1023, 1024, 5000}) {
    const Array<float> array(*backend_, 2 * count);
    const Staging<float> one(*backend_, count), other(*backend_, count);
    const auto bytes = static_cast<std::size_t>(count) * sizeof(float);
    for (int time = 0; time < 3; ++time) {  // memory is used again once its copy is complete
      const std::vector<float> first = counting(count, static_cast<float>(time)), second = counting(count, 100);
      std::copy(first.begin(), first.end(), one.data());
      backend_->begin_copy_in(array.data(), one.data(), bytes);
      std::copy(second.begin(), second.end(), other.data());  // meanwhile
      backend_->begin_copy_in(array.data() + count, other.data(), bytes);
      backend_->await_copies();
      std::vector<float> want = first;
      want.insert(want.end(), second.begin(), second.end());
      EXPECT_EQ(array.to_host(), want);
    }
  }
}

// As a streamed pool does: a thread fills and sends one half while the loops work on the other.
TEST_P(Memory, CopiesGoOnBehindLoops) {
  constexpr std::int64_t kRows = 500, kDim = 7, kPieces = 20;
  const Array<float> pieces[2] = {{*backend_, kRows * kDim}, {*backend_, kRows * kDim}};
  const Array<double> norms(*backend_, kRows);
  const Staging<float> staged[2] = {{*backend_, kRows * kDim}, {*backend_, kRows * kDim}};
  const auto send = [&](std::int64_t piece) {
    std::fill_n(staged[piece % 2].data(), kRows * kDim, static_cast<float>(piece));
    backend_->begin_copy_in(pieces[piece % 2].data(), staged[piece % 2].data(), kRows * kDim * sizeof(float));
  };
  std::thread coming(send, 0);
  for (std::int64_t piece = 0; piece < kPieces; ++piece) {
    coming.join();
    coming = std::thread(send, piece + 1);
    backend_->await_copies();
    backend_->squared_norms({pieces[piece % 2].data(), Element::f32, kDim}, kRows, norms.data());
    EXPECT_EQ(norms.to_host(),
              std::vector<double>(kRows, static_cast<double>(kDim) * static_cast<double>(piece * piece)));
  }
  coming.join();
}

TEST_P(Memory, ScatterMovesItems) {
  for (const std::size_t bytes : {1, 2, 4, 12, 16, 48}) {
    constexpr std::int64_t kItems = 40;
    std::vector<std::uint8_t> from(kItems * bytes), to(from.size(), 255);
    for (std::size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::uint8_t>(i * 7 % 251);
    const std::vector<std::int64_t> positions{0, 39, 5, 5, 17}, slots{39, 0, 8, 9, 1};
    const Array<std::uint8_t> source(*backend_, from), target(*backend_, to);
    backend_->scatter(source.data(), bytes, positions, target.data(), slots);
    for (std::size_t i = 0; i < positions.size(); ++i)
      std::memcpy(&to[static_cast<std::size_t>(slots[i]) * bytes],
                  &from[static_cast<std::size_t>(positions[i]) * bytes], bytes);
    EXPECT_EQ(target.to_host(), to) << bytes;
  }
}

// --- What the checked backend finds ---

std::unique_ptr<Backend> checked() {
  std::string why;
  return make_backend("checked", {.threads = 1, .local_rank = 0}, why);
}

TEST(CheckedBackend, WhatIsUnderWayIsNotThereYet) {
  const auto backend = checked();
  const Array<std::uint8_t> array(*backend, std::vector<std::uint8_t>(100, 3));
  const Staging<std::uint8_t> staged(*backend, 100);
  std::fill_n(staged.data(), 100, std::uint8_t{7});
  backend->begin_copy_in(array.data(), staged.data(), 100);
  EXPECT_EQ(array.to_host(), std::vector<std::uint8_t>(100, 255)) << "neither what was there nor what comes";
  backend->await_copies();
  EXPECT_EQ(array.to_host(), std::vector<std::uint8_t>(100, 7));
}

TEST(CheckedBackendDeathTest, StagingIsNotWrittenWhileItIsCopied) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto backend = checked();
  const Array<float> array(*backend, 100);
  const Staging<float> staged(*backend, 100);
  backend->begin_copy_in(array.data(), staged.data(), 400);
  EXPECT_DEATH(staged.data()[99] = 1, "");
  backend->await_copies();
  staged.data()[99] = 1;
}

TEST(CheckedBackendDeathTest, HostCodeDoesNotTouchItsMemory) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto backend = checked();
  const Array<float> array(*backend, 100);
  EXPECT_DEATH(array.data()[0] = 1, "");
}

}  // namespace
}  // namespace seine::test
