#include "seine/calibration.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <vector>

#include "descriptor.hpp"
#include "engines/rule_state.hpp"
#include "engines/symmetric.hpp"
#include "reading/loader.hpp"
#include "seine/bytes.hpp"
#include "seine/cover.hpp"
#include "seine/error.hpp"
#include "seine/input.hpp"
#include "seine/pick.hpp"
#include "seine/synthesis.hpp"

namespace seine {
namespace {

double processor_seconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Processor seconds of one call in the middle of three: of work whose time is the system's, too.
double middle_seconds_of(const std::function<void()>& work) {
  std::array<double, 3> seconds{};
  for (double& each : seconds) {
    const double before = processor_seconds();
    work();
    each = processor_seconds() - before;
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[1];
}

// Processor seconds of one call, the smallest of a few.
double seconds_of(const std::function<void()>& work, int most = 10) {
  double best = HUGE_VAL, total = 0;
  for (int i = 0; i < most && (i < 2 || total < 0.2); ++i) {
    const double before = processor_seconds();
    work();
    const double seconds = processor_seconds() - before;
    best = std::min(best, seconds);
    total += seconds;
  }
  return best;
}

// Through two points; neither part below a tenth of what they allow, whatever the noise.
Line line_through(double x, double seconds_x, double y, double seconds_y) {
  const double slope = std::max((seconds_y - seconds_x) / (y - x), 0.1 * seconds_y / y);
  return {std::max(seconds_x - slope * x, 0.1 * seconds_x), slope};
}

// Rows of ten Gaussian clusters that overlap, as `seine synth` makes them.
std::vector<float> clustered(std::int64_t rows, std::int64_t dim) {
  constexpr std::int64_t kClusters = 10;
  const auto normal = [](Purpose purpose, std::int64_t i) {  // nearly: a sum of four draws
    const std::uint64_t bits = random_bits(1, purpose.key, static_cast<std::uint64_t>(i));
    double sum = -2;
    for (int part = 0; part < 4; ++part) sum += static_cast<double>((bits >> (16 * part)) & 0xffff) / 65536;
    return static_cast<float>(sum * std::sqrt(3.0));
  };
  std::vector<float> centres, x;
  for (std::int64_t i = 0; i < kClusters * dim; ++i) centres.push_back(std::sqrt(0.5f) * normal(Purpose("centre"), i));
  x.reserve(static_cast<std::size_t>(rows * dim));
  for (std::int64_t i = 0; i < rows; ++i)
    for (std::int64_t c = 0; c < dim; ++c)
      x.push_back(centres[static_cast<std::size_t>(i % kClusters * dim + c)] + normal(Purpose("row"), i * dim + c));
  return x;
}

Pool pool_of(const Comm& self, Backend& backend, std::int64_t rows, std::int64_t dim) {
  Columns columns;
  for (std::int64_t i = 0; i < rows; ++i) columns.rows.push_back(i);
  columns.role.assign(static_cast<std::size_t>(rows), Role::candidate);
  const std::vector<float> x = clustered(rows, dim);
  return Pool(self, backend, std::move(columns),
              RowStore(backend, {Element::f32, dim, 0}, rows,
                       Array<std::byte>(backend, std::as_bytes(std::span<const float>(x))), Array<float>(backend, 0)));
}

class Calibration {
 public:
  Calibration() : self_(Comm::self()), backend_(make_backend("cpu", {.threads = 1, .local_rank = 0}, why_)) {}

  Machine run(const Console& console) {
    constexpr double kEnding = 1.35;  // the launcher takes leave, too
    machine_.start = kEnding * age();
    machine_.fresh_byte = fresh_byte();
    console.info("calibrating: rows and picks");
    meetings();
    rounds();
    console.info("calibrating: reading");
    reading();
    return machine_;
  }

 private:
  static constexpr std::int64_t kShort = 32, kLong = 512;  // dimensions

  // Seconds since this process was started: most of them are those of the launcher.
  static double age() {
    std::ifstream file("/proc/self/stat");
    std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::size_t name_end = text.rfind(')');
    if (name_end == std::string::npos) return Machine().start;
    constexpr int kAfterName = 3, kStartTime = 22;  // numbers of fields
    std::istringstream fields(text.substr(name_end + 1));
    for (int i = kAfterName; i <= kStartTime; ++i) fields >> text;
    const double ticks = std::strtod(text.c_str(), nullptr);
    timespec now{};
    clock_gettime(CLOCK_BOOTTIME, &now);
    const double age = static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
                       ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
    return age > 0.02 && age < 30 ? age : Machine().start;
  }

  double fresh_byte() {
    constexpr std::int64_t kBytes = 128 * kMiB;
    return middle_seconds_of([&] {
             const Array<std::byte> memory(*backend_, kBytes);
             std::memset(memory.data(), 1, kBytes);
           }) /
           static_cast<double>(kBytes);
  }

  // Seconds of one pair at two dimensions.
  template <class Pair>
  static Line line_of(const Pair& pair) {
    return line_through(kShort, pair(kShort), kLong, pair(kLong));
  }

  void meetings() {
    constexpr std::int64_t kRows = 4096, kPicks = 64;
    machine_.distance = line_of([&](std::int64_t dim) {
      const Pool pool = pool_of(self_, *backend_, kRows, dim);
      RuleState state(*backend_, RuleKind::nearest, kRows);
      const Picks picks{pool.store().vectors().from(kRows - kPicks, kPicks), nullptr};
      return seconds_of([&] {
               state.start({nullptr, pool.global_rows(), 0, Purpose("none")}, nullptr);
               state.apply(pool.store().vectors(), picks, kNoCandidate.value, nullptr);
             }) /
             static_cast<double>(kRows * kPicks);
    });

    // More than the caches hold: every row of the matrix reads all of it.
    constexpr std::int64_t kMany = 65536, kMiddle = 128, kGroup = 256;
    const Pool pool = pool_of(self_, *backend_, kMany, kMiddle);
    std::vector<std::int64_t> groups, sums(kMiddle * kMiddle);
    for (std::int64_t first = 0; first <= kMany; first += kGroup) groups.push_back(first);
    machine_.moment = seconds_of([&] {
                        backend_->gram(pool.store().vectors().x, groups, FixedPoint::for_sum(kMany, 1e3), sums.data());
                      }) /
                      static_cast<double>(kMany * kMiddle * kMiddle / 2);
    constexpr int kTaken = 64;
    Precision precision(kLong, {});
    const std::vector<float> row(kLong, 0.01f);
    machine_.entry = seconds_of([&] {
                       for (int i = 0; i < kTaken; ++i) precision.take(row, 1e6);
                     }) /
                     (2.0 * kTaken * kLong * kLong);
  }

  void rounds() {
    constexpr std::int64_t kRows = 1 << 18, kSifted = 1 << 16;
    {
      const Pool pool = pool_of(self_, *backend_, kRows, 1);
      RuleState state(*backend_, RuleKind::race, kRows);
      state.start({nullptr, pool.global_rows(), 0, Purpose("race")}, nullptr);
      std::vector<double> keys;
      for (std::int64_t i = 0; i < kRows; ++i)
        keys.push_back(uniform(0, Purpose("key"), static_cast<std::uint64_t>(i)));
      state.key.write(keys);
      const Array<std::uint8_t> all = pool.selectable();
      const Picks picks{pool.store().vectors().from(0, 1), nullptr};
      machine_.scanned_row = seconds_of([&] {
                               backend_->top(state.key.data(), all.data(), pool.global_rows(), kRows, 1024);
                               state.apply(pool.store().vectors(), picks, HUGE_VAL, nullptr);
                             }) /
                             static_cast<double>(kRows);
      machine_.sifted_row = seconds_of([&] { backend_->nth(state.key.data(), all.data(), kSifted, 2048); }) /
                            static_cast<double>(kSifted);
      machine_.drawn_row =
          seconds_of([&] { draw_rows(pool, 1, Purpose("evaluation"), 1024, [](std::int64_t) { return true; }); }) /
          static_cast<double>(kRows);
    }
    engines();
  }

  // What is left of whole selections when what is known is taken off.
  void engines() {
    constexpr std::int64_t kFew = 1024, kMany = 16384, kPicks = 256;
    machine_.pick = pick("k_means_pp", kFew, kShort, kPicks).seconds / static_cast<double>(kPicks);
    constexpr std::int64_t kRacing = 1 << 17, kFirst = 8;
    const double racing = pick("k_means_pp", kRacing, kShort, kFirst).seconds;
    machine_.raced_row = std::max(racing - kFirst * machine_.pick, racing / 2) / static_cast<double>(kRacing);
    machine_.close_pick = line_of(
        [&](std::int64_t dim) { return pick("log_det", kFew, dim, kPicks).seconds / static_cast<double>(kPicks); });
    const auto pair = [&](const char* name, std::int64_t rows, std::int64_t dim, double seconds_of_pick) {
      const Picking picking = pick(name, rows, dim, kPicks);
      const double others = seconds_of_pick * kPicks + static_cast<double>(picking.rounds * rows) *
                                                           (machine_.scanned_row + machine_.sifted_row) * 3;
      return std::max(picking.seconds - others, picking.seconds / 4) / picking.pairs;
    };
    machine_.screened_distance = line_of([&](std::int64_t dim) { return pair("k_center", kMany, dim, machine_.pick); });
    machine_.product = line_of([&](std::int64_t dim) {
      return pair("log_det", 2 * kMany, dim, machine_.close_pick.of(static_cast<double>(dim)));
    });
    machine_.similarity = line_of([&](std::int64_t dim) {
      const Picking picking = pick("facility_location", 4 * kFew, dim, kPicks / 4);
      return picking.seconds / picking.pairs;
    });
  }

  struct Picking {
    double seconds, pairs;
    std::int64_t rounds;
  };
  Picking pick(const std::string& strategy_name, std::int64_t rows, std::int64_t dim, std::int64_t picks) {
    Pool pool = pool_of(self_, *backend_, rows, dim);
    Request request;
    request.strategy = strategy_name;
    request.batch = picks;
    Task task{request, strategy(strategy_name)};
    task.batch = picks;
    task.unit_rows = task.entry.unit_rows;
    if (task.unit_rows) pool.make_unit();
    Prior prior;
    task.prior = &prior;
    if (task.entry.cover) task.entry.cover(pool, task, prior);
    Picking picking{};
    picking.seconds = seconds_of(
        [&] {
          const Picked picked = task.entry.pick(pool, task);
          picking.pairs = picked.pairs;
          picking.rounds = picked.rounds;
        },
        2);
    return picking;
  }

  void reading() {
    std::string folder = (std::filesystem::temp_directory_path() / "seine_calibrate_XXXXXX").string();
    if (!mkdtemp(folder.data())) throw Error(Exit::cannot_create, fmt::format("{}: cannot be made", folder));
    struct Removed {
      std::string path;
      ~Removed() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
      }
    } const removed{folder};
    SynthesisRequest request;
    request.rows = 65536;
    request.dim = 192;
    request.classes = 8;
    request.passes = 4;
    request.out = folder;
    synthesise(request, self_, {});
    const std::string path = folder + "/part-00000.h5";
    machine_.stored_byte = stored_byte_of(path);

    Needs needs;
    needs.embeddings = needs.probabilities = true;
    const auto rows = static_cast<double>(request.rows),
               values = rows * static_cast<double>(request.classes * request.passes);
    machine_.identified_row = seconds_of([&] { open_candidates(self_, {path}, {}, needs); }) / rows;
    const OpenedPool opened = open_candidates(self_, {path}, {}, needs);
    const auto loading = [&](const Wanted& wanted) {
      return middle_seconds_of([&] { load(self_, *backend_, opened, wanted, PoolRequest(), nullptr); });
    };
    Wanted nothing, embeddings, residuals, best, scores;
    embeddings.embeddings = true;
    residuals.residuals = true;
    best.score = scores.score = ScoreKind::bald;
    best.best = 1000;
    const double base = loading(nothing);
    const auto beside = [&](const Wanted& wanted, double count) {
      const double seconds = loading(wanted);
      return std::max(seconds - base, seconds / 10) / count;
    };
    machine_.cached_byte = beside(embeddings, rows * static_cast<double>(request.dim) * 4);
    machine_.residual_value = beside(residuals, values);
    machine_.bounded_value = beside(best, values);
    machine_.scored_value = beside(scores, values);
    std::vector<std::int64_t> together, alone;
    for (std::int64_t row = 0; row < request.rows / 8; ++row) together.push_back(row);
    for (std::int64_t row = 0; row < request.rows; row += 8) alone.push_back(row);
    std::vector<std::byte> out(alone.size() * static_cast<std::size_t>(request.dim) * 4);
    const auto fetching = [&](const std::vector<std::int64_t>& some) {
      return seconds_of([&] { opened.files.read_embedding_rows(some, out.data(), Element::f32); });
    };
    machine_.fetched_byte = fetching(together) / static_cast<double>(out.size());
    machine_.fetched_row = fetching(alone) / static_cast<double>(alone.size());
  }

  // By the clock, after the file was forgotten where the system does that.
  static double stored_byte_of(const std::string& path) {
    const Descriptor file(path, O_RDONLY);
    if (!file) return Machine().stored_byte;
    fdatasync(file.number());
    posix_fadvise(file.number(), 0, 0, POSIX_FADV_DONTNEED);
    std::vector<char> part(1 << 20);
    const auto now = std::chrono::steady_clock::now();
    double bytes = 0;
    for (ssize_t got = 0; (got = read(file.number(), part.data(), part.size())) > 0;) bytes += static_cast<double>(got);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - now).count();
    return bytes > 0 ? seconds / bytes : Machine().stored_byte;
  }

  Machine machine_;
  std::string why_;
  Comm self_;
  std::unique_ptr<Backend> backend_;
};

}  // namespace

Machine calibrate(const Console& console) {
  Machine machine = Calibration().run(console);
  machine.origin = "measured now";
  return machine;
}

}  // namespace seine
