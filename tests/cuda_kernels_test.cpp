// The kernels of the CUDA backend, compiled for the host and run thread by thread (device_on_host), give the bits of
// the CPU backend; and how they are spread over a device. What this cannot show: CUB, copies, streams, and whether the
// device's compiler does what it should; cuda_test.cpp does, on a GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>

#include "backend/cuda/coverage.cuh"
#include "backend/cuda/cublas.hpp"
#include "backend/cuda/moments.cuh"
#include "backend/cuda/rows.cuh"
#include "backend/cuda/rules.cuh"
#include "backend/cuda/selection.cuh"
#include "seine/backend.hpp"

namespace seine::test {
namespace {

std::unique_ptr<Backend> make_cpu() {
  std::string why;
  return make_backend("cpu", {.threads = 1, .local_rank = 0}, why);
}

template <class... Takes, class... Given>
void launch_blocks_of(const Three& threads, void (*kernel)(Takes...), const Grid& grid, const Given&... given) {
  DeviceBlock block;
  gridDim = {grid.x, grid.y, grid.z};
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z)
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) block.run(threads, [&] { kernel(given...); });
}
template <class... Takes, class... Given>
void launch(void (*kernel)(Takes...), const Grid& grid, const Given&... given) {
  launch_blocks_of({kThreads}, kernel, grid, given...);
}

std::vector<float> normal(std::mt19937_64& random, std::int64_t count) {
  std::normal_distribution<float> draw(0.1f, 1);
  std::vector<float> values(static_cast<std::size_t>(count));
  for (float& value : values) value = draw(random);
  return values;
}
std::vector<__half> halves(const std::vector<float>& values) {
  std::vector<__half> out;
  for (const float value : values) out.push_back({static_cast<std::uint16_t>(_cvtss_sh(value, 0))});
  return out;
}

// Bits, so that no two values but the same are equal.
template <class T>
std::vector<std::uint64_t> bits(const std::vector<T>& values) {
  std::vector<std::uint64_t> out;
  for (const T value : values) out.push_back(to_slot(value));
  return out;
}

// Sizes around a tile, a warp and a block.
constexpr std::int64_t kDims[] = {1, 31, 32, 33, 70};
constexpr std::int64_t kRows = 45;

TEST(CudaKernels, AWarpFoldsAsTheTreeDoes) {
  // As one sum of all lanes, and as 32 sums, of which a lane gets its own.
  static std::array<std::array<float, kLanes>, kLanes> value;  // of each lane
  static std::array<float, kLanes> alone, own;
  std::mt19937_64 random(5);
  for (auto& of_lane : value)
    for (float& one : of_lane) one = std::normal_distribution<float>()(random);
  DeviceBlock().run({kLanes}, [] {
    const auto lane = static_cast<std::size_t>(lane_of_warp());
    const float first[1] = {value[lane][0]};
    alone[lane] = fold(first);
    float all[kLanes];
    std::copy_n(value[lane].begin(), kLanes, all);
    own[lane] = fold(all);
  });
  for (std::size_t i = 0; i < kLanes; ++i) {
    float lanes[kLanes];
    for (std::size_t lane = 0; lane < kLanes; ++lane) lanes[lane] = value[lane][i];
    const float want = fold_lanes(lanes);
    EXPECT_EQ(own[i], want) << i;
    if (i > 0) continue;
    for (const float sum : alone) EXPECT_EQ(sum, want) << "in every lane";
  }
}

TEST(CudaKernels, ThreadsThatWaitForEverAreFound) {
  EXPECT_THROW(DeviceBlock().run({kLanes},
                                 [] {
                                   if (lane_of_warp() > 0) __any_sync(kWholeWarp, true);
                                 }),
               std::logic_error);
}

