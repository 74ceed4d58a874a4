#include "seine/row_store.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>

#include "errors.hpp"
#include "pools.hpp"
#include "reading/file_rows.hpp"
#include "seine/input.hpp"
#include "selecting.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

constexpr std::int64_t kRows = 900, kDim = 9;

// The rows of a pool in files, streamed with room for some of them, beside what they are.
struct Streamed {
  explicit Streamed(std::int64_t room_bytes, const std::string& device = "cpu", Storage storage = {}, bool unit = false)
      : folder(world()),
        scenario{.pool = random_pool(kRows, kDim, 4, 0, 77), .storage = std::move(storage)},
        backend(backend_of(device, 1)) {
    request = share_scenario(world(), scenario, folder);
    const OpenedPool opened = open_pool(world(), request, {.embeddings = true, .probabilities = true}, {});
    const RowFormat format{Element::f32, kDim, opened.files.shape().classes};
    for (std::int64_t row = 3; row < kRows; row += 1 + row % 3) rows.push_back(row);
    store.emplace(
        *backend, format,
        RowStore::Stream{file_rows(opened.files, format, unit), rows, {}, std::make_shared<Room>(room_bytes)});
  }

  // Row `position` as the pool has it.
  std::vector<float> x(std::int64_t position) const {
    const double* row = scenario.pool.x.data() + rows[static_cast<std::size_t>(position)] * kDim;
    return {row, row + kDim};
  }
  std::vector<float> host(const Vectors& v) const {
    std::vector<float> out(static_cast<std::size_t>(v.rows * kDim));
    backend->copy_out(out.data(), v.x.data, out.size() * sizeof(float));
    return out;
  }

  SharedFolder folder;
  Scenario scenario;
  std::unique_ptr<Backend> backend;
  PoolRequest request;
  std::vector<std::int64_t> rows;
  std::optional<RowStore> store;
};

void expect_all_in_order(const Streamed& streamed) {
  std::int64_t next = 0;
  streamed.store->visit_all([&](std::int64_t first, const Vectors& v) {
    ASSERT_EQ(first, next);
    const std::vector<float> x = streamed.host(v);
    for (std::int64_t i = 0; i < v.rows; ++i)
      ASSERT_EQ(0, std::memcmp(x.data() + i * kDim, streamed.x(first + i).data(), kDim * sizeof(float)));
    next = first + v.rows;
    const auto tile = [&](std::int64_t at) { return streamed.rows[static_cast<std::size_t>(at)] / 256; };
    if (next < streamed.store->rows()) {
      EXPECT_NE(tile(next), tile(next - 1)) << "a piece ends where a tile ends";
    }
  });
  EXPECT_EQ(next, streamed.store->rows());
}

// What is asked for comes, whatever stayed in memory before; and single rows are those of the files.
void expect_scattered(Streamed& streamed) {
  const std::int64_t own = streamed.store->rows();
  std::vector<double> urgency(static_cast<std::size_t>(own));
  for (int round = 0; round < 6; ++round) {
    std::vector<std::int64_t> wanted;
    for (std::int64_t i = 0; i < own; ++i) {
      urgency[static_cast<std::size_t>(i)] = static_cast<double>((i * 7919 + round * 31) % 1009);
      if ((i + round) % (2 + round) == 0) wanted.push_back(i);
    }
    std::vector<int> seen(static_cast<std::size_t>(own));
    streamed.store->visit(wanted, urgency, [&](const Vectors& v, const std::int64_t* at) {
      std::vector<std::int64_t> positions(static_cast<std::size_t>(v.rows));
      streamed.backend->copy_out(positions.data(), at, positions.size() * sizeof(std::int64_t));
      const std::vector<float> x = streamed.host(v);
      for (std::size_t i = 0; i < positions.size(); ++i) {
        ++seen[static_cast<std::size_t>(positions[i])];
        ASSERT_EQ(0, std::memcmp(x.data() + i * kDim, streamed.x(positions[i]).data(), kDim * sizeof(float)));
      }
    });
    for (const std::int64_t i : wanted) EXPECT_EQ(seen[static_cast<std::size_t>(i)], 1) << i << " in round " << round;
    const std::vector<std::int64_t> some{own - 1, 0, 17, own / 2, 18};
    std::vector<float> x(some.size() * kDim), a(some.size() * 4);
    streamed.store->gather(some, reinterpret_cast<std::byte*>(x.data()), a.data());
    for (std::size_t i = 0; i < some.size(); ++i)
      EXPECT_EQ(0, std::memcmp(x.data() + i * kDim, streamed.x(some[i]).data(), kDim * sizeof(float)));
    const RowStore part = streamed.store->chosen(std::vector<std::int64_t>{0, 17, 18}, round % 2 == 0);
    EXPECT_EQ(part.resident(), round % 2 == 0);
    std::vector<float> of_part(kDim);
    part.gather(std::vector<std::int64_t>{2}, reinterpret_cast<std::byte*>(of_part.data()), nullptr);
    EXPECT_EQ(of_part, streamed.x(18));
  }
}

