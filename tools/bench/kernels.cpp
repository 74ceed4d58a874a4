// Micro-benchmarks of the kernels, each beside the bound that applies to it on this machine: what it reads against the
// measured bandwidth, what it computes against the measured arithmetic and beside the measured GEMM.
//
//   seine_bench_kernels [THREADS] [--benchmark_filter=EXPRESSION] [--benchmark_...]
//   seine_bench_card [--benchmark_...]     the same loops on a GPU, beside the bounds of the card
//
// Counters: GB/s or Gflop/s, `share` of the bound that the label names, and `of_gemm`, a share of the library's product
// (Eigen, cuBLAS).
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/cpu/row_kernel.hpp"
#include "peaks.hpp"
#include "scores/score_kernel.hpp"
#include "seine/backend.hpp"
#include "seine/error.hpp"

namespace {

using namespace seine;
using benchmark::Counter;
using benchmark::State;

struct Bound {
  const char* name;
  double gigas;     // a second
  double gemm = 0;  // Gflop/s; 0: the bound is a bandwidth
};

// A squared distance needs two instructions for its three operations, where a fused multiply-add needs one for two;
// float64 has half as many lanes.
Bound by_reading(const Peaks& peaks) {
  return {"reading", peaks.read};
}
Bound by_dots(const Peaks& peaks) {
  return {"arithmetic", peaks.fma, peaks.gemm};
}
Bound by_distances(const Peaks& peaks) {
  return {"3/4 of arithmetic", 0.75 * peaks.fma, peaks.gemm};
}
Bound by_wide_dots(const Peaks& peaks) {
  return {"1/2 of arithmetic", 0.5 * peaks.fma, peaks.gemm};
}
// What products decide, as if they did everything: two operations per component of a pair.
Bound by_products(const Peaks& peaks, Element type) {
  return type == Element::f16 ? Bound{"float16 GEMM", peaks.gemm_f16, peaks.gemm}
                              : Bound{"TF32 GEMM", peaks.gemm_tf32, peaks.gemm};
}

// `amount` is what one iteration reads or computes.
void report(State& state, const Bound& bound, double amount) {
  const auto rate = [&](double unit) { return Counter(1e-9 * amount / unit, Counter::kIsIterationInvariantRate); };
  state.SetLabel(bound.name);
  state.counters[bound.gemm > 0 ? "Gflop/s" : "GB/s"] = rate(1);
  state.counters["share"] = rate(bound.gigas);
  if (bound.gemm > 0) state.counters["of_gemm"] = rate(bound.gemm);
}

template <class Run>
void add(const std::string& name, Run run) {
  benchmark::RegisterBenchmark(name.c_str(), run)->UseRealTime();
}

template <class T>
std::vector<T> random_values(std::int64_t count, double low, double high) {
  std::uint64_t bits = 1;  // a linear congruence (Knuth's MMIX): setting up should not take longer than measuring
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) {
    bits = bits * 6364136223846793005ULL + 1442695040888963407ULL;
    value = static_cast<T>(low + (high - low) * std::ldexp(static_cast<double>(bits >> 11), -53));
  }
  return values;
}

// --- The row kernels, one thread, everything in the second-level cache ---

