// compute-sanitizer over the loops of cuda_test: no access out of bounds, no race in shared memory.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "cuda_device.hpp"

namespace seine::test {
namespace {

struct Ended {
  int code = -1;
  std::string text;
};

Ended run(const std::string& command) {
  Ended ended;
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (!pipe) return ended;
  char line[4096];
  while (std::fgets(line, sizeof line, pipe)) ended.text += line;
  const int status = pclose(pipe);
  if (WIFEXITED(status)) ended.code = WEXITSTATUS(status);
  return ended;
}

class Sanitizer : public testing::Test {
 protected:
  static constexpr const char* kProgram = SEINE_COMPUTE_SANITIZER;

  void SetUp() override {
    if (const Cuda cuda = open_cuda(); !cuda.backend) GTEST_SKIP() << cuda.why_not;
    if (!std::filesystem::exists(kProgram)) GTEST_SKIP() << "there is no compute-sanitizer";
  }

  // A run is a hundred times slower than without.
  static void expect_clean(const std::string& tool, const std::string& tests) {
    const Ended ended = run("timeout 60 " + std::string(kProgram) + " --tool " + tool +
                            " --error-exitcode 99 " SEINE_CUDA_TEST + " --gtest_filter='" + tests + "'");
    if (ended.code == 124) GTEST_SKIP() << "not done in 60 s";
    EXPECT_EQ(ended.code, 0) << ended.text;
    EXPECT_NE(ended.text.find("[  PASSED  ]"), std::string::npos) << ended.text;
    EXPECT_EQ(ended.text.find("[  SKIPPED ]"), std::string::npos) << ended.text;
  }
};

TEST_F(Sanitizer, Memcheck) {
  expect_clean("memcheck", "*CudaLoops.*/1x33:*CudaLoops.*/255x31");
}

// What products rule out needs rows by the hundred thousand.
TEST_F(Sanitizer, MemcheckOfProducts) {
  expect_clean("memcheck", "CudaFilter.*");
}

TEST_F(Sanitizer, Racecheck) {
  expect_clean("racecheck", "*CudaLoops.*/255x33");
}

}  // namespace
}  // namespace seine::test
