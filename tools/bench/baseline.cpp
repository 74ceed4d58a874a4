// The plain loops of the field, compiled and written with care: one fused pass over all rows for every pick, one pass
// for a score, a lazy heap over a stored matrix for facility location. They share no code with seine, so they are also
// an independent check of its picks.
//
//   seine_bench_baseline STRATEGY rows=N picks=B threads=T out=FILE KEY=VALUE...
//     k_center, facility_location   dim=D embeddings=FILE:OFFSET
//     k_means_pp                    dim=D embeddings=FILE:OFFSET seed=S
//     badge                         dim=D embeddings=FILE:OFFSET seed=S classes=C probabilities=FILE:OFFSET
//     entropy, bald                 passes=T classes=C probabilities=FILE:OFFSET
//   seine_bench_baseline read bytes=N processes=P embeddings=FILE:OFFSET
//
// FILE:OFFSET is where float32 begin (a contiguous HDF5 dataset is such a place). Writes the picked rows to `out`, one
// per line, and prints the seconds of the selection alone, or of reading into memory.
#include <fcntl.h>
#include <immintrin.h>
#include <omp.h>
#include <sys/wait.h>
#include <unistd.h>

#include <Eigen/Core>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <queue>
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

struct Place {
  std::string path;
  long offset;

  explicit Place(const std::string& text) : path(text.substr(0, text.rfind(':'))), offset(0) {
    if (path == text) fail("not FILE:OFFSET: " + text);
    offset = std::atol(text.c_str() + path.size() + 1);
  }
};

// Calls take(row) for memory of every row in turn, and fills it.
template <class Take>
void read(const Place& place, std::int64_t rows, std::int64_t dim, Take take) {
  std::FILE* file = std::fopen(place.path.c_str(), "rb");
  if (!file || std::fseek(file, place.offset, SEEK_SET) != 0) fail("cannot open " + place.path);
  for (std::int64_t i = 0; i < rows; ++i)
    if (std::fread(take(i), sizeof(float), dim, file) != static_cast<std::size_t>(dim)) fail("short: " + place.path);
  std::fclose(file);
}