void row_kernel_benchmarks(const Peaks& peaks) {
  constexpr std::int64_t kPicks = 8;
  for (const std::int64_t dim : {10, 128, 256, 784}) {
    const std::int64_t count = std::min<std::int64_t>(256, (1 << 18) / (4 * dim));
    const auto rows = [=] { return random_values<float>(count * dim, -1, 1); };
    const auto pointers = [=](const std::vector<float>& values) {
      std::vector<const float*> of_rows;
      for (std::int64_t i = 0; i < count; ++i) of_rows.push_back(values.data() + i * dim);
      return of_rows;
    };
    const auto run = [=](State& state, auto kernel, auto value, const Bound& bound, double flops) {
      using Value = decltype(value);
      const std::vector<float> x = rows();
      const std::vector<const float*> of_rows = pointers(x);
      const auto picks = random_values<Value>(kPicks * dim, -1, 1);
      std::vector<Value> out(static_cast<std::size_t>(count * kPicks));
      for (auto _ : state) {
        kernel(of_rows.data(), count, picks.data(), kPicks, dim, out.data());
        benchmark::ClobberMemory();
      }
      report(state, bound, flops * static_cast<double>(count * kPicks * dim));
    };
    const std::string size = std::to_string(count) + "x" + std::to_string(dim) + ",8 picks";
    add("row_kernel/distances2/" + size,
        [=](State& state) { run(state, row_kernels().distances2, 0.0f, by_distances(peaks), 3); });
    add("row_kernel/dots/" + size, [=](State& state) { run(state, row_kernels().dots, 0.0f, by_dots(peaks), 2); });
    add("row_kernel/wide_dots/" + size,
        [=](State& state) { run(state, row_kernels().wide_dots, 0.0, by_wide_dots(peaks), 2); });
  }
}

