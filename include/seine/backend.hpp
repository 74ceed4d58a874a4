// Memory and coarse loops over the rows of one process, on one device. No call communicates, and no result depends on
// threads or on how the rows are grouped into calls. Nothing above knows which device it is.
//
// Pointers marked `backend memory` come from Array and must not be touched by host code; the `checked` backend faults
// when they are. All calls are complete when they return.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "seine/order.hpp"
#include "seine/rules.hpp"

namespace seine {

enum class Element : int { f16, f32, f64 };
inline std::size_t element_bytes(Element type) {
  return type == Element::f16 ? 2 : type == Element::f32 ? 4 : 8;
}

// One matrix of rows, row-major and dense. Backend memory.
struct Field {
  const void* data = nullptr;
  Element type = Element::f32;
  std::int64_t dim = 0;

  std::size_t row_bytes() const { return static_cast<std::size_t>(dim) * element_bytes(type); }
  Field from(std::int64_t row) const {
    return {static_cast<const std::byte*>(data) + static_cast<std::size_t>(row) * row_bytes(), type, dim};
  }
};

// The geometry of rows: x, or the outer product a (x) x, which is never formed. Backend memory.
struct Vectors {
  std::int64_t rows = 0;
  Field x;                     // [rows, dim]
  Field a;                     // [rows, classes] float32; a.dim == 0: the row is x alone
  const double* x2 = nullptr;  // squared norms of x and a; only of outer products
  const double* a2 = nullptr;

  bool outer() const { return a.dim > 0; }
  Vectors from(std::int64_t row, std::int64_t count) const {
    return {count, x.from(row), a.from(row), x2 ? x2 + row : nullptr, a2 ? a2 + row : nullptr};
  }
};

// Picks in order of selection, to be applied to rows. Backend memory.
struct Picks {
  Vectors vectors;                  // for RuleKind::variance x is float64
  const double* moments = nullptr;  // one per pick; see the rules
  // Squared distance of the picks a < b < `compared`: between[a * compared + b]. By them a backend whose
  // bounds_of_pairs_pay sees without work that a pick cannot be the nearest of a row; null: unknown.
  const float* between = nullptr;
  std::int64_t compared = 0;
};

// What a rule knows of each row. Backend memory.
struct RowStates {
  void* state = nullptr;
  double* key = nullptr;
  std::uint32_t* applied = nullptr;  // how many picks the row has seen; null: none, and nobody asks afterwards
  const double* weight = nullptr;    // null: 1
  const std::int64_t* at = nullptr;  // where row i of the vectors has its state; null: at i. Of `apply` only
};

// How the state of rows starts. Backend memory; null where a rule has no use for it.
struct Start {
  const double* before = nullptr;  // per row; see the rules
  const std::int64_t* global_rows = nullptr;
  std::uint64_t seed = 0;
  Purpose purpose{"none"};
};

// Ground rows and two levels of coverage for each, in order of `rows`. Backend memory.
struct Band {
  std::int64_t count = 0;
  const std::int64_t* rows = nullptr;  // positions among the ground rows; null: the first `count`
  const float* above = nullptr;
  const float* below = nullptr;  // null: 1, the most there is
  std::int64_t first = 0;        // what lists call row 0
};

// A ground row, and how similar a candidate is to it.
struct Near {
  std::int32_t row;  // position among the ground rows
  float similarity;
};

// Short vectors whose inner product, in float32 and however it is summed, is never below that of the rows that
// they stand for: one per row of two fields. dim 0: there are none.
struct ShadowFields {
  Field ground, candidates;
};

class DeviceLink;
class DevicePort;

// Memory of a device of its own, which processes of a node may share.
struct DeviceMemory {
  std::int64_t total = 0, free = 0;  // bytes; total 0: backend memory is the host's
  std::uint64_t device = 0;          // which one, among those of the node
};

class Backend {
 public:
  static constexpr std::int64_t kExactRows = 4096;

  virtual ~Backend() = default;

  virtual std::string name() const = 0;                  // "cpu", "cuda", "checked"
  virtual std::string describe() const = 0;              // one line for the log: device, threads, instruction set
  virtual DeviceMemory memory() const { return {}; }     // of now
  virtual bool is_host_memory() const { return false; }  // host code may touch backend memory, from any thread
  virtual DevicePort* port() { return nullptr; }         // to the devices of other ranks; null: there is none

