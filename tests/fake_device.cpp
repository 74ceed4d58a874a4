// A CUDA plug-in without CUDA, for device_test: the loops of the checked backend, whose memory the host cannot touch,
// and memory of a device that is counted as the CUDA backend takes it. The environment says what the device is like:
//   SEINE_FAKE_FREE     bytes that are free; 8 GiB where it is not set
//   SEINE_FAKE_NONE     digits: ranks that have no device
//   SEINE_FAKE_SHARED   set: all ranks have the same one
//   SEINE_FAKE_ABI      interface that the plug-in was built with
//   SEINE_FAKE_OPEN     set: the host may touch its memory, which is quicker: for runs that are only counted
//   SEINE_FAKE_PEAK     a file, with .RANK behind the name: the most bytes that were taken, and with scratch memory
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "backend/checked.hpp"
#include "backend/cpu/cpu_backend.hpp"
#include "backend/cuda/geometry.hpp"
#include "backend/key_sample.hpp"
#include "backend/plugin.hpp"
#include "seine/backend.hpp"
#include "seine/bytes.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

std::string variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

bool is_set(const char* name) {
  return std::getenv(name) != nullptr;
}

std::string rank() {
  return variable("OMPI_COMM_WORLD_RANK", "0");
}

class FakeDevice final : public Backend {
 public:
  explicit FakeDevice(const BackendOptions& options)
      : loops_(is_set("SEINE_FAKE_OPEN") ? std::make_unique<CpuBackend>(options) : make_checked_backend(options)),
        device_(is_set("SEINE_FAKE_SHARED") ? 0 : options.local_rank),
        free_(std::stoll(variable("SEINE_FAKE_FREE", "8589934592"))) {}
  ~FakeDevice() override {
    const std::string path = variable("SEINE_FAKE_PEAK", "");
    if (!path.empty()) std::ofstream(path + "." + rank()) << peak_ << " " << peak_with_scratch_ << "\n";
  }

  std::string name() const override { return "cuda"; }
  std::string describe() const override { return "fake device " + std::to_string(device_); }
  DeviceMemory memory() const override {
    const std::lock_guard lock(mutex_);
    return {free_ + kGiB, free_ - taken_ - scratch_, static_cast<std::uint64_t>(device_)};
  }