// Scores, one thread: the bound that every row gets, and the score itself.
void score_benchmarks(const Peaks& peaks) {
  struct Shape {
    std::int64_t rows, passes, classes;
  };
  const auto probabilities = [](const Shape& shape) {
    std::vector<double> p = random_values<double>(shape.rows * shape.passes * shape.classes, 0, 1);
    for (std::size_t at = 0; at < p.size(); at += static_cast<std::size_t>(shape.classes)) {
      double sum = 0;
      for (std::int64_t c = 0; c < shape.classes; ++c) sum += p[at + static_cast<std::size_t>(c)];
      for (std::int64_t c = 0; c < shape.classes; ++c) p[at + static_cast<std::size_t>(c)] /= sum;
    }
    return p;
  };
  const Shape single{2'000'000, 1, 10}, many{100'000, 20, 10};
  const struct {
    const char* name;
    ScoreKind kind;
    Shape shape;
  } scores[] = {{"entropy/2000000x10", ScoreKind::entropy, single},
                {"least_confidence/2000000x10", ScoreKind::least_confidence, single},
                {"margin/2000000x10", ScoreKind::margin, single},
                {"bald/100000x20x10", ScoreKind::bald, many}};
  for (const auto& score : scores) {
    const auto [kind, shape] = std::pair(score.kind, score.shape);
    add(std::string("score_bounds/") + score.name, [=](State& state) {
      const std::vector<double> wide = probabilities(shape);
      const std::vector<float> p(wide.begin(), wide.end());
      std::vector<float> out(static_cast<std::size_t>(shape.rows));
      for (auto _ : state) score_kernels().bounds(kind, p.data(), shape.rows, shape.passes, shape.classes, out.data());
      report(state, by_reading(peaks), 4.0 * static_cast<double>(p.size()));
    });
    add(std::string("exact_scores/") + score.name, [=](State& state) {
      const std::vector<double> p = probabilities(shape);
      std::vector<float> out(static_cast<std::size_t>(shape.rows));
      ExactScores exact;
      for (auto _ : state) exact(kind, p.data(), shape.rows, shape.passes, shape.classes, out.data());
      report(state, by_reading(peaks), 8.0 * static_cast<double>(p.size()));
    });
  }
}

// --- The backend's loops, all threads, rows in memory ---

struct Bench {
  Backend& backend;
  Peaks peaks;
  std::int64_t scale;  // of the rows, so that the device has enough to do

  template <class T>
  Array<T> random(std::int64_t count, double low, double high) const {
    return Array<T>(backend, std::span<const T>(random_values<T>(count, low, high)));
  }
};

std::string sized(const std::string& name, std::int64_t rows, std::int64_t dim, const std::string& others = "") {
  return name + "/" + std::to_string(rows) + (dim > 0 ? "x" + std::to_string(dim) : "") + others;
}

void norm_benchmark(const Bench& bench) {
  const std::int64_t rows = 400'000 * bench.scale, dim = 128;
  add(sized("squared_norms", rows, dim), [=](State& state) {
    const Array<float> x = bench.random<float>(rows * dim, -1, 1);
    Array<double> out(bench.backend, rows);
    for (auto _ : state) bench.backend.squared_norms({x.data(), Element::f32, dim}, rows, out.data());
    report(state, by_reading(bench.peaks), 4.0 * static_cast<double>(x.size()));
  });
}

struct ApplyCase {
  const char* name;
  RuleKind rule;
  Element type;  // of the rows
  bool outer;
  std::int64_t picks;
  std::int64_t dim = 128;
};
constexpr std::int64_t kManyPicks = 1024;  // so many that a GPU lets products decide which rows they meet

// What a pass does with its picks: all rows take part.
void apply_benchmark(const Bench& bench, const ApplyCase& each, State& state, std::int64_t count, std::int64_t dim) {
  constexpr std::int64_t kClasses = 10;
  Backend& backend = bench.backend;
  const bool half = each.type == Element::f16, is_distance = each.rule != RuleKind::variance;
  const Array<float> x = half ? Array<float>() : bench.random<float>(count * dim, -1, 1);
  // Their bits: from 1/8 to 1.
  const Array<std::uint16_t> narrow =
      half ? bench.random<std::uint16_t>(count * dim, 0x3000, 0x3c00) : Array<std::uint16_t>();
  const Array<float> a = bench.random<float>(count * kClasses, -1, 1);
  const Array<double> wide_picks = bench.random<double>(each.picks * dim, -1, 1);
  Array<double> x2(backend, count), a2(backend, count);
  Vectors rows{
      .rows = count, .x = {half ? static_cast<const void*>(narrow.data()) : x.data(), each.type, dim}, .a = {}};
  if (each.outer) {
    rows.a = {a.data(), Element::f32, kClasses};
    backend.squared_norms(rows.x, count, x2.data());
    backend.squared_norms(rows.a, count, a2.data());
    rows.x2 = x2.data();
    rows.a2 = a2.data();
  }
  Picks picks{.vectors = rows.from(0, each.picks)};
  if (!is_distance) picks.vectors.x = {wide_picks.data(), Element::f64, dim};
  const Array<double> moments = bench.random<double>(each.picks, 1e3, 1e3 + 1e-3);
  picks.moments = moments.data();

  Array<std::byte> memory(backend, count * static_cast<std::int64_t>(state_bytes(each.rule)));
  Array<double> key(backend, count);
  Array<std::uint32_t> applied(backend, count);
  const RowStates states{.state = memory.data(), .key = key.data(), .applied = applied.data()};
  for (auto _ : state) {
    state.PauseTiming();
    backend.start(each.rule, {}, count, states);
    state.ResumeTiming();
    backend.apply(each.rule, rows, picks, -std::numeric_limits<double>::infinity(), states);
  }
  const double dims = static_cast<double>(dim + (each.outer ? kClasses : 0));
  if (each.picks == 1)
    report(state, by_reading(bench.peaks), static_cast<double>(count) * static_cast<double>(rows.x.row_bytes()));
  else if (const Bound products = by_products(bench.peaks, each.type); each.picks >= kManyPicks && products.gigas > 0)
    report(state, products, 2 * dims * static_cast<double>(count * each.picks));
  else
    report(state, is_distance ? by_distances(bench.peaks) : by_wide_dots(bench.peaks),
           (is_distance ? 3 : 2) * dims * static_cast<double>(count * each.picks));
}

void apply_benchmarks(const Bench& bench) {
  for (const ApplyCase& each : {ApplyCase{"apply/nearest", RuleKind::nearest, Element::f32, false, 1},
                                {"apply/nearest,float16", RuleKind::nearest, Element::f16, false, 1},
                                {"apply/nearest", RuleKind::nearest, Element::f32, false, 64},
                                {"apply/nearest,float16", RuleKind::nearest, Element::f16, false, 64},
                                {"apply/nearest", RuleKind::nearest, Element::f32, false, kManyPicks, 512},
                                {"apply/nearest,float16", RuleKind::nearest, Element::f16, false, kManyPicks, 512},
                                {"apply/race", RuleKind::race, Element::f32, false, 64},
                                {"apply/race,outer", RuleKind::race, Element::f32, true, 64},
                                {"apply/variance", RuleKind::variance, Element::f32, false, 64}}) {
    const std::int64_t rows = 60'000 * bench.scale, dim = each.dim;
    const std::string picks = each.picks == 1 ? ",1 pick" : "," + std::to_string(each.picks) + " picks";
    add(sized(each.name, rows, dim, picks), [=](State& state) { apply_benchmark(bench, each, state, rows, dim); });
  }
}

Array<float> unit_rows(const Bench& bench, std::int64_t rows, std::int64_t dim) {
  Array<float> x = bench.random<float>(rows * dim, -0.5, 1);
  bench.backend.unit_rows(x.data(), rows, dim);
  return x;
}

// Coverage is so high that a candidate adds to one row in a hundred.
void first_gains_benchmark(const Bench& bench) {
  constexpr std::int64_t kDim = 256, kCandidates = 512, kRoom = 4096;
  const std::int64_t rows = 20'000 * bench.scale;
  add(sized("first_gains", rows, kDim, ",512 candidates"), [=](State& state) {
    const Array<float> x = unit_rows(bench, rows, kDim), above = bench.random<float>(rows, 0.36, 0.4);
    const Field field{x.data(), Element::f32, kDim};
    const Array<Near> memory(bench.backend, kCandidates * kRoom);
    std::vector<Near*> lists;
    for (std::int64_t j = 0; j < kCandidates; ++j) lists.push_back(memory.data() + j * kRoom);
    std::vector<std::int64_t> gains(kCandidates), near(kCandidates);
    for (auto _ : state) {
      near.assign(near.size(), 0);
      bench.backend.first_gains(field, {.count = rows, .above = above.data()}, nullptr,
                                FixedPoint::for_sum(rows << 10, 1), field, {}, lists, kRoom, gains.data(), near.data());
    }
    const Bound products = by_products(bench.peaks, Element::f32);
    report(state, products.gigas > 0 ? products : by_dots(bench.peaks),
           2.0 * static_cast<double>(rows * kCandidates * kDim));
  });
}

void coverage_benchmarks(const Bench& bench) {
  constexpr std::int64_t kDim = 128, kCandidates = 64;
  const std::int64_t rows = 20'000 * bench.scale;
  const double flops = 2.0 * static_cast<double>(rows * kCandidates * kDim);
  add(sized("gains", rows, kDim, ",64 candidates"), [=](State& state) {
    const Array<float> x = unit_rows(bench, rows, kDim), above = bench.random<float>(rows, 0, 0.5);
    const Field field{x.data(), Element::f32, kDim};
    const FixedPoint fixed = FixedPoint::for_sum(rows << 10, 1);  // room enough in a float64, too
    std::vector<std::int64_t> gains(kCandidates);
    for (auto _ : state)
      bench.backend.gains(field, {.count = rows, .above = above.data()}, nullptr, fixed, field, kCandidates,
                          gains.data());
    report(state, by_dots(bench.peaks), flops);
  });
  add(sized("raise", rows, kDim, ",64 picks"), [=](State& state) {
    const Array<float> x = unit_rows(bench, rows, kDim);
    Array<float> best = bench.random<float>(rows, 0, 0);
    const Field field{x.data(), Element::f32, kDim};
    for (auto _ : state) bench.backend.raise(field, rows, field, kCandidates, best.data());
    report(state, by_dots(bench.peaks), flops);
  });
}

void search_benchmarks(const Bench& bench) {
  constexpr std::int64_t kBest = 1000;
  const std::int64_t rows = 4'000'000 * bench.scale;
  const auto with_keys = [=](auto search) {
    const Array<double> key = bench.random<double>(rows, 0, 1);
    const Array<std::uint8_t> selectable = bench.random<std::uint8_t>(rows, 1, 1);
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(rows));
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<std::int64_t>(i);
    const Array<std::int64_t> global(bench.backend, std::span<const std::int64_t>(numbers));
    search(key.data(), selectable.data(), global.data());
  };
  add(sized("top", rows, 0, ",1000 best"), [=](State& state) {
    with_keys([&](const double* key, const std::uint8_t* selectable, const std::int64_t* global) {
      for (auto _ : state) benchmark::DoNotOptimize(bench.backend.top(key, selectable, global, rows, kBest));
    });
    report(state, by_reading(bench.peaks), 9.0 * static_cast<double>(rows));
  });
  // Looks at a sample above kExactRows rows on the CPU; counted are the keys that it looks at, a line of the caches
  // each.
  const bool samples = bench.backend.name() == "cpu";
  add(sized("nth", rows, 0, ",1000th"), [=](State& state) {
    with_keys([&](const double* key, const std::uint8_t* selectable, const std::int64_t*) {
      for (auto _ : state) benchmark::DoNotOptimize(bench.backend.nth(key, selectable, rows, kBest));
    });
    report(state, by_reading(bench.peaks), samples ? 128.0 * Backend::kExactRows : 9.0 * static_cast<double>(rows));
  });
}

