// The CUDA plug-in. Without a device: it loads, says why it cannot be used, and `auto` falls back. With one: every loop
// gives the bits of the CPU backend.
#include <gtest/gtest.h>
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "cuda_device.hpp"

namespace seine {
namespace {

using test::Cuda;
using test::open_cuda;

// --- On every machine ---

TEST(CudaPlugin, SaysWhyItCannotBeUsed) {
  const auto begin = std::chrono::steady_clock::now();
  const Cuda cuda = open_cuda();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (cuda.backend) GTEST_SKIP() << "a device is usable: " << cuda.backend->describe();
  EXPECT_EQ(cuda.code, Exit::no_device);
  EXPECT_LT(seconds, 2.0);
  const std::string option = "--device cuda: ";
  ASSERT_EQ(cuda.why_not.substr(0, option.size()), option);
  const std::string reason = cuda.why_not.substr(cuda.why_not.find(": ", option.size()) + 2);  // behind the host
  EXPECT_FALSE(reason.empty());
  std::printf("[   info   ] %s\n", cuda.why_not.c_str());

  std::string why;
  const std::unique_ptr<Backend> fallback = make_backend("auto", {.threads = 1, .local_rank = 0}, why);
  EXPECT_EQ(fallback->name(), "cpu");
  EXPECT_EQ(why.substr(0, 12), "device cpu: ") << why;
  EXPECT_NE(why.find(reason), std::string::npos) << why;
}

TEST(CudaPlugin, AutoTakesAUsableDevice) {
  const Cuda cuda = open_cuda();
  if (!cuda.backend) GTEST_SKIP() << cuda.why_not;
  std::string why;
  const std::unique_ptr<Backend> chosen = make_backend("auto", {.threads = 1, .local_rank = 0}, why);
  EXPECT_EQ(chosen->name(), "cuda");
  EXPECT_EQ(why.substr(0, 13), "device cuda: ") << why;
}

TEST(CudaPlugin, AnUnknownDeviceIsWrongUsage) {
  std::string why;
  try {
    make_backend("gpu", {}, why);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), Exit::usage);
  }
}

// --- With a device ---

constexpr unsigned kSeed = 20240607;

template <class T>
std::vector<T> normal(std::mt19937_64& random, std::int64_t count, double mean = 0) {
  std::normal_distribution<double> draw(mean, 1);
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = static_cast<T>(draw(random));
  return values;
}

// Rows with a zero row and duplicates among them.
std::vector<float> some_rows(std::mt19937_64& random, std::int64_t rows, std::int64_t dim) {
  std::vector<float> x = normal<float>(random, rows * dim);
  if (rows < 3) return x;
  std::fill_n(x.begin() + static_cast<std::ptrdiff_t>(dim), dim, 0.0f);
  std::copy_n(x.begin(), dim, x.end() - static_cast<std::ptrdiff_t>(dim));
  return x;
}

std::vector<std::uint16_t> halves(const std::vector<float>& values) {
  std::vector<std::uint16_t> half;
  for (const float value : values) half.push_back(_cvtss_sh(value, 0));
  return half;
}

// Matrix on a backend.
struct Matrix {
  Array<float> single;
  Array<std::uint16_t> half;
  Array<double> wide;
  Field field;

  Matrix(Backend& on, const std::vector<float>& values, std::int64_t dim, Element type) {
    if (type == Element::f16) {
      half = Array<std::uint16_t>(on, halves(values));
      field = {half.data(), type, dim};
    } else if (type == Element::f64) {
      wide = Array<double>(on, std::vector<double>(values.begin(), values.end()));
      field = {wide.data(), type, dim};
    } else {
      single = Array<float>(on, values);
      field = {single.data(), type, dim};
    }
  }
};

// Bits of what a loop computed.
using Bits = std::vector<std::uint64_t>;
void add(Bits& bits, double value) {
  bits.push_back(std::bit_cast<std::uint64_t>(value));
}
template <class T>
void add_all(Bits& bits, const std::vector<T>& values) {
  for (const T value : values) add(bits, static_cast<double>(value));
}
void add(Bits& bits, const Nearest::State& s) {
  add(bits, s.distance2);
  bits.push_back(s.nearest);
}
void add(Bits& bits, const Race::State& s) {
  for (const double value : {s.distance2, s.left, s.since, s.fires}) add(bits, value);
  bits.push_back(s.nearest);
}
void add(Bits& bits, const Variance::State& s) {
  add(bits, s.variance);
}