TEST(CudaKernels, OneValuePerRow) {
  const auto cpu = make_cpu();
  std::mt19937_64 random(1);
  for (const std::int64_t dim : kDims) {
    std::vector<float> x = normal(random, kRows * dim);
    std::fill_n(x.begin() + dim, dim, 0.0f);
    const std::vector<__half> half = halves(x);
    std::vector<double> got(kRows), want(kRows), vector(static_cast<std::size_t>(dim), 0.3);
    launch(squared_norms_of_rows<float>, blocks(kRows, kWarps), x.data(), kRows, dim, got.data());
    cpu->squared_norms({x.data(), Element::f32, dim}, kRows, want.data());
    EXPECT_EQ(bits(got), bits(want)) << dim;
    launch(squared_norms_of_rows<__half>, blocks(kRows, kWarps), half.data(), kRows, dim, got.data());
    cpu->squared_norms({half.data(), Element::f16, dim}, kRows, want.data());
    EXPECT_EQ(bits(got), bits(want)) << dim << " of float16";
    launch(products_of_rows, blocks(kRows, kWarps), x.data(), kRows, dim, vector.data(), got.data());
    cpu->products({x.data(), Element::f32, dim}, kRows, vector.data(), want.data());
    EXPECT_EQ(bits(got), bits(want)) << dim << " products";
    std::vector<float> wide(half.size()), unit = x, unit_by_cpu = x;
    launch(widen_values, blocks(kRows * dim, kThreads), half.data(), kRows * dim, wide.data());
    for (std::size_t i = 0; i < wide.size(); ++i) ASSERT_EQ(wide[i], __half2float(half[i]));
    launch(make_unit_rows, blocks(kRows, kWarps), unit.data(), kRows, dim);
    cpu->unit_rows(unit_by_cpu.data(), kRows, dim);
    EXPECT_EQ(bits(unit), bits(unit_by_cpu)) << dim;
  }
}

// Rows and picks of one geometry, and what rules want to know of them.
struct Meeting {
  Meeting(std::mt19937_64& random, std::int64_t dim_, std::int64_t classes)
      : dim(dim_),
        x(normal(random, kRows * dim)),
        a(normal(random, kRows * classes)),
        pick_x(normal(random, kPicks * dim)),
        pick_a(normal(random, kPicks * classes)),
        half(halves(x)),
        half_picks(halves(pick_x)),
        wide_picks(pick_x.begin(), pick_x.end()),
        x2(kRows),
        a2(kRows),
        pick_x2(kPicks),
        pick_a2(kPicks),
        weight(kRows),
        before(kRows) {
    std::copy_n(x.begin() + 5 * dim, dim, pick_x.begin() + 3 * dim);  // a row is picked
    std::copy_n(half.begin() + 5 * dim, dim, half_picks.begin() + 3 * dim);
    for (const __half value : half_picks) widened_picks.push_back(__half2float(value));
    const auto cpu = make_cpu();
    cpu->squared_norms({x.data(), Element::f32, dim}, kRows, x2.data());
    cpu->squared_norms({a.data(), Element::f32, classes}, kRows, a2.data());
    cpu->squared_norms({pick_x.data(), Element::f32, dim}, kPicks, pick_x2.data());
    cpu->squared_norms({pick_a.data(), Element::f32, classes}, kPicks, pick_a2.data());
    for (std::size_t i = 0; i < weight.size(); ++i) {
      weight[i] = i % 7 == 0 ? 0 : static_cast<double>(i % 5) + 0.5;
      before[i] = static_cast<double>(dim * static_cast<std::int64_t>(1 + i % 3));
    }
    before[5] = 1e-6;  // a product must say no more than it knows of the pick that is equal
    for (std::int64_t p = 0; p < kPicks; ++p) {
      moments.push_back(0.01 * static_cast<double>(p + 1));
      noise.push_back(static_cast<double>(9 * dim + p));  // so much that variance is left to the end
    }
    rows = {kRows, {x.data(), Element::f32, dim}, {a.data(), Element::f32, classes}, x2.data(), a2.data()};
    picks = {kPicks,
             {pick_x.data(), Element::f32, dim},
             {pick_a.data(), Element::f32, classes},
             pick_x2.data(),
             pick_a2.data()};
  }
  static constexpr std::int64_t kPicks = 41;

  std::int64_t dim;
  std::vector<float> x, a, pick_x, pick_a;
  std::vector<__half> half, half_picks;
  std::vector<float> widened_picks;  // the same values
  std::vector<double> wide_picks, x2, a2, pick_x2, pick_a2, weight, before, moments, noise;
  Vectors rows, picks;
};

