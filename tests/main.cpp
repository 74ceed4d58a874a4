// main of every test program that links the library: GoogleTest on all ranks, the report of rank 0, one agreed result.
// A failure on another rank is printed with its rank. A test must not return early on one rank only: assert after the
// collective calls, on values that every rank has.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "world.hpp"

namespace seine::test {
namespace {

std::optional<Comm> communicator;
bool update_golden = false;

// Prints only what fails, with the rank.
class FailurePrinter : public testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

 private:
  void OnTestStart(const testing::TestInfo& info) override { info_ = &info; }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "[rank %d] %s.%s %s:%d: %s\n", rank_, info_ ? info_->test_suite_name() : "",
                 info_ ? info_->name() : "", result.file_name() ? result.file_name() : "?", result.line_number(),
                 result.summary());
  }

  int rank_;
  const testing::TestInfo* info_ = nullptr;
};

}  // namespace

const Comm& world() {
  if (!communicator) std::abort();
  return *communicator;
}

bool updates_golden() {
  return update_golden;
}

}  // namespace seine::test

int main(int argc, char** argv) {
  using namespace seine;
  std::signal(SIGXFSZ, SIG_IGN);  // as main of the program does
  const MpiSession session(&argc, &argv);
  test::communicator.emplace(Comm::world());
  testing::InitGoogleTest(&argc, argv);
  for (int i = 1; i < argc; ++i) test::update_golden |= std::strcmp(argv[i], "--update-golden") == 0;

  const Comm& world = test::world();
  if (!world.is_root()) {
    testing::TestEventListeners& listeners = testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    delete listeners.Release(listeners.default_xml_generator());
    listeners.Append(new test::FailurePrinter(world.rank()));  // owned by GoogleTest
  }
  const bool failed = RUN_ALL_TESTS() != 0;
  const bool no_tests = testing::UnitTest::GetInstance()->test_to_run_count() == 0;
  const int result = world.max(failed || no_tests ? 1.0 : 0.0) > 0 ? 1 : 0;
  if (world.is_root()) {
    if (no_tests) std::fprintf(stderr, "no test ran\n");
    if (result != 0 && !failed) std::fprintf(stderr, "failed on another rank; see the lines with [rank N]\n");
  }
  test::communicator.reset();
  return result;
}