class CudaLoops : public testing::TestWithParam<std::tuple<int, int>> {
 protected:
  void SetUp() override {
    cuda_ = open_cuda();
    if (!cuda_.backend) GTEST_SKIP() << cuda_.why_not;
    std::string why;
    cpu_ = make_backend("cpu", {.threads = 2, .local_rank = 0}, why);
  }

  // Runs the loop on both, with the same random numbers, and compares bits.
  void compare(const std::string& what, const std::function<Bits(Backend&, std::mt19937_64&)>& loop) {
    SCOPED_TRACE(what + ", seed " + std::to_string(kSeed));
    std::mt19937_64 random(kSeed), again(kSeed);
    const Bits expected = loop(*cpu_, random), found = loop(*cuda_.backend, again);
    ASSERT_EQ(expected.size(), found.size());
    ASSERT_FALSE(expected.empty());
    for (std::size_t i = 0; i < expected.size(); ++i)
      ASSERT_EQ(expected[i], found[i]) << "value " << i << ": " << std::bit_cast<double>(expected[i]) << " and "
                                       << std::bit_cast<double>(found[i]);
  }

  std::int64_t rows() const { return std::get<0>(GetParam()); }
  std::int64_t dim() const { return std::get<1>(GetParam()); }

  Cuda cuda_;
  std::unique_ptr<Backend> cpu_;
};

INSTANTIATE_TEST_SUITE_P(Sizes, CudaLoops,
                         testing::Combine(testing::Values(1, 255, 1000), testing::Values(1, 31, 32, 33, 784)),
                         [](const auto& size) {
                           return std::to_string(std::get<0>(size.param)) + "x" +
                                  std::to_string(std::get<1>(size.param));
                         });

TEST_P(CudaLoops, NormsAndUnitRows) {
  for (const Element type : {Element::f32, Element::f16})
    compare("squared_norms", [&](Backend& on, std::mt19937_64& random) {
      const Matrix x(on, some_rows(random, rows(), dim()), dim(), type);
      const Array<double> out(on, rows());
      on.squared_norms(x.field, rows(), out.data());
      Bits bits;
      add_all(bits, out.to_host());
      return bits;
    });
  compare("unit_rows", [&](Backend& on, std::mt19937_64& random) {
    const Array<float> x(on, some_rows(random, rows(), dim()));
    on.unit_rows(x.data(), rows(), dim());
    Bits bits;
    add_all(bits, x.to_host());
    return bits;
  });
}

// What `start` and several `apply` leave in state and key.
struct Course {
  RuleKind kind;
  Element rows, picks;
  std::int64_t classes;  // 0: dense
  bool weights, covered;
};