// The states of a rule's rows.
template <class Rule>
struct States {
  explicit States(const double* weights) : weight(weights) {}
  RowStates view() { return {state.data(), key.data(), applied.data(), weight}; }
  std::vector<typename Rule::State> state{kRows};
  std::vector<double> key = std::vector<double>(kRows);
  std::vector<std::uint32_t> applied = std::vector<std::uint32_t>(kRows);
  const double* weight;
};

// The library that stands in for cuBLAS; see fake_cublas.cpp for modes.
std::unique_ptr<Cublas> open_fake(const char* mode, std::string& why) {
  setenv("SEINE_FAKE_CUBLAS", mode, 1);
  return Cublas::open(nullptr, why, {"/nowhere/libcublas.so", SEINE_FAKE_CUBLAS_LIBRARY});
}

// Rows of a list meet the picks [first, last) of which products say that they may be near enough.
template <class Rule, class X>
void apply_near(const Cublas& products, const Vectors& rows, const LaunchRows& active, const Field& picks_x,
                Picks picks, std::int64_t first, std::int64_t last, double floor, const Places& places,
                unsigned long long* met) {
  const std::int64_t width = last - first, dim = rows.x.dim, many = active.size();
  const auto n = static_cast<std::size_t>(many);
  std::vector<X> packed(n * static_cast<std::size_t>(dim));
  std::vector<double> norms2(n), pick_norms2(static_cast<std::size_t>(width));
  std::vector<float> out(n * pick_norms2.size());
  launch(pack_rows<X>, blocks(many, kWarps), static_cast<const X*>(rows.x.data), active, dim, packed.data(),
         norms2.data());
  const Field own = picks_x.from(first), x{packed.data(), rows.x.type, dim};
  make_cpu()->squared_norms(own, width, pick_norms2.data());
  products.multiply(x, many, own, width, out.data());
  picks.vectors.rows = last;
  const NearPicks near{first, width, out.data(), norms2.data(), pick_norms2.data(), DistanceBound(x.type, dim)};
  launch(apply_picks<Rule, X, NearPicks>, apply_grid(many, 1), rows, active, picks, near, floor, places, met);
}

