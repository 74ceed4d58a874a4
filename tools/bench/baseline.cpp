// The plain loops of the field, compiled and written with care: one fused pass over all rows for every pick. They share
// no code with seine, so they are also an independent check of its picks.
//
//   seine_bench_baseline k_center ROWS DIM PICKS THREADS FILE:OFFSET OUT
//   seine_bench_baseline badge ROWS DIM PICKS THREADS FILE:OFFSET OUT CLASSES FILE:OFFSET SEED
//
// FILE:OFFSET is where ROWS x DIM float32 begin (a contiguous HDF5 dataset is such a place); after CLASSES, the
// probabilities. Writes the picked rows to OUT, one per line, and prints the seconds of the selection alone.
#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

constexpr int kVector = 8;  // floats in an AVX register
constexpr int kTile = 256;  // rows of one partial sum

[[noreturn]] void fail(const std::string& text) {
  std::fprintf(stderr, "seine_bench_baseline: %s\n", text.c_str());
  std::exit(1);
}

// Rows padded with zeros to a whole number of vectors, aligned to a cache line.
class Matrix {
 public:
  Matrix(std::int64_t rows, std::int64_t dim)
      : rows_(rows),
        stride_((dim + kVector - 1) / kVector * kVector),
        values_(static_cast<float*>(std::aligned_alloc(64, (rows * stride_ * sizeof(float) + 63) / 64 * 64))) {
    if (!values_) fail("out of memory");
      // Written first by the threads that will read it.
#pragma omp parallel for schedule(static)
    for (std::int64_t i = 0; i < rows_; ++i) std::fill_n(row(i), stride_, 0.0f);
  }
  float* row(std::int64_t i) {
    return values_.get() + i * stride_;
  }
  const float* row(std::int64_t i) const {
    return values_.get() + i * stride_;
  }
  std::int64_t rows() const {
    return rows_;
  }
  std::int64_t stride() const {
    return stride_;
  }

 private:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  std::int64_t rows_, stride_;
  std::unique_ptr<float, Free> values_;
};

Matrix read(const std::string& place, std::int64_t rows, std::int64_t dim) {
  const std::size_t colon = place.rfind(':');
  std::FILE* file = std::fopen(place.substr(0, colon).c_str(), "rb");
  if (!file || std::fseek(file, std::atol(place.c_str() + colon + 1), SEEK_SET) != 0) fail("cannot open " + place);
  Matrix matrix(rows, dim);
  for (std::int64_t i = 0; i < rows; ++i)
    if (std::fread(matrix.row(i), sizeof(float), dim, file) != static_cast<std::size_t>(dim)) fail("short: " + place);
  std::fclose(file);
  return matrix;
}

float sum_of(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_shuffle_ps(s, s, 1)));
}

// Sum over the components of step(accumulator, x, y), in four independent chains.
template <class Step>
float reduce(const float* x, const float* y, std::int64_t n, Step step) {
  __m256 a[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
  std::int64_t c = 0;
  for (; c + 4 * kVector <= n; c += 4 * kVector)
    for (int j = 0; j < 4; ++j)
      a[j] = step(a[j], _mm256_load_ps(x + c + kVector * j), _mm256_load_ps(y + c + kVector * j));
  for (int j = 0; c < n; c += kVector, ++j) a[j] = step(a[j], _mm256_load_ps(x + c), _mm256_load_ps(y + c));
  return sum_of(_mm256_add_ps(_mm256_add_ps(a[0], a[2]), _mm256_add_ps(a[1], a[3])));
}

float dot(const float* x, const float* y, std::int64_t n) {
  return reduce(x, y, n, [](__m256 sum, __m256 a, __m256 b) { return _mm256_fmadd_ps(a, b, sum); });
}

float distance2(const float* x, const float* y, std::int64_t n) {
  return reduce(x, y, n, [](__m256 sum, __m256 a, __m256 b) {
    const __m256 d = _mm256_sub_ps(a, b);
    return _mm256_fmadd_ps(d, d, sum);
  });
}

struct Farthest {
  float gap = -1;
  std::int64_t row = std::numeric_limits<std::int64_t>::max();

  void see(float other_gap, std::int64_t other_row) {
    if (other_gap > gap || (other_gap == gap && other_row < row)) *this = {other_gap, other_row};
  }
};

// Farthest first, from row 0; equal distances go to the smaller row.
std::vector<std::int64_t> k_center(const Matrix& x, std::int64_t count) {
  std::vector<float> gaps(x.rows(), std::numeric_limits<float>::infinity());
  std::vector<std::int64_t> picks{0};
  Farthest farthest;
#pragma omp parallel
  while (true) {
    const float* centre = x.row(picks.back());
    Farthest mine;
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      gaps[i] = std::min(gaps[i], distance2(x.row(i), centre, x.stride()));
      mine.see(gaps[i], i);
    }
#pragma omp critical
    farthest.see(mine.gap, mine.row);
#pragma omp barrier
#pragma omp single
    {
      picks.push_back(farthest.row);
      farthest = {};
    }
    if (static_cast<std::int64_t>(picks.size()) >= count) break;
  }
  picks.resize(count);
  return picks;
}