template <class Rule>
Bits run_course(const Course& course, Backend& on, std::mt19937_64& random, std::int64_t rows, std::int64_t dim) {
  constexpr std::int64_t kMost = 41;
  const std::vector<float> x = some_rows(random, rows, dim), a = normal<float>(random, rows * course.classes);
  std::vector<float> pick_x = normal<float>(random, kMost * dim),
                     pick_a = normal<float>(random, kMost * course.classes);
  constexpr std::int64_t kRow = 5;  // this pick is one of the rows
  std::copy_n(x.begin(), dim, pick_x.begin() + static_cast<std::ptrdiff_t>(kRow * dim));
  std::copy_n(a.begin(), course.classes, pick_a.begin() + static_cast<std::ptrdiff_t>(kRow * course.classes));
  const Matrix rows_x(on, x, dim, course.rows), rows_a(on, a, course.classes, Element::f32);
  const Matrix picks_x(on, pick_x, dim, course.picks), picks_a(on, pick_a, course.classes, Element::f32);
  Vectors vectors{rows, rows_x.field, rows_a.field}, pick_vectors{kMost, picks_x.field, picks_a.field};
  const Array<double> x2(on, rows), a2(on, rows), pick_x2(on, kMost), pick_a2(on, kMost);
  if (vectors.outer()) {
    on.squared_norms(vectors.x, rows, x2.data());
    on.squared_norms(vectors.a, rows, a2.data());
    on.squared_norms(pick_vectors.x, kMost, pick_x2.data());
    on.squared_norms(pick_vectors.a, kMost, pick_a2.data());
    vectors.x2 = x2.data(), vectors.a2 = a2.data();
    pick_vectors.x2 = pick_x2.data(), pick_vectors.a2 = pick_a2.data();
  }
  std::vector<double> weight(static_cast<std::size_t>(rows)), before(weight.size()), moment(kMost);
  std::uniform_real_distribution<double> draw(0, 1);
  for (double& w : weight) w = draw(random) < 0.1 ? 0 : draw(random);
  for (double& b : before) b = draw(random) * static_cast<double>(4 * dim);
  for (std::size_t i = 0; i < moment.size(); ++i) moment[i] = 0.001 * static_cast<double>(i + 1);
  std::vector<std::int64_t> global(weight.size());
  for (std::size_t i = 0; i < global.size(); ++i) global[i] = static_cast<std::int64_t>(3 * i + 5000000000);
  const Array<double> weights(on, weight), befores(on, before), moments(on, moment);
  const Array<std::int64_t> global_rows(on, global);
  const double* w = course.weights ? weights.data() : nullptr;
  const Array<typename Rule::State> state(on, rows);
  const Array<double> key(on, rows);
  const Array<std::uint32_t> applied(on, rows);
  const Start start{course.covered ? befores.data() : nullptr, global_rows.data(), 77, Purpose("test", 2)};
  const RowStates states{state.data(), key.data(), applied.data(), w};
  on.start(course.kind, start, rows, states);
  Bits bits;
  add_all(bits, key.to_host());
  // Devices may stop at another pick below the floor; what reaches it, and everything in the end, is the same.
  for (const std::int64_t known : {1, 8, 16, 41}) {
    const double floor = known == 16 ? key.to_host()[static_cast<std::size_t>(rows / 2)] : -HUGE_VAL;
    on.apply(course.kind, vectors, {pick_vectors.from(0, known), moments.data()}, floor, states);
    std::vector<double> keys = key.to_host();
    for (double& value : keys)
      if (!(value >= floor)) value = 0;
    add_all(bits, keys);
  }
  for (const typename Rule::State& s : state.to_host()) add(bits, s);
  return bits;
}

TEST_P(CudaLoops, Rules) {
  std::vector<Course> courses;
  for (const Element rows : {Element::f32, Element::f16})
    for (const bool weights : {false, true}) {
      for (const bool covered : {false, true})
        for (const RuleKind kind : {RuleKind::nearest, RuleKind::race})
          for (const std::int64_t classes : {0, 2, 10, 33})
            courses.push_back({kind, rows, covered ? rows : Element::f32, classes, weights, covered});
      courses.push_back({RuleKind::variance, rows, Element::f64, 0, weights, true});
    }
  for (const Course& course : courses)
    compare("rule " + std::to_string(static_cast<int>(course.kind)) + ", elements " +
                std::to_string(static_cast<int>(course.rows)) + ", classes " + std::to_string(course.classes) +
                ", weights " + std::to_string(course.weights) + ", covered " + std::to_string(course.covered),
            [&](Backend& on, std::mt19937_64& random) {
              return with_rule(course.kind, [&](auto rule) {
                return run_course<decltype(rule)>(course, on, random, rows(), dim());
              });
            });
}

