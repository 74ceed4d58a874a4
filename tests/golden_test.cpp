// Batches of fixed requests against the files in golden/: ids, scores and gains, floats in hex. The same files for
// every number of ranks. `golden_test --update-golden` with one rank writes them; nothing else does.
#include <cstdio>
#include <fstream>
#include <sstream>

#include "golden_cases.hpp"

namespace seine::test {
namespace {

std::string hex(double value) {
  if (std::isnan(value)) return "nan";  // its sign says nothing
  char text[64];
  std::snprintf(text, sizeof text, "%a", value);
  return text;
}

std::string text_of(const GoldenCase& c, const Batch& batch) {
  std::string text = "# " + name_of(c.request) + "\n";
  text += "# digest " + batch.digest + "\n# pool " + batch.pool_fingerprint + "\n";
  text += "# " + batch.certificate.kind + " value " + hex(batch.certificate.value) + " bound " +
          hex(batch.certificate.bound) + " random " + hex(batch.certificate.random) + "\n# id row score gain\n";
  for (std::size_t t = 0; t < batch.selection.rows.size(); ++t)
    text += batch.ids.as_text(t) + " " + std::to_string(batch.selection.rows[t]) + " " +
            hex(batch.selection.scores[t]) + " " + hex(batch.selection.gains[t]) + "\n";
  return text;
}

TEST(Golden, BatchesAreAsRecorded) {
  ASSERT_TRUE(!updates_golden() || world().size() == 1) << "--update-golden takes one rank";
  const SharedFolder folder(world());
  const PoolRequest pool = share_scenario(world(), golden_scenario(), folder);
  for (const GoldenCase& c : golden_cases()) {
    const std::string got = text_of(c, select_on(world(), c.request, pool));
    const std::string path = std::string(SEINE_GOLDEN_DIR) + "/" + c.name + ".txt";
    if (updates_golden()) {
      write_text(path, got);
      continue;
    }
    std::ifstream file(path);
    std::stringstream want;
    want << file.rdbuf();
    EXPECT_TRUE(file.good()) << "missing " << path << "; write it by golden_test --update-golden";
    if (world().is_root()) {
      EXPECT_EQ(got, want.str()) << c.name;
    } else {
      EXPECT_TRUE(got == want.str()) << c.name;
    }
  }
}

}  // namespace
}  // namespace seine::test