// Gradient embeddings residual (x) hidden, never formed: |g - g'|^2 = |g|^2 + |g'|^2 - 2 (r.r')(h.h'). The first pick
// is the longest, the others are drawn in proportion to the squared distance to the nearest pick.
std::vector<std::int64_t> badge(const Matrix& hidden, const Matrix& probabilities, std::int64_t classes,
                                std::int64_t count, std::uint64_t seed) {
  const std::int64_t rows = hidden.rows();
  Matrix residuals(rows, classes);
  std::vector<float> norms2(rows), gaps(rows, std::numeric_limits<float>::infinity());
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* p = probabilities.row(i);
    float* r = residuals.row(i);
    for (std::int64_t c = 0; c < classes; ++c) r[c] = -p[c];
    r[std::max_element(p, p + classes) - p] += 1;
    norms2[i] = dot(r, r, residuals.stride()) * dot(hidden.row(i), hidden.row(i), hidden.stride());
  }
  std::vector<std::int64_t> picks{std::max_element(norms2.begin(), norms2.end()) - norms2.begin()};
  std::vector<double> tile_sums((rows + kTile - 1) / kTile);
  std::mt19937_64 generator(seed);
#pragma omp parallel
  while (static_cast<std::int64_t>(picks.size()) < count) {
    const std::int64_t pick = picks.back();
    const float *r = residuals.row(pick), *h = hidden.row(pick);
    const float norm2 = norms2[pick];
#pragma omp for schedule(static)
    for (std::int64_t tile = 0; tile < static_cast<std::int64_t>(tile_sums.size()); ++tile) {
      double sum = 0;
      for (std::int64_t i = tile * kTile; i < std::min(rows, (tile + 1) * kTile); ++i) {
        const float product = dot(residuals.row(i), r, residuals.stride()) * dot(hidden.row(i), h, hidden.stride());
        gaps[i] = i == pick ? 0.0f : std::min(gaps[i], std::max(norms2[i] + norm2 - 2 * product, 0.0f));
        sum += gaps[i];
      }
      tile_sums[tile] = sum;
    }
#pragma omp single
    {
      double total = 0;
      for (const double sum : tile_sums) total += sum;
      double left = std::uniform_real_distribution<double>(0, total)(generator);
      std::size_t tile = 0;
      while (tile + 1 < tile_sums.size() && left >= tile_sums[tile]) left -= tile_sums[tile++];
      std::int64_t i = tile * kTile;
      const std::int64_t last = std::min<std::int64_t>(rows, i + kTile) - 1;
      while (i < last && left >= gaps[i]) left -= gaps[i++];
      while (gaps[i] == 0 && i > 0) --i;  // rounding at the end of a tile; picked rows weigh nothing
      picks.push_back(i);
    }
  }
  return picks;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const bool is_badge = words.size() == 10 && words[0] == "badge";
  if (!is_badge && !(words.size() == 7 && words[0] == "k_center")) fail("see the first lines of baseline.cpp");
  const std::int64_t rows = std::stoll(words[1]), dim = std::stoll(words[2]), count = std::stoll(words[3]);
  omp_set_num_threads(std::stoi(words[4]));
  const Matrix x = read(words[5], rows, dim);
  const std::int64_t classes = is_badge ? std::stoll(words[7]) : 1;
  const Matrix probabilities = is_badge ? read(words[8], rows, classes) : Matrix(1, 1);

  const auto start = std::chrono::steady_clock::now();
  const std::vector<std::int64_t> picks =
      is_badge ? badge(x, probabilities, classes, count, std::stoull(words[9])) : k_center(x, count);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;

  std::FILE* out = std::fopen(words[6].c_str(), "w");
  if (!out) fail("cannot write " + words[6]);
  for (const std::int64_t row : picks) std::fprintf(out, "%lld\n", static_cast<long long>(row));
  std::fclose(out);
  std::printf("%.6f\n", seconds.count());
}