TEST_P(CudaLoops, Top) {
  // Levels: how many different keys there are. 1: all are equal.
  for (const int levels : {1, 3, 1000000})
    for (const bool ascending : {true, false})
      for (const std::int64_t count : {std::int64_t{1}, std::int64_t{10}, rows() / 2, rows() + 7})
        compare("top " + std::to_string(count) + " of " + std::to_string(levels) + " levels",
                [&](Backend& on, std::mt19937_64& random) {
                  std::vector<double> key(static_cast<std::size_t>(rows()));
                  std::vector<std::uint8_t> selectable(key.size(), 1);
                  std::vector<std::int64_t> global(key.size());
                  for (std::size_t i = 0; i < key.size(); ++i) {
                    key[i] = static_cast<double>(static_cast<int>(random() % static_cast<unsigned>(levels)) - 1);
                    if (random() % 4 == 0) key[i] = -std::numeric_limits<double>::infinity();
                    selectable[i] = random() % 5 != 0;
                    global[i] = static_cast<std::int64_t>(10 * i + 7);
                  }
                  if (!ascending) std::shuffle(global.begin(), global.end(), random);
                  const Array<double> keys(on, key);
                  const Array<std::uint8_t> mask(on, selectable);
                  const Array<std::int64_t> rows_of(on, global);
                  Bits bits{1};
                  if (rows() <= Backend::kExactRows) add(bits, on.nth(keys.data(), mask.data(), rows(), count));
                  bits.push_back(static_cast<std::uint64_t>(on.at_least(keys.data(), mask.data(), rows(), 0)));
                  for (const Candidate& best : on.top(keys.data(), mask.data(), rows_of.data(), rows(), count)) {
                    add(bits, best.value);
                    bits.push_back(static_cast<std::uint64_t>(best.row));
                  }
                  return bits;
                });
}

TEST_P(CudaLoops, Gather) {
  for (const Element type : {Element::f32, Element::f16})
    compare("gather", [&](Backend& on, std::mt19937_64& random) {
      const Matrix x(on, some_rows(random, rows(), dim()), dim(), type);
      std::vector<std::int64_t> positions(17);
      for (std::int64_t& position : positions)
        position = static_cast<std::int64_t>(random() % static_cast<unsigned>(rows()));
      std::vector<std::uint8_t> host(positions.size() * x.field.row_bytes());
      on.gather(x.field.data, x.field.row_bytes(), positions, host.data());
      return Bits(host.begin(), host.end());
    });
}

TEST_P(CudaLoops, FacilityLocation) {
  const std::int64_t dims = dim();
  for (const std::int64_t count : {1, 8, 33, 70})
    for (const bool weights : {false, true})
      compare("gains and raise", [&](Backend& on, std::mt19937_64& random) {
        const Array<float> ground(on, normal<float>(random, rows() * dims, 0.1));
        const Array<float> candidates(on, normal<float>(random, count * dims, 0.1));
        on.unit_rows(ground.data(), rows(), dims);
        on.unit_rows(candidates.data(), count, dims);
        const Array<double> weight(on, normal<double>(random, rows(), 5));
        const Array<float> best(on, std::vector<float>(static_cast<std::size_t>(rows()), 0.0f));
        const Field x{ground.data(), Element::f32, dims}, y{candidates.data(), Element::f32, dims};
        const FixedPoint fixed = FixedPoint::for_sum(rows(), 16, 30);
        Bits bits;
        for (const std::int64_t raised : {std::int64_t{0}, std::min<std::int64_t>(count, 3)}) {
          on.raise(x, rows(), y, raised, best.data());
          add_all(bits, best.to_host());
          std::vector<std::int64_t> gains(static_cast<std::size_t>(count), 42);
          on.gains(x, {rows(), nullptr, best.data(), nullptr}, weights ? weight.data() : nullptr, fixed, y, count,
                   gains.data());
          for (const std::int64_t gain : gains) bits.push_back(static_cast<std::uint64_t>(gain));
          std::vector<std::int64_t> some;
          for (std::int64_t i = 0; i < rows(); i += 2) some.push_back(i);
          const Array<std::int64_t> band(on, some);
          const Array<float> above(on, std::vector<float>(some.size(), 0.1f));
          const Array<float> below(on, std::vector<float>(some.size(), 0.4f));
          on.gains(x, {band.size(), band.data(), above.data(), below.data()}, weights ? weight.data() : nullptr, fixed,
                   y, count, gains.data());
          for (const std::int64_t gain : gains) bits.push_back(static_cast<std::uint64_t>(gain));
          // Lists have no order: their lengths, and what follows from them.
          const std::int64_t room = rows();
          const Array<Near> memory(on, count * room);
          std::vector<Near*> lists;
          for (std::int64_t j = 0; j < count; ++j) lists.push_back(memory.data() + j * room);
          std::vector<std::int64_t> near(gains.size());
          on.first_gains(x, {rows(), nullptr, best.data(), nullptr}, weights ? weight.data() : nullptr, fixed, y, {},
                         lists, room, gains.data(), near.data());
          bits.insert(bits.end(), gains.begin(), gains.end());
          bits.insert(bits.end(), near.begin(), near.end());
          on.raise_listed(lists[0], near[0], best.data());
          add_all(bits, best.to_host());
          on.listed_gains(lists, best.data(), weights ? weight.data() : nullptr, fixed, near.data(), gains.data());
          bits.insert(bits.end(), gains.begin(), gains.end());
        }
        return bits;
      });
}

