// Every input in fuzz/corpus, one that a fuzzer found worth keeping or one that once ended the program. Its name begins
// with the code that a user gets: `65-heap-number.h5`.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "fuzz/readers.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

namespace fs = std::filesystem;

class Replay : public testing::TestWithParam<Reader> {};

TEST_P(Replay, EndsWithTheCodeInItsName) {
  int inputs = 0;
  for (const auto& entry : fs::directory_iterator(fs::path(SEINE_CORPUS_DIR) / GetParam().name)) {
    SCOPED_TRACE(entry.path().string());
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string bytes{std::istreambuf_iterator<char>(file), {}};
    EXPECT_EQ(static_cast<int>(GetParam().read(world(), bytes)), std::stoi(entry.path().filename().string()));
    ++inputs;
  }
  EXPECT_GT(inputs, 0);
}

INSTANTIATE_TEST_SUITE_P(Corpus, Replay, testing::ValuesIn(readers().begin(), readers().end()),
                         [](const auto& reader) { return std::string(reader.param.name); });

}  // namespace
}  // namespace seine::test
