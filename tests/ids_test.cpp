#include "seine/ids.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <utility>

#include "errors.hpp"
#include "pools.hpp"
#include "reading/duplicate_ids.hpp"
#include "reading/hdf5.hpp"
#include "reading/id_list.hpp"
#include "seine/pool_paths.hpp"
#include "seine/roles.hpp"
#include "world.hpp"

namespace seine::test {
namespace {

using Texts = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

// A pool of rows x = 0, 1, 2, ... in two files, opened by all ranks.
class SharedPool {
 public:
  explicit SharedPool(TestPool pool, const Numbers& shard_rows = {})
      : folder_(world()),
        request_(share_scenario(world(), {.pool = std::move(pool), .storage = {.shard_rows = shard_rows}}, folder_)),
        files_(world(), expand_pool_paths(request_.pool), request_.names, Needs{}),
        own_(files_.shape().rows, world().rank(), world().size()) {}

  const std::string& folder() const { return folder_.path(); }
  PoolRequest& request() { return request_; }
  const PoolFiles& files() const { return files_; }
  const Ownership& own() const { return own_; }

  Numbers rows_of(const Texts& ids) const { return rows_of_ids(world(), files_, own_, ids); }
  // What every row of the pool is: one letter each, candidate, bystander, pending, labelled.
  std::string roles(Texts* warnings = nullptr) const {
    const std::vector<Role> mine = read_roles(world(), files_, own_, request_, [&](const std::string& line) {
      if (warnings) warnings->push_back(line);
    });
    std::vector<std::int64_t> all(static_cast<std::size_t>(files_.shape().rows));
    for (std::size_t row = 0; row < all.size(); ++row)
      if (own_.owner(static_cast<std::int64_t>(row)) == world().rank())
        all[row] =
            static_cast<std::int64_t>(mine[static_cast<std::size_t>(own_.local(static_cast<std::int64_t>(row)))]);
    world().sum(std::span<std::int64_t>(all));
    std::string letters;
    for (std::int64_t role : all) letters += "cbpl"[role];
    return letters;
  }
  // The path of a new list, for use in the request.
  Texts list(const std::string& name, const std::string& content) const {
    const std::string path = folder() + "/" + name;
    world().agree([&] {
      if (world().is_root()) write_text(path, content);
    });
    return {path};
  }

 private:
  SharedFolder folder_;
  PoolRequest request_;
  PoolFiles files_;
  Ownership own_;
};

TestPool counted(std::int64_t rows) {
  std::vector<double> x;
  for (std::int64_t row = 0; row < rows; ++row) x.push_back(static_cast<double>(row));
  return line_pool(x);
}

TestPool with_numbers(Numbers ids) {
  TestPool pool = counted(static_cast<std::int64_t>(ids.size()));
  pool.numbers = std::move(ids);
  return pool;
}

TestPool with_words(Texts ids) {
  TestPool pool = counted(static_cast<std::int64_t>(ids.size()));
  pool.words = std::move(ids);
  return pool;
}

// Files of this process alone: every rank has its own.
class IdList : public testing::Test {
 protected:
  std::string write(const std::string& name, const std::string& content) const {
    write_text(folder_.path() + "/" + name, content);
    return folder_.path() + "/" + name;
  }
  Texts read(const std::string& name, const std::string& content) const { return read_id_list(write(name, content)); }
  void fails(const std::string& name, const std::string& content, const std::string& text) const {
    const std::string path = write(name, content);
    expect_error(Exit::bad_data, path + ": " + text, [&] { read_id_list(path); });
  }

