#include "backend/checked.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "backend/cpu/cpu_backend.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

class CheckedBackend final : public Backend {
 public:
  explicit CheckedBackend(const BackendOptions& options) : cpu_(std::make_unique<CpuBackend>(options)) {
    void* arena = mmap(nullptr, kArena, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (arena == MAP_FAILED) throw Error(Exit::system, "out of addresses for the checked backend");
    begin_ = end_ = static_cast<std::byte*>(arena);
  }
  ~CheckedBackend() override { munmap(begin_, kArena); }

  std::string name() const override { return "checked"; }
  std::string describe() const override { return "checked, over " + cpu_->describe(); }

  // Whole pages of one arena, which is closed as a whole: a call would take long to open many blocks one by one. The
  // block ends at the end of its last page, to the 64 bytes of its alignment, and a watched page follows.
  void* allocate(std::size_t bytes) override {
    const std::size_t used = (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64, pages = whole_pages(used);
    std::byte* base = take(pages + page_);
    if (!base) throw Error(Exit::system, "out of memory: " + std::to_string(bytes) + " bytes asked for");
    const Open open(*this);
    std::memset(base, 0xff, pages + page_);  // NaN as float32 and float64
    return base + (pages - used);
  }
  void release(void* memory, std::size_t bytes) noexcept override {
    const std::size_t used = (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64, pages = whole_pages(used);
    auto* watched = static_cast<std::byte*>(memory) + used;
    const Open open(*this);
    if (std::any_of(watched, watched + page_, [](std::byte byte) { return byte != std::byte{0xff}; })) {
      std::fputs("seine: a loop of the backend wrote behind its memory\n", stderr);
      std::abort();
    }
    free_.emplace(pages + page_, watched - pages);
  }
  void copy_in(void* to, const void* host, std::size_t bytes) override {
    const Open open(*this);
    cpu_->copy_in(to, host, bytes);
  }
  void copy_out(void* host, const void* from, std::size_t bytes) override {
    const Open open(*this);
    cpu_->copy_out(host, from, bytes);
  }
  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override {
    const Open open(*this);
    cpu_->gather(from, item_bytes, positions, host);
  }
  void scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
               std::span<const std::int64_t> slots) override {
    const Open open(*this);
    cpu_->scatter(from, item_bytes, positions, to, slots);
  }

  // Whole pages, which are closed for writing while they are copied. The copy itself waits as long as it may, and what
  // it leads to holds nothing until then.
  void* allocate_staging(std::size_t bytes) override {
    void* memory = mmap(nullptr, whole_pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw Error(Exit::system, "out of memory: " + std::to_string(bytes) + " bytes asked for");
    return memory;
  }
  void release_staging(void* memory, std::size_t bytes) noexcept override {
    await_copies();
    munmap(memory, whole_pages(bytes));
  }
  void begin_copy_in(void* to, const void* staging, std::size_t bytes) override {
    const Open open(*this);
    std::memset(to, 0xff, bytes);
    const std::lock_guard lock(copies_mutex_);
    copies_.push_back({to, staging, bytes});
    protect(copies_.back(), PROT_READ);
  }
  void await_copies() override {
    const Open open(*this);
    const std::lock_guard lock(copies_mutex_);
    for (const Copy& copy : copies_) {
      cpu_->copy_in(copy.to, copy.staging, copy.bytes);
      protect(copy, PROT_READ | PROT_WRITE);
    }
    copies_.clear();
  }

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override {
    const Open open(*this);
    cpu_->unit_rows(x, rows, dim);
  }
  void squared_norms(const Field& x, std::int64_t rows, double* out) override {
    const Open open(*this);
    cpu_->squared_norms(x, rows, out);
  }
  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) override {
    const Open open(*this);
    cpu_->start(rule, how, rows, states);
  }
  std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                     const RowStates& states) override {
    const Open open(*this);
    return cpu_->apply(rule, rows, picks, floor, states);
  }
  bool bounds_of_pairs_pay() const override { return cpu_->bounds_of_pairs_pay(); }
  void compare(const Field& picks, std::int64_t first, std::int64_t last, float* between,
               std::int64_t stride) override {
    const Open open(*this);
    cpu_->compare(picks, first, last, between, stride);
  }
  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override {
    const Open open(*this);
    return cpu_->top(key, selectable, global_rows, rows, count);
  }
  double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) override {
    const Open open(*this);
    return cpu_->nth(key, selectable, rows, count);
  }
  std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) override {
    const Open open(*this);
    return cpu_->at_least(key, selectable, rows, floor);
  }
  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override {
    const Open open(*this);
    cpu_->gains(ground, band, weight, fixed, candidates, count, gains);
  }
  std::int64_t first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                           const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                           std::int64_t room, std::int64_t* gains, std::int64_t* near) override {
    const Open open(*this);
    return cpu_->first_gains(ground, all, weight, fixed, candidates, shadows, lists, room, gains, near);
  }
  void gain_bounds(const ShadowFields& shadows, const Band& all, const double* weight, FixedPoint fixed,
                   std::int64_t count, std::int64_t* bounds, std::int64_t* near) override {
    const Open open(*this);
    cpu_->gain_bounds(shadows, all, weight, fixed, count, bounds, near);
  }
  void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                    std::int64_t* near, std::int64_t* gains) override {
    const Open open(*this);
    cpu_->listed_gains(lists, best, weight, fixed, near, gains);
  }
  void raise_listed(const Near* list, std::int64_t length, float* best) override {
    const Open open(*this);
    cpu_->raise_listed(list, length, best);
  }
  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override {
    const Open open(*this);
    cpu_->raise(ground, rows, picks, count, best);
  }
  void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                    std::int64_t* sums) override {
    const Open open(*this);
    cpu_->weighted_sum(x, rows, factor, fixed, sums);
  }
  void products(const Field& x, std::int64_t rows, const double* vector, double* out) override {
    const Open open(*this);
    cpu_->products(x, rows, vector, out);
  }
  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override {
    const Open open(*this);
    cpu_->gram(x, groups, fixed, sums);
  }

 private:
  // Memory can be touched while one of these lives, in whatever thread.
  class Open {
   public:
    explicit Open(CheckedBackend& of) : of_(of) { of_.open(1); }
    ~Open() { of_.open(-1); }

   private:
    CheckedBackend& of_;
  };
  void open(int more) {
    const std::lock_guard lock(arena_mutex_);
    open_ += more;
    if (end_ != begin_)  // opened again by every call: there may be more of it
      mprotect(begin_, static_cast<std::size_t>(end_ - begin_), open_ > 0 ? PROT_READ | PROT_WRITE : PROT_NONE);
  }

  struct Copy {
    void* to;
    const void* staging;
    std::size_t bytes;
  };
  void protect(const Copy& copy, int how) {
    const auto first = reinterpret_cast<std::uintptr_t>(copy.staging) / page_ * page_;
    const auto last = reinterpret_cast<std::uintptr_t>(copy.staging) + copy.bytes;
    mprotect(reinterpret_cast<void*>(first), last - first, how);
  }

  std::size_t whole_pages(std::size_t bytes) const {
    return (std::max<std::size_t>(bytes, 1) + page_ - 1) / page_ * page_;
  }

  // Pages that were given back, or new ones; null: there are none.
  std::byte* take(std::size_t bytes) {
    const std::lock_guard lock(arena_mutex_);
    const auto found = free_.find(bytes);
    if (found != free_.end()) {
      std::byte* base = found->second;
      free_.erase(found);
      return base;
    }
    if (static_cast<std::size_t>(begin_ + kArena - end_) < bytes) return nullptr;
    end_ += bytes;
    return end_ - bytes;
  }

  static constexpr std::size_t kArena = std::size_t{1} << 36;  // of addresses, not of memory

  std::unique_ptr<Backend> cpu_;
  const std::size_t page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  std::byte *begin_ = nullptr, *end_ = nullptr;
  std::multimap<std::size_t, std::byte*> free_;  // by size
  std::mutex arena_mutex_, copies_mutex_;
  int open_ = 0;  // how many calls touch memory
  std::vector<Copy> copies_;
};

}  // namespace

std::unique_ptr<Backend> make_checked_backend(const BackendOptions& options) {
  return std::make_unique<CheckedBackend>(options);
}

}  // namespace seine