template <class Rule>
void expect_same_course(RuleKind kind, const Meeting& meeting, bool half, bool weights, bool listed,
                        const Cublas* products = nullptr) {
  SCOPED_TRACE(testing::Message() << "rule " << static_cast<int>(kind) << ", dim " << meeting.dim << ", classes "
                                  << meeting.rows.a.dim << (half ? ", float16" : "") << (weights ? ", weights" : "")
                                  << (products ? ", filtered"
                                      : listed ? ", listed"
                                               : ""));
  const auto cpu = make_cpu();
  Vectors rows = meeting.rows, all_picks = meeting.picks;
  if (half) rows.x = {meeting.half.data(), Element::f16, meeting.dim};
  Field picks_x = all_picks.x;
  if (products && half) {  // picks as the rows
    picks_x = {meeting.half_picks.data(), Element::f16, meeting.dim};
    all_picks.x.data = meeting.widened_picks.data();
  }
  if (kind == RuleKind::variance) all_picks.x = {meeting.wide_picks.data(), Element::f64, meeting.dim};
  const double* weight = weights ? meeting.weight.data() : nullptr;
  States<Rule> got(weight), want(weight);
  std::vector<std::int64_t> numbers(kRows);
  std::iota(numbers.begin(), numbers.end(), std::int64_t{1000});
  const Start start{meeting.before.data(), numbers.data(), 77, Purpose("test")};
  launch(start_rows<Rule>, blocks(kRows, kThreads), start, kRows, Places(got.view()));
  cpu->start(kind, start, kRows, want.view());
  ASSERT_EQ(bits(got.key), bits(want.key));
  unsigned long long all_met = 0;
  std::int64_t all_pairs = 0;
  // Filtered, there are more picks than a warp looks at together.
  for (const std::int64_t known :
       {std::int64_t{3}, std::int64_t{8}, std::int64_t{9}, products ? Meeting::kPicks : 19}) {
    const double floor = known == 9 ? want.key[kRows / 2] : -HUGE_VAL;
    const Picks picks{all_picks.from(0, known), (Rule::uses_distance ? meeting.moments : meeting.noise).data()};
    const std::vector<std::uint32_t> seen = got.applied;
    const Places places(got.view());
    std::vector<std::int32_t> list;
    const IsBehind is_behind{places, 0, known, floor};
    for (std::int32_t row = 0; row < kRows; ++row)
      if (is_behind(row)) list.push_back(row);
    const auto length = static_cast<std::int64_t>(list.size());
    LaunchRows active{0, kRows};
    if (listed) active.list = list.data(), active.length = &length;
    unsigned long long met = 0;
    if constexpr (Rule::uses_distance) {
      if (products) {  // in two blocks
        const auto apply = half ? apply_near<Rule, __half> : apply_near<Rule, float>;
        const std::int64_t border = known == Meeting::kPicks ? 4 : 0;
        if (border > 0) apply(*products, rows, active, picks_x, picks, 0, border, floor, places, &met);
        apply(*products, rows, active, picks_x, picks, border, known, floor, places, &met);
      }
    }
    if (!products)
      launch(half ? apply_picks<Rule, __half, EveryPick> : apply_picks<Rule, float, EveryPick>, apply_grid(kRows, 1),
             rows, active, picks, EveryPick{}, floor, places, &met);
    cpu->apply(kind, rows, picks, floor, want.view());
    std::int64_t pairs = 0;
    for (std::size_t i = 0; i < kRows; ++i) {
      pairs += got.applied[i] - seen[i];
      if (!(want.key[i] >= floor)) {  // where below the floor a row stops is each backend's own
        ASSERT_LT(got.key[i], floor) << i;
        continue;
      }
      ASSERT_EQ(std::bit_cast<std::uint64_t>(got.key[i]), std::bit_cast<std::uint64_t>(want.key[i])) << i;
      ASSERT_EQ(got.applied[i], known);
    }
    EXPECT_LE(static_cast<std::int64_t>(met), pairs);
    if (!products) {
      EXPECT_EQ(static_cast<std::int64_t>(met), pairs);
    }
    all_met += met, all_pairs += pairs;
  }
  if (products) {
    EXPECT_LT(static_cast<std::int64_t>(all_met), all_pairs * 3 / 4);
  }
  EXPECT_EQ(0, std::memcmp(got.key.data(), want.key.data(), kRows * sizeof(double)));
  for (std::size_t i = 0; i < kRows; ++i) {
    if constexpr (Rule::uses_distance) {
      EXPECT_EQ(got.state[i].nearest, want.state[i].nearest) << i;
      EXPECT_EQ(got.state[i].distance2, want.state[i].distance2) << i;
    } else {
      EXPECT_EQ(got.state[i].variance, want.state[i].variance) << i;
    }
  }
}

TEST(CudaKernels, PicksDoToRowsWhatTheyDoOnTheCpu) {
  std::mt19937_64 random(2);
  for (const std::int64_t dim : {1, 32, 70})
    for (const std::int64_t classes : {0, 33}) {
      const Meeting meeting(random, dim, classes);
      for (const bool half : {false, true})
        for (const bool listed : {false, true}) {
          expect_same_course<Nearest>(RuleKind::nearest, meeting, half, listed, listed);
          expect_same_course<Race>(RuleKind::race, meeting, half, !listed, listed);
          if (classes == 0) expect_same_course<Variance>(RuleKind::variance, meeting, half, listed, listed);
        }
    }
}

// Also where every product is as wrong as it may be.
TEST(CudaKernels, PicksThatProductsRuleOutChangeNothing) {
  std::mt19937_64 random(8);
  for (const char* mode : {"", "errs"}) {
    std::string why;
    const std::unique_ptr<Cublas> products = open_fake(mode, why);
    ASSERT_TRUE(products) << why;
    for (const std::int64_t dim : {1, 31, 70}) {
      const Meeting meeting(random, dim, 0);
      for (const bool half : {false, true}) {
        expect_same_course<Nearest>(RuleKind::nearest, meeting, half, half, true, products.get());
        expect_same_course<Race>(RuleKind::race, meeting, half, !half, true, products.get());
      }
    }
  }
}