TEST(RowStore, StreamsEveryRow) {
  for (const char* device : {"cpu", "checked"})
    for (const std::int64_t room : {0, 5000, 20000, 1 << 20}) {
      Streamed streamed(room, device);
      EXPECT_FALSE(streamed.store->resident());
      expect_all_in_order(streamed);
      expect_scattered(streamed);
    }
}

TEST(RowStore, StreamsChunksAndShards) {
  Streamed streamed(4000, "cpu", {.shard_rows = uneven_shards(kRows, 3), .chunk_rows = 50, .gzip = 1});
  expect_all_in_order(streamed);
  expect_scattered(streamed);
}

// Rows that went to a temporary file are those of the pool, and so are the others.
TEST(RowStore, SpilledRowsAreTheSame) {
  const SharedFolder folder(world());
  const Scenario scenario{.pool = random_pool(kRows, kDim, 4, 0, 78),
                          .storage = {.shard_rows = uneven_shards(kRows, 3), .chunk_rows = 50, .gzip = 1}};
  const OpenedPool opened =
      open_pool(world(), share_scenario(world(), scenario, folder), {.embeddings = true, .probabilities = true}, {});
  for (const std::int64_t classes : {4, 0}) {
    const RowFormat format{Element::f32, kDim, classes};
    const auto in_files = file_rows(opened.files, format, false);
    std::shared_ptr<SpilledRows> spilled;
    try {
      spilled = std::make_shared<SpilledRows>(format, opened.own.own());
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
    const auto read = [&](const RowSource& source, const std::vector<std::int64_t>& rows) {
      std::vector<float> x(rows.size() * kDim), a(rows.size() * static_cast<std::size_t>(classes));
      source.read(rows, {}, reinterpret_cast<std::byte*>(x.data()), a.data());
      x.insert(x.end(), a.begin(), a.end());
      return x;
    };
    std::int64_t place = 0;
    for (const Ownership::Run& run : opened.own.runs()) {
      std::vector<std::int64_t> rows;
      for (std::int64_t i = 0; i < run.count; ++i) rows.push_back(run.first + i);
      const std::vector<float> values = read(*in_files, rows);
      spilled->write(place, run.count, reinterpret_cast<const std::byte*>(values.data()),
                     values.data() + run.count * kDim);
      place += run.count;
    }
    const auto source = spilled_rows(spilled, opened.own, in_files, false);
    const auto unit = file_rows(opened.files, format, true);
    for (const int step : {1, 3, 200}) {
      std::vector<std::int64_t> rows, own;
      for (std::int64_t row = step / 2; row < kRows; row += step) {
        rows.push_back(row);
        if (opened.own.owns(row)) own.push_back(row);
      }
      EXPECT_EQ(read(*source, rows), read(*in_files, rows)) << step;
      EXPECT_EQ(read(*source->unit(), rows), read(*unit, rows)) << step;
      EXPECT_EQ(source->among(own, {}), nullptr) << "they are all there";
      if (own.size() == rows.size()) continue;
      const auto among = source->among(rows, {});
      ASSERT_NE(among, nullptr);
      EXPECT_EQ(read(*among, rows), read(*in_files, rows)) << step;
      EXPECT_EQ(read(*among->unit(), rows), read(*unit, rows)) << step;
    }
  }
}

TEST(RowStore, UnitRowsAreThoseOfTheBackend) {
  Streamed streamed(0, "cpu", {}, true);
  streamed.store->visit_all([&](std::int64_t first, const Vectors& v) {
    std::vector<float> want;
    for (std::int64_t i = 0; i < v.rows; ++i) {
      const std::vector<float> row = streamed.x(first + i);
      want.insert(want.end(), row.begin(), row.end());
    }
    const Array<float> on_device(*streamed.backend, std::span<const float>(want));
    streamed.backend->unit_rows(on_device.data(), v.rows, kDim);
    EXPECT_EQ(streamed.host(v), on_device.to_host());
  });
}

TEST(RowStore, FilesThatShrinkAreAnError) {
  Streamed streamed(0);
  world().barrier();
  if (world().is_root())
    for (const auto& entry : std::filesystem::recursive_directory_iterator(streamed.folder.path()))
      if (entry.path().extension() == ".h5") std::filesystem::resize_file(entry.path(), entry.file_size() / 2);
  world().barrier();
  EXPECT_THROW(streamed.store->visit_all([](std::int64_t, const Vectors&) {}), Error);
}

}  // namespace
}  // namespace seine::test
