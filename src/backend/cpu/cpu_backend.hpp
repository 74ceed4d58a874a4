// The CPU backend: threads share tiles of rows, and vector units are inside a row, or run across the rows of a panel.
// Formulas are those of rules.hpp and row_math.hpp; what is here is who computes what. Loops are in the file of their
// noun, as those of the CUDA backend are:
//   backend.cpp    memory, copies, items by position
//   rows.cpp       one value per row
//   rules.cpp      what picks do to rows; by_nearest.cpp: nearest picks whose distances from each other are known
//   selection.cpp  selection among keys
//   coverage.cpp   facility location, with sums by gain_kernel.cpp
//   moments.cpp    sums over rows
// A tile of rows is the unit of threads (tiles.hpp); inside a tile, rows meet picks in chunks that stay in the caches.
// Every row is computed by the canonical kernel alone (row_kernel.hpp), so tiles and chunks decide nothing but time.
#pragma once

#include <string>
#include <vector>

#include "seine/backend.hpp"
#include "workers.hpp"

namespace seine {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options);

  std::string name() const override { return "cpu"; }
  std::string describe() const override;
  bool is_host_memory() const override { return true; }

  void* allocate(std::size_t bytes) override;
  void release(void* memory, std::size_t bytes) noexcept override;
  void copy_in(void* to, const void* host, std::size_t bytes) override;
  void copy_out(void* host, const void* from, std::size_t bytes) override;
  void gather(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* host) override;
  void scatter(const void* from, std::size_t item_bytes, std::span<const std::int64_t> positions, void* to,
               std::span<const std::int64_t> slots) override;

  void* allocate_staging(std::size_t bytes) override { return allocate(bytes); }
  void release_staging(void* memory, std::size_t bytes) noexcept override { release(memory, bytes); }
  void begin_copy_in(void* to, const void* staging, std::size_t bytes) override { copy_in(to, staging, bytes); }
  void await_copies() override {}

  void unit_rows(float* x, std::int64_t rows, std::int64_t dim) override;
  void squared_norms(const Field& x, std::int64_t rows, double* out) override;

  void start(RuleKind rule, const Start& how, std::int64_t rows, const RowStates& states) override;
  std::int64_t apply(RuleKind rule, const Vectors& rows, const Picks& picks, double floor,
                     const RowStates& states) override;
  bool bounds_of_pairs_pay() const override { return true; }
  void compare(const Field& picks, std::int64_t first, std::int64_t last, float* between, std::int64_t stride) override;
  std::vector<Candidate> top(const double* key, const std::uint8_t* selectable, const std::int64_t* global_rows,
                             std::int64_t rows, std::int64_t count) override;
  double nth(const double* key, const std::uint8_t* selectable, std::int64_t rows, std::int64_t count) override;
  std::int64_t at_least(const double* key, const std::uint8_t* selectable, std::int64_t rows, double floor) override;

  void gains(const Field& ground, const Band& band, const double* weight, FixedPoint fixed, const Field& candidates,
             std::int64_t count, std::int64_t* gains) override;
  std::int64_t first_gains(const Field& ground, const Band& all, const double* weight, FixedPoint fixed,
                           const Field& candidates, const ShadowFields& shadows, std::span<Near* const> lists,
                           std::int64_t room, std::int64_t* gains, std::int64_t* near) override;
  void gain_bounds(const ShadowFields& shadows, const Band& all, const double* weight, FixedPoint fixed,
                   std::int64_t count, std::int64_t* bounds, std::int64_t* near) override;
  void listed_gains(std::span<Near* const> lists, const float* best, const double* weight, FixedPoint fixed,
                    std::int64_t* near, std::int64_t* gains) override;
  void raise_listed(const Near* list, std::int64_t length, float* best) override;
  void raise(const Field& ground, std::int64_t rows, const Field& picks, std::int64_t count, float* best) override;

  void weighted_sum(const Field& x, std::int64_t rows, const double* factor, FixedPoint fixed,
                    std::int64_t* sums) override;
  void products(const Field& x, std::int64_t rows, const double* vector, double* out) override;
  void gram(const Field& x, std::span<const std::int64_t> groups, FixedPoint fixed, std::int64_t* sums) override;

 private:
  // Rows as float32: where they lie, or widened into `values`.
  static const float* wide_rows(const Field& x, std::int64_t rows, std::vector<float>& values);

  Workers workers_;
};

}  // namespace seine