// Where nobody counts what rows have seen, a block of picks starts where the one before ended.
TEST(CudaKernels, BlocksOfPicksFollowEachOther) {
  std::mt19937_64 random(9);
  const Meeting meeting(random, 33, 0);
  const auto cpu = make_cpu();
  std::string why;
  const std::unique_ptr<Cublas> products = open_fake("", why);
  States<Race> got(nullptr), want(nullptr);
  for (States<Race>* states : {&got, &want})
    cpu->start(RuleKind::race, {meeting.before.data(), nullptr, 5, Purpose("test")}, kRows, states->view());
  RowStates uncounted = got.view();
  uncounted.applied = nullptr;
  const Picks picks{meeting.picks, meeting.moments.data()};
  constexpr std::int64_t kBorder = 21;
  unsigned long long met = 0;
  const auto apply = [&](std::int64_t first, std::int64_t last) {
    apply_near<Race, float>(*products, meeting.rows, {0, kRows}, meeting.picks.x, picks, first, last, -HUGE_VAL,
                            Places(uncounted), &met);
  };
  apply(0, kBorder);
  launch(apply_picks<Race, float, EveryPick>, apply_grid(kRows, 1), meeting.rows, LaunchRows{0, kRows},
         Picks{meeting.picks.from(0, kBorder + 5), meeting.moments.data()}, EveryPick{kBorder}, -HUGE_VAL,
         Places(uncounted), &met);
  EXPECT_LT(met, static_cast<unsigned long long>(kRows * (kBorder + 5)));
  apply(kBorder + 5, Meeting::kPicks);
  cpu->apply(RuleKind::race, meeting.rows, picks, -HUGE_VAL, want.view());
  EXPECT_EQ(bits(got.key), bits(want.key));
}

TEST(CudaKernels, ProductsAreOfRowsAndVectors) {
  std::string why;
  const std::unique_ptr<Cublas> products = open_fake("", why);
  ASSERT_TRUE(products) << why;
  EXPECT_EQ(why, "cuBLAS 12.3");
  // 2 rows and 3 vectors of 2 components.
  const std::vector<float> x{1, 2, 3, 4}, y{1, 0, 0, 1, 5, 5}, want{1, 2, 15, 3, 4, 35};
  const std::vector<__half> half_x = halves(x), half_y = halves(y);
  std::vector<float> out(6);
  products->multiply({x.data(), Element::f32, 2}, 2, {y.data(), Element::f32, 2}, 3, out.data());
  EXPECT_EQ(out, want);
  out.assign(6, 0);
  products->multiply({half_x.data(), Element::f16, 2}, 2, {half_y.data(), Element::f16, 2}, 3, out.data());
  EXPECT_EQ(out, want);
}

TEST(CudaKernels, WithoutALibraryForProductsThereIsAReason) {
  std::string why;
  EXPECT_FALSE(open_fake("fails", why));
  EXPECT_EQ(why, "cuBLAS: the fake has no device, while starting it");
  EXPECT_FALSE(Cublas::open(nullptr, why, {"/nowhere/libcublas.so"}));
  EXPECT_NE(why.find("/nowhere/libcublas.so"), std::string::npos) << why;
}

TEST(CudaKernels, LagIsMeasured) {
  std::vector<std::uint32_t> applied(kRows);
  std::iota(applied.begin(), applied.end(), 3u);
  RowStates states;
  states.applied = applied.data();
  const std::vector<std::int32_t> list{0, 7, 44};
  unsigned long long pairs = 0, longest = 0;
  launch(measure_lag, blocks(3, kThreads), LaunchRows{0, 3, list.data()}, Places(states), 50, &pairs, &longest);
  EXPECT_EQ(pairs, 47u + 40 + 3);
  EXPECT_EQ(longest, 47u);
}