  // What was made of the ports of all ranks (device_link.hpp); it must live as long as pools do. Null: nothing.
  const DeviceLink* link() const { return link_; }
  void use(const DeviceLink* link) { link_ = link; }

  // --- memory ---
  virtual void* allocate(std::size_t bytes) = 0;  // Error 71 with the numbers; at least 64-byte aligned
  virtual void release(void* memory, std::size_t bytes) noexcept = 0;
  virtual void copy_in(void* to, const void* host, std::size_t bytes) = 0;
  virtual void copy_out(void* host, const void* from, std::size_t bytes) = 0;
  // Items of `item_bytes` at these positions, packed, to the host.
  virtual void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions,
                      void* host) = 0;
  // The same to these slots, each given once, of other backend memory.
  virtual void scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
                       std::span<const std::int64_t> slots) = 0;

  // --- staging: host memory that host code fills and that is copied while loops run; calls come from any thread ---
  // Error 71 with the numbers. Taken after the backend memory that it is copied to, and released before it.
  virtual void* allocate_staging(std::size_t bytes) = 0;
  virtual void release_staging(void* memory, std::size_t bytes) noexcept = 0;  // waits for its copies
  // Begins a copy and returns. Until await_copies() `to` must not be used, nor the staging memory be written.
  virtual void begin_copy_in(void* to, const void* staging, std::size_t bytes) = 0;
  virtual void await_copies() = 0;  // all that were begun are complete

  // --- one value per row ---
  // Divides each row by its 2-norm, summed in float64, rounding to float32; a zero row stays zero.
  virtual void unit_rows(float* x, std::int64_t rows, std::int64_t dim) = 0;
  // Canonical inner product of each row with itself, in float64.
  virtual void squared_norms(const Field& x, std::int64_t rows, double* out) = 0;

  // --- selection ---
  // state, key, applied of every row.
  virtual void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) = 0;
  // Rows whose key is at least `floor` are brought up to date: a row sees the picks from applied[i] on, in order, until
  // its key has fallen below `floor` or it has seen all. Its key is exact then, and an upper bound before. Returns how
  // many pairs of row and pick met.
  virtual std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                             const RowStates& states) = 0;
  // Whether what bounds pairs of vectors that have yet to meet is worth its time: the picks' distances from each other,
  // and shadows. Where not, nobody asks for `compare` or `gain_bounds`.
  virtual bool bounds_of_pairs_pay() const { return false; }
  // What `apply` takes of the host's memory meanwhile where it uses the distances: bytes of each of so many rows, at
  // most.
  static constexpr std::int64_t kBoundedRows = 65536, kBoundedRowBytes = 26;
  // Squared distances of the picks [first, last) from all before them, by the canonical kernel: between[a * stride +
  // b].
  virtual void compare(const Field& /*picks*/, std::int64_t /*first*/, std::int64_t /*last*/, float* /*between*/,
                       std::int64_t /*stride*/) {}
  // The `count` best (key, global row) among rows with selectable != 0, best first; fewer where there are fewer.
  virtual std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                                     std::int64_t rows, std::int64_t count) = 0;
  // The `count`-th largest key among rows with selectable != 0; -infinity where there are fewer. Above kExactRows rows
  // a value near it is enough.
  virtual double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) = 0;
  // How many rows with selectable != 0 have a key of at least `floor`.
  virtual std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) = 0;

  // --- facility location: float32 unit rows, similarity = clipped_cosine(canonical dot); gains stay below 2^53 ---
  // Sum over the rows i of `band` of fixed(weight_i * min(s_ij, below_i)) - fixed(weight_i * above_i) where
  // s_ij > above_i: what candidate j adds between two levels of coverage. Adds that to gains, on the host.
  virtual void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed,
                     const Field& candidates, std::int64_t count, std::int64_t* gains) = 0;
  // The same over a band of neighbouring rows, and where: near[j] counts on by the rows to which candidate j adds, and
  // those of them that are among the first `room` are written to lists[j] (backend memory), in any order. Pairs of
  // which shadows, or a backend's own bounds, say that nothing is added may be passed over; returns how many pairs met.
  virtual std::int64_t first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                                   const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                                   std::int64_t room, std::int64_t* gains, std::int64_t* near) = 0;
  // Adds to bounds[j] no less than first_gains would to gains[j], from shadows alone, and to near[j] how many rows may
  // add.
  virtual void gain_bounds(const ShadowFields&, const Band&, const double* /*weight*/, FixedPoint,
                           std::int64_t /*count*/, std::int64_t* /*bounds*/, std::int64_t* /*near*/) {}
  // What first_gains gave, again, later, from its lists alone; near[j]: their lengths. Rows that add nothing any more
  // may be dropped from a list: no coverage falls.
  virtual void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                            std::int64_t* near, std::int64_t* gains) = 0;
  // Coverage by a pick whose list this is: best_i = max(best_i, s_i) over its rows.
  virtual void raise_listed(const Near* list, std::int64_t length, float* best) = 0;
  // best_i = max(best_i, s_ij) over all picks j.
  virtual void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) = 0;

  // --- moments ---
  // Adds the sum over the rows of fixed(factor_i * x_ic), below 2^53, to sums[c], on the host. float32 rows only.
  virtual void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                            std::int64_t* sums) = 0;
  // Canonical inner product of each row with a vector, in float64. float32 rows only.
  virtual void products(const Field& x, std::int64_t rows, const double* vector, double* out) = 0;
  // Rows [groups[g], groups[g + 1]) are one group: sum of float64 products x_ic * x_id in order of its rows, one fma
  // each. Adds fixed(that sum) of every group to sums[c * dim + d] for d <= c, on the host. float32 rows only.
  virtual void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) = 0;

 private:
  const DeviceLink* link_ = nullptr;
};