Matrix read_matrix(const Place& place, std::int64_t rows, std::int64_t dim) {
  Matrix matrix(rows, dim);
  read(place, rows, dim, [&](std::int64_t i) { return matrix.row(i); });
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

// Draws one row after the other in proportion to its squared distance to the nearest pick: gap(i, pick) is that to one.
template <class Gap>
std::vector<std::int64_t> draw(std::int64_t rows, std::int64_t first, std::int64_t count, std::mt19937_64& generator,
                               Gap gap) {
  std::vector<float> gaps(rows, std::numeric_limits<float>::infinity());
  std::vector<std::int64_t> picks{first};
  std::vector<double> tile_sums((rows + kTile - 1) / kTile);
#pragma omp parallel
  while (static_cast<std::int64_t>(picks.size()) < count) {
    const std::int64_t pick = picks.back();
#pragma omp for schedule(static)
    for (std::int64_t tile = 0; tile < static_cast<std::int64_t>(tile_sums.size()); ++tile) {
      double sum = 0;
      for (std::int64_t i = tile * kTile; i < std::min(rows, (tile + 1) * kTile); ++i) {
        gaps[i] = i == pick ? 0.0f : std::min(gaps[i], gap(i, pick));
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

std::vector<std::int64_t> k_means_pp(const Matrix& x, std::int64_t count, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  const std::int64_t first = std::uniform_int_distribution<std::int64_t>(0, x.rows() - 1)(generator);
  return draw(x.rows(), first, count, generator,
              [&](std::int64_t i, std::int64_t pick) { return distance2(x.row(i), x.row(pick), x.stride()); });
}

// Gradient embeddings residual (x) hidden, never formed: |g - g'|^2 = |g|^2 + |g'|^2 - 2 (r.r')(h.h'). The first pick
// is the longest.
std::vector<std::int64_t> badge(const Matrix& hidden, const Matrix& probabilities, std::int64_t classes,
                                std::int64_t count, std::uint64_t seed) {
  const std::int64_t rows = hidden.rows();
  Matrix residuals(rows, classes);
  std::vector<float> norms2(rows);
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float* p = probabilities.row(i);
    float* r = residuals.row(i);
    for (std::int64_t c = 0; c < classes; ++c) r[c] = -p[c];
    r[std::max_element(p, p + classes) - p] += 1;
    norms2[i] = dot(r, r, residuals.stride()) * dot(hidden.row(i), hidden.row(i), hidden.stride());
  }
  std::mt19937_64 generator(seed);
  const std::int64_t first = std::max_element(norms2.begin(), norms2.end()) - norms2.begin();
  return draw(rows, first, count, generator, [&](std::int64_t i, std::int64_t pick) {
    const float product = dot(residuals.row(i), residuals.row(pick), residuals.stride()) *
                          dot(hidden.row(i), hidden.row(pick), hidden.stride());
    return std::max(norms2[i] + norms2[pick] - 2 * product, 0.0f);
  });
}

// Lazy greedy (Minoux 1978) on the sum over all rows of the largest cosine to the batch, clipped at 0, over the stored
// matrix of all cosines. The matrix counts as part of the selection: nothing can be picked without it.
std::vector<std::int64_t> facility_location(const Matrix& x, std::int64_t count) {
  using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const std::int64_t rows = x.rows(), stride = x.stride();
  Rows unit(rows, stride);
#pragma omp parallel for schedule(static)
  for (std::int64_t i = 0; i < rows; ++i) {
    const float length = std::sqrt(dot(x.row(i), x.row(i), stride));
    for (std::int64_t c = 0; c < stride; ++c) unit(i, c) = length > 0 ? x.row(i)[c] / length : 0;
  }
  Matrix similarity(rows, rows);  // symmetric: row j is what candidate j covers
  const std::int64_t width = similarity.stride();
  Eigen::setNbThreads(1);  // the blocks are what is shared out
#pragma omp parallel for schedule(dynamic)
  for (std::int64_t begin = 0; begin < rows; begin += kTile) {
    const std::int64_t size = std::min<std::int64_t>(kTile, rows - begin);
    Eigen::Map<Rows, 0, Eigen::OuterStride<>> block(similarity.row(begin), size, rows, Eigen::OuterStride<>(width));
    block.noalias() = unit.middleRows(begin, size) * unit.transpose();
    block = block.cwiseMax(0.0f);
  }

  Matrix covered(1, rows);
  const auto gain = [&](std::int64_t j) {
    const float *s = similarity.row(j), *best = covered.row(0);
    double sum = 0;
    for (std::int64_t begin = 0; begin < width; begin += 32 * kTile)  // long sums of floats lose digits
      sum += reduce(s + begin, best + begin, std::min<std::int64_t>(32 * kTile, width - begin),
                    [](__m256 total, __m256 a, __m256 b) {
                      return _mm256_add_ps(total, _mm256_max_ps(_mm256_sub_ps(a, b), _mm256_setzero_ps()));
                    });
    return sum;
  };

  struct Bound {
    double gain;
    std::int64_t row;
    std::int64_t picks;  // how many there were when the gain was computed

    bool operator<(const Bound& other) const { return gain != other.gain ? gain < other.gain : row > other.row; }
  };
  std::vector<Bound> all(rows);
#pragma omp parallel for schedule(static)
  for (std::int64_t j = 0; j < rows; ++j) all[j] = {gain(j), j, 0};
  std::priority_queue<Bound> heap(std::less<Bound>(), std::move(all));
  std::vector<std::int64_t> picks;
  std::vector<Bound> stale;
  while (static_cast<std::int64_t>(picks.size()) < count) {
    const std::int64_t now = picks.size();
    if (heap.top().picks == now) {
      const std::int64_t pick = heap.top().row;
      heap.pop();
      picks.push_back(pick);
      for (std::int64_t i = 0; i < rows; ++i) covered.row(0)[i] = std::max(covered.row(0)[i], similarity.row(pick)[i]);
      continue;
    }
    // A few at a time, so that every thread has some.
    const std::size_t few = 4 * static_cast<std::size_t>(omp_get_max_threads());
    for (stale.clear(); !heap.empty() && heap.top().picks < now && stale.size() < few; heap.pop())
      stale.push_back(heap.top());
#pragma omp parallel for schedule(static, 1)
    for (std::size_t k = 0; k < stale.size(); ++k) stale[k] = {gain(stale[k].row), stale[k].row, now};
    for (const Bound& bound : stale) heap.push(bound);
  }
  return picks;
}

double x_log_x(double p) {
  return p > 0 ? p * std::log(p) : 0;
}

double entropy(const float* p, std::int64_t, std::int64_t classes) {
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum -= x_log_x(p[c]);
  return sum;
}

double bald(const float* p, std::int64_t passes, std::int64_t classes) {
  double of_mean = 0, mean_of = 0;
  for (std::int64_t c = 0; c < classes; ++c) {
    double sum = 0;
    for (std::int64_t t = 0; t < passes; ++t) {
      sum += p[t * classes + c];
      mean_of -= x_log_x(p[t * classes + c]);
    }
    of_mean -= x_log_x(sum / passes);
  }
  return of_mean - mean_of / passes;
}

// The rows with the largest scores; each thread keeps its best in a heap.
template <class Score>
std::vector<std::int64_t> best(const std::vector<float>& p, std::int64_t rows, std::int64_t passes,
                               std::int64_t classes, std::int64_t count, Score score) {
  using Scored = std::pair<float, std::int64_t>;  // minus the score, row: the smallest is the best
  std::vector<Scored> found;
#pragma omp parallel
  {
    std::priority_queue<Scored> heap;  // the worst of the best on top
#pragma omp for schedule(static) nowait
    for (std::int64_t i = 0; i < rows; ++i) {
      const Scored scored{-static_cast<float>(score(p.data() + i * passes * classes, passes, classes)), i};
      if (static_cast<std::int64_t>(heap.size()) == count && !(scored < heap.top())) continue;
      if (static_cast<std::int64_t>(heap.size()) == count) heap.pop();
      heap.push(scored);
    }
#pragma omp critical
    for (; !heap.empty(); heap.pop()) found.push_back(heap.top());
  }
  std::sort(found.begin(), found.end());
  std::vector<std::int64_t> rows_of_best;
  for (std::int64_t i = 0; i < count; ++i) rows_of_best.push_back(found[i].second);
  return rows_of_best;
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Each process reads its share into fresh memory; from the first start to the last end.
double read_by_processes(const Place& place, std::int64_t bytes, int processes) {
  const Clock::time_point start = Clock::now();
  for (int p = 0; p < processes; ++p) {
    if (fork() != 0) continue;
    const std::int64_t begin = bytes * p / processes, end = bytes * (p + 1) / processes;
    const std::unique_ptr<char[]> memory(new char[end - begin]);
    const int file = open(place.path.c_str(), O_RDONLY);
    for (std::int64_t at = begin; at < end;) {
      const ssize_t got = pread(file, memory.get() + (at - begin), end - at, place.offset + at);
      if (got <= 0) _exit(1);
      at += got;
    }
    _exit(0);
  }
  for (int p = 0, status = 0; p < processes; ++p)
    if (wait(&status) < 0 || status != 0) fail("cannot read " + place.path);
  return seconds_since(start);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) fail("see the first lines of baseline.cpp");
  const std::string strategy = argv[1];
  std::map<std::string, std::string> words;
  for (int i = 2; i < argc; ++i) {
    const std::string word = argv[i];
    const std::size_t equals = word.find('=');
    if (equals == std::string::npos) fail("not KEY=VALUE: " + word);
    words[word.substr(0, equals)] = word.substr(equals + 1);
  }
  const auto text = [&](const std::string& key) {
    return words.count(key) ? words[key] : (fail(key + " is missing"), "");
  };
  const auto number = [&](const std::string& key) { return std::stoll(text(key)); };

  if (strategy == "read") {
    std::printf("%.6f\n", read_by_processes(Place(text("embeddings")), number("bytes"), number("processes")));
    return 0;
  }
  const std::int64_t rows = number("rows"), count = number("picks");
  omp_set_num_threads(number("threads"));
  std::vector<std::int64_t> picks;
  double seconds;
  if (strategy == "entropy" || strategy == "bald") {
    const std::int64_t passes = number("passes"), classes = number("classes");
    std::vector<float> p(rows * passes * classes);
    read(Place(text("probabilities")), 1, p.size(), [&](std::int64_t) { return p.data(); });
    const Clock::time_point start = Clock::now();
    picks = best(p, rows, passes, classes, count, strategy == "bald" ? bald : entropy);
    seconds = seconds_since(start);
  } else {
    const std::int64_t classes = strategy == "badge" ? number("classes") : 1;
    const Matrix x = read_matrix(Place(text("embeddings")), rows, number("dim"));
    const Matrix p = strategy == "badge" ? read_matrix(Place(text("probabilities")), rows, classes) : Matrix(1, 1);
    const Clock::time_point start = Clock::now();
    if (strategy == "k_center")
      picks = k_center(x, count);
    else if (strategy == "k_means_pp")
      picks = k_means_pp(x, count, number("seed"));
    else if (strategy == "badge")
      picks = badge(x, p, classes, count, number("seed"));
    else if (strategy == "facility_location")
      picks = facility_location(x, count);
    else
      fail("no such strategy: " + strategy);
    seconds = seconds_since(start);
  }

  std::FILE* out = std::fopen(text("out").c_str(), "w");
  if (!out) fail("cannot write " + text("out"));
  for (const std::int64_t row : picks) std::fprintf(out, "%lld\n", static_cast<long long>(row));
  std::fclose(out);
  std::printf("%.6f\n", seconds);
}