// Streamed rows lie elsewhere than their states.
TEST(CudaKernels, RowsFindTheirStates) {
  std::mt19937_64 random(3);
  const Meeting meeting(random, 33, 0);
  const auto cpu = make_cpu();
  std::vector<std::int64_t> at(kRows);
  for (std::int64_t i = 0; i < kRows; ++i) at[static_cast<std::size_t>(i)] = i * 7 % kRows;
  States<Nearest> got(nullptr), want(nullptr);
  cpu->start(RuleKind::nearest, {meeting.before.data()}, kRows, got.view());
  cpu->start(RuleKind::nearest, {meeting.before.data()}, kRows, want.view());
  RowStates scattered = got.view(), by_cpu = want.view();
  scattered.at = by_cpu.at = at.data();
  unsigned long long met = 0;
  const Picks picks{meeting.picks, nullptr};
  launch(apply_picks<Nearest, float, EveryPick>, apply_grid(kRows, 1), meeting.rows, LaunchRows{0, kRows}, picks,
         EveryPick{}, -HUGE_VAL, Places(scattered), &met);
  EXPECT_EQ(static_cast<std::int64_t>(met), cpu->apply(RuleKind::nearest, meeting.rows, picks, -HUGE_VAL, by_cpu));
  EXPECT_EQ(bits(got.key), bits(want.key));
}

TEST(CudaKernels, GainsAndCoverageAreThoseOfTheCpu) {
  std::mt19937_64 random(6);
  const auto cpu = make_cpu();
  const FixedPoint fixed = FixedPoint::for_sum(kRows, 16, 30);
  for (const std::int64_t dim : {1, 70})
    for (const std::int64_t count : {1, 8, 33, 70})
      for (const bool weighted : {false, true}) {
        std::vector<float> ground = normal(random, kRows * dim), candidates = normal(random, count * dim);
        cpu->unit_rows(ground.data(), kRows, dim);
        cpu->unit_rows(candidates.data(), count, dim);
        const Field x{ground.data(), Element::f32, dim}, y{candidates.data(), Element::f32, dim};
        std::vector<double> weights;
        for (std::int64_t i = 0; i < kRows; ++i) weights.push_back(static_cast<double>(i % 4));
        const double* weight = weighted ? weights.data() : nullptr;
        std::vector<float> best(kRows), best_by_cpu(kRows);
        const std::int64_t raised = std::min<std::int64_t>(count, 11);
        launch(raise_rows, blocks(kRows, kWarps * kWarpRows), ground.data(), kRows, candidates.data(), raised, dim,
               best.data());
        cpu->raise(x, kRows, y, raised, best_by_cpu.data());
        ASSERT_EQ(bits(best), bits(best_by_cpu));
        for (float& level : best) level *= 0.9f;  // so that something is left to gain

        const auto n = static_cast<std::size_t>(count);
        constexpr std::int64_t kRoom = 20;
        std::vector<std::vector<Near>> lists(n, std::vector<Near>(kRoom)), by_cpu = lists;
        std::vector<Near*> places, places_by_cpu;
        for (std::size_t j = 0; j < n; ++j)
          places.push_back(lists[j].data()), places_by_cpu.push_back(by_cpu[j].data());
        std::vector<unsigned long long> gains(n);
        std::vector<std::int64_t> want(n), want_near(n);
        const Band band{kRows, nullptr, best.data(), nullptr, 50};
        const std::int64_t pairs =
            cpu->first_gains(x, band, weight, fixed, y, {}, places_by_cpu, kRoom, want.data(), want_near.data());
        EXPECT_EQ(pairs, kRows * count);
        const auto by_row = [](const Near& a, const Near& b) { return a.row < b.row; };
        for (std::size_t j = 0; j < n; ++j)
          if (want_near[j] <= kRoom) std::sort(by_cpu[j].begin(), by_cpu[j].begin() + want_near[j], by_row);
        const auto expect_same_gains = [&](const auto& chosen) {
          using Chosen = std::remove_cvref_t<decltype(chosen)>;
          std::vector<unsigned long long> near(n);
          unsigned long long met = 0;
          gains.assign(n, 0);
          launch(add_gains<Chosen>, gain_grid(count, kRows, 2, Chosen::kStep), ground.data(), band, weight, fixed,
                 candidates.data(), count, dim, chosen, gains.data(), static_cast<Near* const*>(places.data()), kRoom,
                 near.data(), &met);
          ASSERT_EQ(std::vector<std::int64_t>(gains.begin(), gains.end()), want);
          ASSERT_EQ(std::vector<std::int64_t>(near.begin(), near.end()), want_near);
          if constexpr (std::is_same_v<Chosen, EveryRow>) {
            EXPECT_EQ(met, static_cast<unsigned long long>(pairs));
          } else if (dim > 1 && count > raised) {
            EXPECT_LT(met, static_cast<unsigned long long>(pairs));
          }
          for (std::size_t j = 0; j < n; ++j) {
            if (want_near[j] > kRoom) continue;
            std::sort(lists[j].begin(), lists[j].begin() + want_near[j], by_row);
            for (std::int64_t k = 0; k < want_near[j]; ++k) {
              ASSERT_EQ(lists[j][static_cast<std::size_t>(k)].row, by_cpu[j][static_cast<std::size_t>(k)].row);
              ASSERT_EQ(lists[j][static_cast<std::size_t>(k)].similarity,
                        by_cpu[j][static_cast<std::size_t>(k)].similarity);
            }
          }
        };
        for (const char* mode : {"", "errs"}) {
          std::string why;
          std::vector<float> products(kRows * n);
          open_fake(mode, why)->multiply(x, kRows, y, count, products.data());
          expect_same_gains(NearRows{count, products.data(), similarity_slack(dim)});
        }
        expect_same_gains(EveryRow{});

        // The same from lists, whose rows count from 50, when coverage has risen.
        std::vector<float> later(50 + kRows);
        std::vector<double> later_weights(50 + kRows, 2.0);
        std::vector<std::int64_t> lengths;
        for (std::size_t j = 0; j < n; ++j) lengths.push_back(std::min(want_near[j], kRoom));
        std::copy(best.begin(), best.end(), later.begin() + 50);
        std::vector<float> later_by_cpu = later;
        launch(raise_listed_rows, blocks(lengths[0], kThreads), static_cast<const Near*>(places[0]), lengths[0],
               later.data());
        cpu->raise_listed(places[0], lengths[0], later_by_cpu.data());
        ASSERT_EQ(bits(later), bits(later_by_cpu));
        launch(add_listed_gains, blocks(count, kWarps), static_cast<Near* const*>(places.data()), lengths.data(), count,
               later.data(), weighted ? later_weights.data() : nullptr, fixed, gains.data());
        cpu->listed_gains(places, later.data(), weighted ? later_weights.data() : nullptr, fixed, lengths.data(),
                          want.data());
        ASSERT_EQ(std::vector<std::int64_t>(gains.begin(), gains.end()), want);
      }
}