TEST_P(CudaLoops, WeightedSumsAndProducts) {
  compare("weighted_sum and products", [&](Backend& on, std::mt19937_64& random) {
    const Array<float> x(on, normal<float>(random, rows() * dim(), 0.1));
    const Array<double> factor(on, normal<double>(random, rows(), 5)), vector(on, normal<double>(random, dim(), 5));
    const Field field{x.data(), Element::f32, dim()};
    std::vector<std::int64_t> sums(static_cast<std::size_t>(dim()));
    on.weighted_sum(field, rows(), factor.data(), FixedPoint::for_sum(rows(), 64, 30), sums.data());
    Bits bits(sums.begin(), sums.end());
    const Array<double> out(on, rows());
    on.products(field, rows(), vector.data(), out.data());
    add_all(bits, out.to_host());
    return bits;
  });
}

TEST_P(CudaLoops, SecondMoments) {
  const std::int64_t dims = std::min<std::int64_t>(dim(), 70);
  compare("gram", [&](Backend& on, std::mt19937_64& random) {
    const Array<float> x(on, some_rows(random, rows(), dims));
    const FixedPoint fixed = FixedPoint::for_sum(rows(), 64);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(dims * dims), 5);
    std::vector<std::int64_t> groups{0};
    for (const std::int64_t border : {rows() / 3, rows() / 3, rows()}) groups.push_back(border);
    for (int time = 0; time < 2; ++time) on.gram({x.data(), Element::f32, dims}, groups, fixed, sums.data());
    return Bits(sums.begin(), sums.end());
  });
}

// Many rows and picks, so that products decide who meets, as they do not where rows come in small pieces.
class CudaFilter : public testing::Test {
 protected:
  void SetUp() override {
    cuda_ = open_cuda();
    if (!cuda_.backend) GTEST_SKIP() << cuda_.why_not;
    if (cuda_.backend->describe().find("products by cuBLAS") == std::string::npos)
      GTEST_SKIP() << cuda_.backend->describe();
  }

  static constexpr std::int64_t kDim = 256, kClusters = 500;
  // Rows about centres, one after the other.
  static std::vector<float> clusters(std::int64_t rows) {
    std::mt19937_64 random(kSeed);
    const std::vector<float> centre = normal<float>(random, kClusters * kDim, 0.5);
    std::vector<float> x = normal<float>(random, rows * kDim);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.4f * x[i] + centre[i % centre.size()];
    return x;
  }

  Cuda cuda_;
};

// A course of picks, which are the first rows, over pieces of so many rows.
struct Filtered {
  Bits bits;
  std::int64_t met = 0;  // pairs
};
template <class Rule>
Filtered run_in_pieces(Backend& on, RuleKind rule, const Field& x, std::int64_t rows, std::int64_t piece) {
  constexpr std::int64_t kPicks = 600;
  std::mt19937_64 random(kSeed);
  std::vector<double> moment(kPicks);
  for (std::size_t i = 0; i < moment.size(); ++i) moment[i] = 1e-6 * static_cast<double>(i + 1);
  const Array<double> weights(on, normal<double>(random, rows, 5)), moments(on, moment), key(on, rows);
  const Array<typename Rule::State> state(on, rows);
  const Array<std::uint32_t> applied(on, rows);
  const auto states_from = [&](std::int64_t first) {
    return RowStates{state.data() + first, key.data() + first, applied.data() + first, weights.data() + first};
  };
  on.start(rule, {nullptr, nullptr, 7, Purpose("test")}, rows, states_from(0));
  Filtered filtered;
  const auto apply = [&](std::int64_t picks, double floor) {
    for (std::int64_t first = 0; first < rows; first += piece)
      filtered.met += on.apply(rule, {std::min(piece, rows - first), x.from(first), {}},
                               {{picks, x, {}}, moments.data()}, floor, states_from(first));
  };
  apply(300, -HUGE_VAL);
  std::vector<double> keys = key.to_host();
  std::nth_element(keys.begin(), keys.begin() + rows / 4, keys.end());
  apply(kPicks, keys[static_cast<std::size_t>(rows / 4)]);  // a quarter of the rows is far behind then
  apply(kPicks, -HUGE_VAL);
  for (const typename Rule::State& s : state.to_host()) add(filtered.bits, s);
  return filtered;
}