  void* allocate(std::size_t bytes) override {
    take(taken_, static_cast<std::int64_t>(bytes));
    try {
      return loops_->allocate(bytes);
    } catch (...) {
      give_back(taken_, static_cast<std::int64_t>(bytes));
      throw;
    }
  }
  void release(void* memory, std::size_t bytes) noexcept override {
    give_back(taken_, static_cast<std::int64_t>(bytes));
    loops_->release(memory, bytes);
  }
  void copy_in(void* to, const void* host, std::size_t bytes) override { loops_->copy_in(to, host, bytes); }
  void copy_out(void* host, const void* from, std::size_t bytes) override { loops_->copy_out(host, from, bytes); }
  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override {
    const Taken items(*this, scratch_, positions.size() * (item_bytes + kPosition));
    loops_->gather(from, item_bytes, positions, host);
  }
  void scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
               std::span<const std::int64_t> slots) override {
    const Taken places(*this, scratch_, positions.size() * 2 * kPosition);
    loops_->scatter(from, item_bytes, positions, to, slots);
  }

  void* allocate_staging(std::size_t bytes) override { return loops_->allocate_staging(bytes); }
  void release_staging(void* memory, std::size_t bytes) noexcept override { loops_->release_staging(memory, bytes); }
  void begin_copy_in(void* to, const void* staging, std::size_t bytes) override {
    loops_->begin_copy_in(to, staging, bytes);
  }
  void await_copies() override { loops_->await_copies(); }

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override { loops_->unit_rows(x, rows, dim); }
  void squared_norms(const Field& x, std::int64_t rows, double* out) override { loops_->squared_norms(x, rows, out); }
  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) override {
    loops_->start(rule, how, rows, states);
  }
  // Picks of float16 are widened, and those count: of a large batch they are many.
  std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                     const RowStates& states) override {
    const Field& x = picks.vectors.x;
    const auto values = static_cast<std::size_t>(picks.vectors.rows * x.dim);
    const Taken wide(*this, taken_, x.type == Element::f16 ? values * sizeof(float) : 0);
    const Taken list(*this, scratch_, scratch_rows(rows.rows) * sizeof(std::int32_t));
    return loops_->apply(rule, rows, picks, floor, states);
  }
  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override {
    const Taken found(*this, scratch_, scratch_rows(rows) * sizeof(Candidate));
    return loops_->top(key, selectable, global_rows, rows, count);
  }
  double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) override {
    const Taken keys(*this, scratch_, static_cast<std::size_t>(KeySample(rows, count).size) * 2 * sizeof(double));
    return loops_->nth(key, selectable, rows, count);
  }
  std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) override {
    return loops_->at_least(key, selectable, rows, floor);
  }
  // Rows of a band that lie anywhere are packed, some at a time.
  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override {
    const Taken sums(*this, scratch_, sums_of(count));
    const std::size_t row_bytes = ground.row_bytes() + (weight ? sizeof(double) : 0);
    const std::int64_t at_once = std::max<std::int64_t>(kPackedBytes / static_cast<std::int64_t>(row_bytes), 1);
    const auto packed_rows = static_cast<std::size_t>(band.rows ? std::min(at_once, band.count) : 0);
    const Taken packed(*this, scratch_, packed_rows * row_bytes);
    loops_->gains(ground, band, weight, fixed, candidates, count, gains);
  }
  std::int64_t first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                           const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                           std::int64_t room, std::int64_t* gains, std::int64_t* near) override {
    const Taken sums(*this, scratch_, lists.size() * sizeof(Near*) + 2 * sums_of(std::ssize(lists)));
    return loops_->first_gains(ground, all, weight, fixed, candidates, shadows, lists, room, gains, near);
  }
  void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                    std::int64_t* near, std::int64_t* gains) override {
    const Taken sums(*this, scratch_, lists.size() * sizeof(Near*) + 2 * sums_of(std::ssize(lists)));
    loops_->listed_gains(lists, best, weight, fixed, near, gains);
  }
  void raise_listed(const Near* list, std::int64_t length, float* best) override {
    loops_->raise_listed(list, length, best);
  }
  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override {
    loops_->raise(ground, rows, picks, count, best);
  }
  void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                    std::int64_t* sums) override {
    const Taken device(*this, scratch_, sums_of(x.dim));
    loops_->weighted_sum(x, rows, factor, fixed, sums);
  }
  void products(const Field& x, std::int64_t rows, const double* vector, double* out) override {
    loops_->products(x, rows, vector, out);
  }
  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override {
    const Taken device(*this, scratch_, groups.size() * kPosition + sums_of(x.dim * x.dim));
    loops_->gram(x, groups, fixed, sums);
  }

 private:
  static constexpr std::size_t kPosition = sizeof(std::int64_t);
  static std::size_t sums_of(std::int64_t count) { return static_cast<std::size_t>(count) * sizeof(std::int64_t); }
  static std::size_t scratch_rows(std::int64_t rows) { return static_cast<std::size_t>(std::min(rows, kScratchRows)); }

  void take(std::int64_t& of, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::int64_t left = free_ - taken_ - scratch_;
    if (bytes > left)
      throw Error(Exit::system, "out of memory of the fake device: " + std::to_string(bytes) + " bytes asked for, " +
                                    std::to_string(left) + " of " + std::to_string(free_) + " free");
    of += bytes;
    peak_ = std::max(peak_, taken_);
    peak_with_scratch_ = std::max(peak_with_scratch_, taken_ + scratch_);
  }
  void give_back(std::int64_t& of, std::int64_t bytes) {
    const std::lock_guard lock(mutex_);
    of -= bytes;
  }

  // What a loop of the CUDA backend takes while it runs; these loops need none.
  class Taken {
   public:
    Taken(FakeDevice& on, std::int64_t& of, std::size_t bytes)
        : on_(on), of_(of), bytes_(static_cast<std::int64_t>(bytes)) {
      on_.take(of_, bytes_);
    }
    ~Taken() { on_.give_back(of_, bytes_); }
    Taken(const Taken&) = delete;
    Taken& operator=(const Taken&) = delete;

   private:
    FakeDevice& on_;
    std::int64_t& of_;
    const std::int64_t bytes_;
  };

  const std::unique_ptr<Backend> loops_;
  const int device_;
  const std::int64_t free_;  // at first
  mutable std::mutex mutex_;
  std::int64_t taken_ = 0, scratch_ = 0;  // the second is not in the need of a run: a part of the memory is kept for it
  std::int64_t peak_ = 0, peak_with_scratch_ = 0;
};

Backend* create(const BackendOptions& options) {
  if (variable("SEINE_FAKE_NONE", "").find(rank()) != std::string::npos)
    throw Error(Exit::no_device, "the fake has no device for this rank");
  return new FakeDevice(options);
}

}  // namespace
}  // namespace seine

extern "C" __attribute__((visibility("default"))) const seine::CudaPlugin* seine_cuda_plugin() {
  static const seine::CudaPlugin plugin{
      std::stoi(seine::variable("SEINE_FAKE_ABI", std::to_string(seine::kPluginAbi).c_str())), SEINE_VERSION, "a fake",
      seine::create};
  return &plugin;
}