  Folder folder_;
};

TEST_F(IdList, Csv) {
  EXPECT_EQ(read("a.csv", "id\n1\n2\n"), (Texts{"1", "2"}));
  EXPECT_EQ(read("a.csv", "\xef\xbb\xbfrow,id\r\n0,\"a,\"\"b\"\"\"\r\n\r\n1,\"two\r\nlines\"\r\n2,"),
            (Texts{"a,\"b\"", "two\r\nlines", ""}));
  EXPECT_EQ(read("a.CSV", "\"id\",row,score,gain\n\303\251,1,nan,inf"), (Texts{"\303\251"}));
  EXPECT_EQ(read("a.csv", "id\n"), Texts{});
}

TEST_F(IdList, CsvFaults) {
  fails("a.csv", "", "line 1: expected a header with a column `id`");
  fails("a.csv", "Id,row\n1,2\n", "line 1: expected a header with a column `id`");
  fails("a.csv", "id,id\n1,2\n", "line 1: expected one column `id`");
  fails("a.csv", "id,row\n1,2\n\n3\n", "line 4: expected 2 fields, found 1");
  fails("a.csv", "id\n\"a\nb\"\n\"c\n", "line 4: expected a closing quote");
  fails("a.csv", "id\n\"a\nb\"c\n", "line 3: expected a comma");
  fails("a.csv", "id\na\"b\n", "line 2: found a quote");
  fails("a.csv", std::string("id\n1\n\0\n", 7), "line 3: expected text, found a zero byte");
}

TEST_F(IdList, Lines) {
  EXPECT_EQ(read("a.txt", "7\r\n\r\n  \nx y\n+8"), (Texts{"7", "x y", "+8"}));
  EXPECT_EQ(read("list", ""), Texts{});
}

TEST_F(IdList, Json) {
  EXPECT_EQ(read("a.json", "{\"ids\": [1, \"x\", -3, 18446744073709551615], \"rows\": [0]}"),
            (Texts{"1", "x", "-3", "18446744073709551615"}));
  fails("a.json", "{\"ids\":\n [1,\n ,2]}", "line 3: expected JSON");
  fails("a.json", "[1, 2]", "expected a batch file");
  fails("a.json", "{\"ids\": 3}", "expected a batch file");
  fails("a.json", "{\"ids\": [1, 2.5]}", "\"ids\", entry 1: expected an integer or a string, found 2.5");
}

TEST_F(IdList, Hdf5) {
  const std::string path = folder_.path() + "/a.h5";
  const auto put = [&](auto values) {
    const h5::Id file = h5::create_file(path);
    h5::write_dataset(file.get(), "ids", std::span<const typename decltype(values)::value_type>(values), path);
  };
  put(Numbers{3, -1});
  EXPECT_EQ(read_id_list(path), (Texts{"3", "-1"}));
  put(Texts{"a", "\303\251"});
  EXPECT_EQ(read_id_list(path), (Texts{"a", "\303\251"}));
  put(std::vector<double>{1.5});
  expect_error(Exit::bad_data, path + ": dataset \"ids\": expected", [&] { read_id_list(path); });
  h5::create_file(path);
  expect_error(Exit::bad_data, path + ": dataset \"ids\" is missing", [&] { read_id_list(path); });
  fails("b.h5", "not HDF5", "expected an HDF5 file");
}

TEST_F(IdList, NotThere) {
  for (const char* name : {"gone.csv", "gone.txt", "gone.json", "gone.h5"})
    expect_error(Exit::no_input, "no such file", [&] { read_id_list(folder_.path() + "/" + name); });
  std::filesystem::create_directory(folder_.path() + "/folder.csv");
  expect_error(Exit::no_input, "folder.csv", [&] { read_id_list(folder_.path() + "/folder.csv"); });
}

TEST(RowsOfIds, IntegersHoweverWritten) {
  const SharedPool pool(with_numbers({40, -7, 0, 7}), {3, 1});
  EXPECT_EQ(pool.rows_of({"7", "+7", "007", " 7 ", "-7", "-0", "x", "7.0", "", "+-7", "8", "99999999999999999999"}),
            (Numbers{3, 3, 3, 3, 1, 2, -1, -1, -1, -1, -1, -1}));
  EXPECT_EQ(pool.rows_of({}), Numbers{});
}

TEST(RowsOfIds, Words) {
  const SharedPool pool(with_words({"a", "7", "\303\251", "07"}), {0, 2, 2});
  EXPECT_EQ(pool.rows_of({"07", "\303\251", "7", "+7", "b", "a", "a"}), (Numbers{3, 2, 1, -1, -1, 0, 0}));
}

TEST(RowsOfIds, TheRowNumberWhereThePoolHasNoIds) {
  const SharedPool pool(counted(5), {2, 3});
  EXPECT_EQ(pool.rows_of({"4", "5", "-1", "+3", "x"}), (Numbers{4, -1, -1, 3, -1}));
}

TEST(RowsOfIds, ManyRowsAndIds) {
  Numbers numbers, expected;
  Texts asked;
  for (std::int64_t row = 0; row < 5000; ++row) numbers.push_back((row * 7919) % 5000 * 1000003 - 2000000000);
  for (std::int64_t row = 0; row < 5000; row += 3) {
    asked.push_back(std::to_string(numbers[static_cast<std::size_t>(row)]));
    asked.push_back(std::to_string(numbers[static_cast<std::size_t>(row)] + 1));
    expected.insert(expected.end(), {row, -1});
  }
  const SharedPool pool(with_numbers(numbers), {1, 2499, 2500});
  EXPECT_EQ(pool.rows_of(asked), expected);
}

TEST(UniqueIds, NamesBothPlaces) {
  Numbers numbers(3000);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i);
  const auto check = [&](const SharedPool& pool) { check_ids_unique(world(), pool.files(), pool.own()); };
  EXPECT_NO_THROW(check(SharedPool(with_numbers(numbers))));
  EXPECT_NO_THROW(check(SharedPool(counted(10))));
  numbers[2999] = 3;
  numbers[2000] = numbers[1500] = 700;
  const SharedPool pool(with_numbers(numbers), {1000, 0, 2000});
  const Texts& paths = pool.files().paths();
  expect_error(Exit::bad_data,
               paths[2] + ": dataset \"ids\", row 500: expected unique ids, found \"700\" again, first at " + paths[0] +
                   " row 700",
               [&] { check(pool); });
  const auto all = duplicate_ids(world(), pool.files(), pool.own(), 20);
  ASSERT_EQ(all.size(), 3U);
  EXPECT_EQ(all[1].row, 2000);
  EXPECT_EQ(all[1].earlier, 700);
  EXPECT_EQ(all[2].row, 2999);
  EXPECT_EQ(all[2].earlier, 3);
  expect_error(Exit::bad_data, "found \"a\" again", [&] { check(SharedPool(with_words({"a", "b", "a"}))); });
}

TEST(Roles, TheStrongestListWins) {
  SharedPool pool(with_words({"a", "b", "c", "d", "e", "f"}));
  PoolRequest& request = pool.request();
  EXPECT_EQ(pool.roles(), "cccccc");
  request.labelled = pool.list("labelled.csv", "id\na\nb\n");
  request.pending = pool.list("pending", "b\nc\n");
  request.exclude = pool.list("exclude", "a\nc\nd\n");
  EXPECT_EQ(pool.roles(), "llpbcc");
  request.candidates = pool.list("candidates.json", "{\"ids\": [\"a\", \"b\", \"c\", \"d\", \"e\"]}");
  EXPECT_EQ(pool.roles(), "llpbcb");
}

TEST(Roles, LabelsInThePool) {
  TestPool content = with_numbers({10, 20, 30, 40});
  content.labels = {-1, 0, -5, 3};
  SharedPool pool(content, {1, 3});
  pool.request().pending = pool.list("pending", "20\n30\n");
  EXPECT_EQ(pool.roles(), "clpl");
}

TEST(Roles, UnknownIdsAreOneLinePerOption) {
  SharedPool pool(with_numbers({10, 20, 30}));
  PoolRequest& request = pool.request();
  request.labelled = pool.list("one", "10\nx9\n");
  request.labelled.push_back(pool.list("two", "11\n")[0]);
  request.exclude = pool.list("three", "20\n");
  request.candidates = pool.list("four", "20\n30\n40\n");
  Texts warnings;
  EXPECT_EQ(pool.roles(&warnings), "lbc");
  const Texts expected{"--labelled: 2 of 3 ids are not in the pool (first: \"x9\")",
                       "--candidates: 1 of 3 ids are not in the pool (first: \"40\")"};
  EXPECT_EQ(warnings, world().is_root() ? expected : Texts{});
  request.strict_ids = true;
  expect_error(Exit::bad_data, expected[0], [&] { pool.roles(); });
}

TEST(Roles, NoCandidateLeft) {
  TestPool content = counted(3);
  content.labels = {1, 0, 2};
  SharedPool labelled(content);
  expect_error(Exit::bad_data, "--labels none", [&] { labelled.roles(); });
  SharedPool excluded(counted(2));
  excluded.request().exclude = excluded.list("all", "0\n1\n");
  expect_error(Exit::bad_data, "no candidate is left of 2 rows: the lists", [&] { excluded.roles(); });
  excluded.request().exclude = {excluded.folder() + "/gone.csv"};
  expect_error(Exit::no_input, "gone.csv: no such file", [&] { excluded.roles(); });
}

TEST(FetchIds, KeepsTheOrder) {
  const Numbers rows{4, 0, 3000, 4, 2999, 1};
  Texts words;
  Numbers numbers;
  for (std::int64_t row = 0; row < 3001; ++row) {
    numbers.push_back(-3 * row);
    words.push_back("w" + std::to_string(row));
  }
  const auto texts = [&](const SharedPool& pool) {
    const IdColumn ids = fetch_ids(world(), pool.files(), rows);
    Texts all;
    for (std::size_t i = 0; i < rows.size(); ++i) all.push_back(ids.as_text(i));
    return all;
  };
  EXPECT_EQ(texts(SharedPool(counted(3001), {1000, 2001})), (Texts{"4", "0", "3000", "4", "2999", "1"}));
  EXPECT_EQ(texts(SharedPool(with_numbers(numbers), {5, 2996})), (Texts{"-12", "0", "-9000", "-12", "-8997", "-3"}));
  EXPECT_EQ(texts(SharedPool(with_words(words), {3000, 1})), (Texts{"w4", "w0", "w3000", "w4", "w2999", "w1"}));
}

}  // namespace
}  // namespace seine::test