TEST(CudaKernels, SumsOverRowsAreThoseOfTheCpu) {
  std::mt19937_64 random(7);
  const auto cpu = make_cpu();
  for (const std::int64_t dim : kDims) {
    const std::vector<float> x = normal(random, kRows * dim);
    std::vector<double> factor;
    for (std::int64_t i = 0; i < kRows; ++i) factor.push_back(static_cast<double>(i % 9) - 3.5);
    const FixedPoint fixed = FixedPoint::for_sum(kRows, 512, 40);
    const Field field{x.data(), Element::f32, dim};
    const auto n = static_cast<std::size_t>(dim);
    std::vector<unsigned long long> sums(n), squares(n * n);
    std::vector<std::int64_t> want(n), want_squares(n * n);
    launch(add_weighted_sum, sum_grid(dim, kRows), x.data(), kRows, dim, factor.data(), fixed, sums.data());
    cpu->weighted_sum(field, kRows, factor.data(), fixed, want.data());
    EXPECT_EQ(std::vector<std::int64_t>(sums.begin(), sums.end()), want) << dim;
    const std::vector<std::int64_t> groups{0, 1, 40, 40, kRows};
    const auto count = static_cast<std::int64_t>(groups.size()) - 1;
    launch_blocks_of({kGramSide, kGramSide}, add_gram, gram_grid(dim, count), x.data(), dim, groups.data(), count,
                     fixed, squares.data());
    cpu->gram(field, groups, fixed, want_squares.data());
    EXPECT_EQ(std::vector<std::int64_t>(squares.begin(), squares.end()), want_squares) << dim;
  }
}