TEST_F(CudaFilter, SparesMostPairsOfRowsAndPicksAndChangesNothing) {
  constexpr std::int64_t kRows = 150'000, kPiece = 4096;
  Backend& on = *cuda_.backend;
  const std::vector<float> values = clusters(kRows);
  for (const Element type : {Element::f32, Element::f16}) {
    const Matrix x(on, values, kDim, type);
    for (const RuleKind rule : {RuleKind::nearest, RuleKind::race}) {
      SCOPED_TRACE(testing::Message() << "rule " << static_cast<int>(rule)
                                      << (type == Element::f16 ? ", float16" : ""));
      const auto run = [&](std::int64_t piece) {
        return rule == RuleKind::nearest ? run_in_pieces<Nearest>(on, rule, x.field, kRows, piece)
                                         : run_in_pieces<Race>(on, rule, x.field, kRows, piece);
      };
      const Filtered plain = run(kPiece), filtered = run(kRows);
      EXPECT_TRUE(filtered.bits == plain.bits);
      EXPECT_LT(filtered.met, plain.met / 2);
    }
  }
}

TEST_F(CudaFilter, FirstGainsAreTheSame) {
  constexpr std::int64_t kRows = 100'000, kRoom = 2000;
  constexpr std::size_t kCandidates = 512;
  Backend& on = *cuda_.backend;
  const Array<float> x(on, clusters(kRows));
  on.unit_rows(x.data(), kRows, kDim);
  const Field field{x.data(), Element::f32, kDim};
  const FixedPoint fixed = FixedPoint::for_sum(kRows, 16, 30);
  for (const std::int64_t raised : {std::int64_t{0}, kClusters}) {  // nothing is spared, and most pairs
    const Array<float> best(on, std::vector<float>(kRows, 0.0f));
    on.raise(field, kRows, field, raised, best.data());
    // So many candidates together.
    const auto gains_of = [&](std::size_t together) {
      const Array<Near> memory(on, static_cast<std::int64_t>(kCandidates) * kRoom);
      std::vector<Near*> lists;
      for (std::size_t j = 0; j < kCandidates; ++j)
        lists.push_back(memory.data() + static_cast<std::int64_t>(j) * kRoom);
      std::vector<std::int64_t> gains(kCandidates), near(kCandidates);
      for (std::size_t j = 0; j < kCandidates; j += together)
        on.first_gains(field, {kRows, nullptr, best.data(), nullptr}, nullptr, fixed,
                       field.from(kClusters + static_cast<std::int64_t>(j)), {}, std::span(lists).subspan(j, together),
                       kRoom, gains.data() + j, near.data() + j);
      Bits bits(gains.begin(), gains.end());
      bits.insert(bits.end(), near.begin(), near.end());
      std::vector<Near> listed = memory.to_host();
      for (std::size_t j = 0; j < kCandidates; ++j) {
        if (near[j] > kRoom) continue;
        const auto list = listed.begin() + static_cast<std::ptrdiff_t>(j) * kRoom;
        std::sort(list, list + near[j], [](const Near& a, const Near& b) { return a.row < b.row; });
        for (auto entry = list; entry < list + near[j]; ++entry) {
          bits.push_back(static_cast<std::uint64_t>(entry->row));
          add(bits, entry->similarity);
        }
      }
      return bits;
    };
    EXPECT_TRUE(gains_of(kCandidates) == gains_of(8)) << raised;
  }
}

}  // namespace
}  // namespace seine