void gram_benchmark(const Bench& bench) {
  constexpr std::int64_t kDim = 128, kGroup = 64;
  const std::int64_t rows = 20'000 * bench.scale;
  add(sized("gram", rows, kDim), [=](State& state) {
    const Array<float> x = bench.random<float>(rows * kDim, -1, 1);
    std::vector<std::int64_t> groups;
    for (std::int64_t at = 0; at < rows; at += kGroup) groups.push_back(at);
    groups.push_back(rows);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(kDim * kDim));
    for (auto _ : state)
      bench.backend.gram({x.data(), Element::f32, kDim}, groups, FixedPoint::for_sum(rows, kGroup), sums.data());
    report(state, by_wide_dots(bench.peaks), static_cast<double>(rows * kDim * (kDim + 1)));
  });
}

void say(const std::string& name, double value) {
  benchmark::AddCustomContext(name, std::to_string(value));
}

void say(const Peaks& peaks, const std::string& ending) {
  say("read_GB/s" + ending, peaks.read);
  say("copy_GB/s" + ending, peaks.copy);
  say("fma_Gflop/s" + ending, peaks.fma);
  say("gemm_Gflop/s" + ending, peaks.gemm);
  if (peaks.gemm_tf32 > 0) say("gemm_tf32_Gflop/s" + ending, peaks.gemm_tf32);
  if (peaks.gemm_f16 > 0) say("gemm_f16_Gflop/s" + ending, peaks.gemm_f16);
}

void run(int threads) {
  constexpr bool kIsCard = std::string_view(SEINE_BENCH_DEVICE) == "cuda";
  std::string why;
  const std::unique_ptr<Backend> backend = make_backend(SEINE_BENCH_DEVICE, {threads, 0}, why);
  benchmark::AddCustomContext("device", backend->describe());
  benchmark::AddCustomContext("threads", std::to_string(threads));
  const Peaks one = measure_peaks(1), all = kIsCard ? one : measure_peaks(threads);
  say(one, "_1");
  say(all, "");
  if (!kIsCard) {
    row_kernel_benchmarks(one);
    score_benchmarks(one);
  }
  const Bench bench{*backend, all, kIsCard ? 8 : 1};
  norm_benchmark(bench);
  apply_benchmarks(bench);
  coverage_benchmarks(bench);
  first_gains_benchmark(bench);
  search_benchmarks(bench);
  gram_benchmark(bench);
  benchmark::RunSpecifiedBenchmarks();
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  try {
    run(argc > 1 ? std::max(1, std::atoi(argv[1])) : 1);
  } catch (const Error& error) {
    std::fprintf(stderr, "seine: error: %s\n", error.what());
    return static_cast<int>(error.code());
  }
}