TEST(CudaKernels, KeysAreCountedAndSampled) {
  constexpr std::int64_t kKeys = 5000, kStride = 3, kSampled = (kKeys + kStride - 1) / kStride;
  std::vector<double> key;
  std::vector<std::uint8_t> selectable;
  for (std::int64_t i = 0; i < kKeys; ++i) {
    key.push_back(i % 11 == 0 ? -HUGE_VAL : static_cast<double>(i * 7919 % 1009));
    selectable.push_back(i % 4 != 0);
  }
  const auto cpu = make_cpu();
  for (const double floor : {-HUGE_VAL, 500.0, HUGE_VAL}) {
    unsigned long long count = 0;
    launch(count_at_least, blocks(kKeys, 16 * kThreads), key.data(), selectable.data(), kKeys, floor, &count);
    EXPECT_EQ(static_cast<std::int64_t>(count), cpu->at_least(key.data(), selectable.data(), kKeys, floor));
  }
  std::vector<double> sample(kSampled);
  launch(sample_keys, blocks(kSampled, kThreads), key.data(), selectable.data(), kSampled, kStride, sample.data());
  for (std::int64_t i = 0; i < kSampled; ++i) {
    const auto at = static_cast<std::size_t>(i * kStride);
    EXPECT_EQ(sample[static_cast<std::size_t>(i)], selectable[at] ? key[at] : -HUGE_VAL);
  }
}

// --- Geometry ---

TEST(CudaGeometry, ThereIsABlockAndNeverTooMany) {
  for (const std::int64_t count : {std::int64_t{0}, std::int64_t{1}, std::int64_t{255}, std::int64_t{1} << 40}) {
    EXPECT_GE(blocks(count, kThreads).x, 1u);
    EXPECT_LE(blocks(count, kThreads).x, 1u << 20);
    EXPECT_GE(apply_grid(count, 108).x, 1u);
    EXPECT_LE(apply_grid(count, 108).x, 108u * 32);
    for (const Grid& grid : {sum_grid(std::min<std::int64_t>(count, 1 << 20), count), gram_grid(4096, count),
                             gain_grid(std::min<std::int64_t>(count, 1 << 24), count, 132, kWarpRows)}) {
      EXPECT_GE(std::min({grid.x, grid.y, grid.z}), 1u);
      EXPECT_LE(std::max(grid.y, grid.z), 65535u);  // what a launch takes
    }
  }
  EXPECT_EQ(blocks(257, 256).x, 2u);
}

TEST(CudaGeometry, ProductsAreFormedWhereTheySpareWork) {
  static_assert(filter_pays(1'000'000, 256, 512) && filter_pays(1'000'000, 512, 256) && filter_pays(100'000, 256, 512));
  static_assert(!filter_pays(1'000'000, 1, 512), "to copy the rows takes longer");
  static_assert(!filter_pays(1'000'000, 256, 32), "to write and read products takes longer");
  static_assert(!filter_pays(4096, 64, 512), "to start takes longer");
  static_assert(!filter_pays(0, 0, 512));
  static_assert(filter_rows(1024, 256) == 65536 && filter_rows(0, 512) == 32768 && filter_rows(1 << 30, 256) == 1);
}

TEST(CudaGeometry, GainsCoverEveryCandidateAndRow) {
  for (const std::int64_t candidates : {1, 31, 32, 33, 1000})
    for (const std::int64_t rows : {1, 7, 8, 9, 100000}) {
      const Grid grid = gain_grid(candidates, rows, 108, kWarpRows);
      EXPECT_GE(static_cast<std::int64_t>(grid.x) * kGainGroups * kTilePicks, candidates);
      EXPECT_LT(static_cast<std::int64_t>(grid.x - 1) * kGainGroups * kTilePicks, candidates);
      EXPECT_LT(static_cast<std::int64_t>(grid.y - 1) * kGainStripes * kWarpRows, rows) << "no idle stripe";
      EXPECT_LE(grid.x * grid.y, std::max(grid.x, 108u * 8));
    }
}

}  // namespace
}  // namespace seine::test
