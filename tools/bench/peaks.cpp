// Built for this very processor (-march=native), so that the bounds are the machine's and not a compiler flag's.
#include "peaks.hpp"

#include <omp.h>
#include <unistd.h>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cstring>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

#if defined(__AVX512F__)
using Vector = float __attribute__((vector_size(64)));
#else
using Vector = float __attribute__((vector_size(32)));
#endif
constexpr int kChains = 12;  // enough to hide how long one takes, and few enough for the registers
constexpr int kSteps = 200'000;

float multiply_and_add(float factor, float summand) {
  Vector chains[kChains];
  for (int c = 0; c < kChains; ++c) chains[c] = Vector{} + factor * static_cast<float>(c);  // no two alike
  for (int step = 0; step < kSteps; ++step)
    for (Vector& chain : chains) chain = chain * factor + summand;
  float sum = 0;
  for (const Vector& chain : chains) sum += chain[0];
  return sum;
}

// Calls per second, of the fastest of several.
template <class Work>
double best_rate(int runs, Work work) {
  double best = 0;
  for (int run = 0; run < runs; ++run) {
    const Clock::time_point start = Clock::now();
    work();
    best = std::max(best, 1 / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return best;
}

}  // namespace

Peaks measure_peaks(int threads) {
  omp_set_num_threads(threads);
  Peaks peaks;

  const long cache = std::max(sysconf(_SC_LEVEL3_CACHE_SIZE), 32L << 20);
  const Eigen::Index size = std::min(8 * cache, 2L << 30) / 4 / threads * threads, share = size / threads;
  Eigen::ArrayXf from(size), to(size);
#pragma omp parallel for schedule(static)
  for (int t = 0; t < threads; ++t) {
    from.segment(t * share, share).setOnes();
    to.segment(t * share, share).setZero();
  }
  const double bytes = 4.0 * static_cast<double>(size);
  float total = 0;
  peaks.read = 1e-9 * bytes * best_rate(19, [&] {
#pragma omp parallel for schedule(static) reduction(+ : total)
                 for (int t = 0; t < threads; ++t) total += from.segment(t * share, share).sum();
               });
  peaks.copy = 2e-9 * bytes * best_rate(19, [&] {
#pragma omp parallel for schedule(static)
                 for (int t = 0; t < threads; ++t)
                   std::memcpy(to.data() + t * share, from.data() + t * share, 4 * static_cast<std::size_t>(share));
               });

  constexpr double kFlops = 2.0 * kSteps * kChains * sizeof(Vector) / sizeof(float);
  const float factor = total > 0 ? 0.5f : 1.0f;  // unknown to the compiler
  peaks.fma = 1e-9 * kFlops * threads * best_rate(299, [&] {
#pragma omp parallel for schedule(static) reduction(+ : total)
                for (int t = 0; t < threads; ++t) total += multiply_and_add(factor, 1e-9f);
              });

  // Every thread has a product of its own: a product shared by all would measure how they wait for one another, too.
  constexpr Eigen::Index kSide = 384;
  Eigen::setNbThreads(1);
  const Eigen::MatrixXf a = Eigen::MatrixXf::Random(kSide, kSide), b = Eigen::MatrixXf::Random(kSide, kSide);
  std::vector<Eigen::MatrixXf> products(static_cast<std::size_t>(threads), Eigen::MatrixXf(kSide, kSide));
  peaks.gemm = 2e-9 * kSide * kSide * kSide * threads * best_rate(199, [&] {
#pragma omp parallel for schedule(static)
                 for (int t = 0; t < threads; ++t) products[static_cast<std::size_t>(t)].noalias() = a * b;
               });
  if (!(total > 0)) return {};  // so that all of it had to be computed
  return peaks;
}
