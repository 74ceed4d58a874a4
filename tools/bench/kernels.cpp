// Micro-benchmarks of the kernels, each beside the bound that applies to it on this machine: what it reads against the
// measured bandwidth, what it computes against the measured arithmetic and beside the measured GEMM.
//
//   seine_bench_kernels [THREADS] [--benchmark_filter=EXPRESSION] [--benchmark_...]
//
// Counters: GB/s or Gflop/s, `share` of the bound that the label names, and `of_gemm`, a share of Eigen's product.
#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backend/row_kernel.hpp"
#include "backend/score_kernel.hpp"
#include "peaks.hpp"
#include "seine/backend.hpp"

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

void norm_benchmark(Backend& backend, const Peaks& peaks) {
  add("squared_norms/400000x128", [=, &backend](State& state) {
    const Array<float> x(backend, std::span<const float>(random_values<float>(400'000 * 128, -1, 1)));
    Array<double> out(backend, 400'000);
    for (auto _ : state) backend.squared_norms({x.data(), Element::f32, 128}, 400'000, out.data());
    report(state, by_reading(peaks), 4.0 * static_cast<double>(x.size()));
  });
}

void apply_benchmarks(Backend& backend, const Peaks& peaks) {
  constexpr std::int64_t kRows = 60'000, kDim = 128, kClasses = 10, kPicks = 64;
  const struct {
    const char* name;
    RuleKind rule;
    bool outer;
  } cases[] = {{"apply/nearest", RuleKind::nearest, false},
               {"apply/race", RuleKind::race, false},
               {"apply/race,outer", RuleKind::race, true},
               {"apply/variance", RuleKind::variance, false}};
  for (const auto& each : cases)
    add(std::string(each.name) + "/60000x128,64 picks", [=, &backend](State& state) {
      const std::vector<float> values = random_values<float>(kRows * kDim, -1, 1);
      const std::vector<double> wide(values.begin(), values.begin() + kPicks * kDim);
      const Array<float> x(backend, std::span<const float>(values));
      const Array<float> a(backend, std::span<const float>(random_values<float>(kRows * kClasses, -1, 1)));
      const Array<double> wide_picks(backend, std::span<const double>(wide));
      Array<double> x2(backend, kRows), a2(backend, kRows);
      Vectors rows{.rows = kRows, .x = {x.data(), Element::f32, kDim}, .a = {}};
      if (each.outer) {
        rows.a = {a.data(), Element::f32, kClasses};
        backend.squared_norms(rows.x, kRows, x2.data());
        backend.squared_norms(rows.a, kRows, a2.data());
        rows.x2 = x2.data();
        rows.a2 = a2.data();
      }
      Picks picks{.vectors = rows.from(0, kPicks)};
      if (each.rule == RuleKind::variance) picks.vectors.x = {wide_picks.data(), Element::f64, kDim};
      std::vector<double> host_moments(kPicks);
      for (std::size_t p = 0; p < kPicks; ++p) host_moments[p] = 1e3 + 1e-6 * static_cast<double>(p);
      const Array<double> moments(backend, std::span<const double>(host_moments));
      picks.moments = moments.data();

      Array<std::byte> memory(backend, kRows * static_cast<std::int64_t>(state_bytes(each.rule)));
      Array<double> key(backend, kRows);
      Array<std::uint32_t> applied(backend, kRows);
      const RowStates states{.state = memory.data(), .key = key.data(), .applied = applied.data()};
      for (auto _ : state) {
        state.PauseTiming();
        backend.start(each.rule, {}, kRows, states);
        state.ResumeTiming();
        backend.apply(each.rule, rows, picks, -std::numeric_limits<double>::infinity(), states);
      }
      const bool is_distance = each.rule != RuleKind::variance;
      const double dims = static_cast<double>(kDim + (each.outer ? kClasses : 0));
      report(state, is_distance ? by_distances(peaks) : by_wide_dots(peaks),
             (is_distance ? 3 : 2) * dims * static_cast<double>(kRows * kPicks));
    });
}

void coverage_benchmarks(Backend& backend, const Peaks& peaks) {
  constexpr std::int64_t kRows = 20'000, kDim = 128, kCandidates = 64;
  const auto unit_rows = [&backend] {
    Array<float> x(backend, std::span<const float>(random_values<float>(kRows * kDim, -0.5, 1)));
    backend.unit_rows(x.data(), kRows, kDim);
    return x;
  };
  const double flops = 2.0 * kRows * kCandidates * kDim;
  add("gains/20000x128,64 candidates", [=, &backend](State& state) {
    const Array<float> x = unit_rows();
    const Array<float> above(backend, std::span<const float>(random_values<float>(kRows, 0, 0.5)));
    const Field field{x.data(), Element::f32, kDim};
    const FixedPoint fixed = FixedPoint::for_sum(kRows << 10, 1);  // room enough in a float64, too
    std::vector<std::int64_t> gains(kCandidates);
    for (auto _ : state)
      backend.gains(field, {.count = kRows, .above = above.data()}, nullptr, fixed, field, kCandidates, gains.data());
    report(state, by_dots(peaks), flops);
  });
  add("raise/20000x128,64 picks", [=, &backend](State& state) {
    const Array<float> x = unit_rows();
    Array<float> best(backend, std::span<const float>(std::vector<float>(kRows)));
    const Field field{x.data(), Element::f32, kDim};
    for (auto _ : state) backend.raise(field, kRows, field, kCandidates, best.data());
    report(state, by_dots(peaks), flops);
  });
}

void search_benchmarks(Backend& backend, const Peaks& peaks) {
  constexpr std::int64_t kRows = 4'000'000, kBest = 1000;
  const auto with_keys = [&backend](auto search) {
    const Array<double> key(backend, std::span<const double>(random_values<double>(kRows, 0, 1)));
    const Array<std::uint8_t> selectable(backend, std::span<const std::uint8_t>(std::vector<std::uint8_t>(kRows, 1)));
    std::vector<std::int64_t> numbers(kRows);
    for (std::size_t i = 0; i < kRows; ++i) numbers[i] = static_cast<std::int64_t>(i);
    const Array<std::int64_t> rows(backend, std::span<const std::int64_t>(numbers));
    search(key.data(), selectable.data(), rows.data());
  };
  add("top/4000000,1000 best", [=, &backend](State& state) {
    with_keys([&](const double* key, const std::uint8_t* selectable, const std::int64_t* rows) {
      for (auto _ : state) benchmark::DoNotOptimize(backend.top(key, selectable, rows, kRows, kBest));
    });
    report(state, by_reading(peaks), 9.0 * kRows);
  });
  // Looks at a sample above kExactRows rows; counted are the keys that it looks at, a line of the caches each.
  add("nth/4000000,1000th", [=, &backend](State& state) {
    with_keys([&](const double* key, const std::uint8_t* selectable, const std::int64_t*) {
      for (auto _ : state) benchmark::DoNotOptimize(backend.nth(key, selectable, kRows, kBest));
    });
    report(state, by_reading(peaks), 128.0 * Backend::kExactRows);
  });
}

void gram_benchmark(Backend& backend, const Peaks& peaks) {
  constexpr std::int64_t kRows = 20'000, kDim = 128, kGroup = 64;
  add("gram/20000x128", [=, &backend](State& state) {
    const Array<float> x(backend, std::span<const float>(random_values<float>(kRows * kDim, -1, 1)));
    std::vector<std::int64_t> groups;
    for (std::int64_t at = 0; at < kRows; at += kGroup) groups.push_back(at);
    groups.push_back(kRows);
    std::vector<std::int64_t> sums(static_cast<std::size_t>(kDim * kDim));
    for (auto _ : state)
      backend.gram({x.data(), Element::f32, kDim}, groups, FixedPoint::for_sum(kRows, kGroup), sums.data());
    report(state, by_wide_dots(peaks), 1.0 * kRows * kDim * (kDim + 1));
  });
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  const int threads = argc > 1 ? std::max(1, std::atoi(argv[1])) : 1;
  const Peaks one = measure_peaks(1), all = measure_peaks(threads);
  const auto say = [](const char* name, double value) { benchmark::AddCustomContext(name, std::to_string(value)); };
  benchmark::AddCustomContext("threads", std::to_string(threads));
  say("read_GB/s_1", one.read);
  say("copy_GB/s_1", one.copy);
  say("fma_Gflop/s_1", one.fma);
  say("gemm_Gflop/s_1", one.gemm);
  say("read_GB/s", all.read);
  say("copy_GB/s", all.copy);
  say("fma_Gflop/s", all.fma);
  say("gemm_Gflop/s", all.gemm);

  std::string why;
  const std::unique_ptr<Backend> backend = make_backend("cpu", {threads, 0}, why);
  row_kernel_benchmarks(one);
  score_benchmarks(one);
  norm_benchmark(*backend, all);
  apply_benchmarks(*backend, all);
  coverage_benchmarks(*backend, all);
  search_benchmarks(*backend, all);
  gram_benchmark(*backend, all);
  benchmark::RunSpecifiedBenchmarks();
}