// Memory that a backend gives and takes back, freed by scope. Move-only. A const one is a handle that does not change,
// as a std::span is: what it leads to may, as the loops of a backend write where their callers only hold the memory.
template <class T, auto kAllocate, auto kRelease>
requires std::is_trivially_copyable_v<T>
class Held {
 public:
  Held() = default;
  Held(Backend& backend, std::int64_t size)
      : backend_(&backend), size_(size), data_(static_cast<T*>((backend.*kAllocate)(bytes()))) {}
  Held(Held&& other) noexcept { *this = std::move(other); }
  Held& operator=(Held&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~Held() {
    if (data_) (backend_->*kRelease)(data_, bytes());
  }

  T* data() const { return data_; }
  std::int64_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 protected:
  Backend& backend() const { return *backend_; }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(size_) * sizeof(T); }

  Backend* backend_ = nullptr;
  std::int64_t size_ = 0;
  T* data_ = nullptr;
};

template <class T>
using Staging = Held<T, &Backend::allocate_staging, &Backend::release_staging>;

template <class T>
class Array : public Held<T, &Backend::allocate, &Backend::release> {
 public:
  using Held<T, &Backend::allocate, &Backend::release>::Held;
  Array(Backend& backend, std::span<const T> host) : Array(backend, static_cast<std::int64_t>(host.size())) {
    write(host);
  }

  void write(std::span<const T> host, std::int64_t at = 0) {
    if (!host.empty()) this->backend().copy_in(this->data() + at, host.data(), host.size_bytes());
  }
  void read(std::span<T> host, std::int64_t at = 0) const {
    if (!host.empty()) this->backend().copy_out(host.data(), this->data() + at, host.size_bytes());
  }
  std::vector<T> to_host() const {
    std::vector<T> host(static_cast<std::size_t>(this->size()));
    read(host);
    return host;
  }
};

struct BackendOptions {
  int threads = 1;
  int local_rank = 0;  // among the ranks on this node; chooses the GPU
};

// name: auto | cpu | cuda | checked. `auto` takes CUDA where it was built in and a device is usable; `why` gets one
// line that says which was taken and why. Error 69 with the driver's own text where `cuda` is not usable.
std::unique_ptr<Backend> make_backend(const std::string& name, const BackendOptions& options, std::string& why);

// One line for --version: whether the CUDA plug-in is there, and with which toolkit it was built.
std::string cuda_build_info();

}  // namespace seine
