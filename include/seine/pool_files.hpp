// Rows [first, first + count) of the global numbering out of HDF5 files (contract, section 2).
//
// Rows of all files, in order, are the global rows 0..N-1. Files are only read, without locks where the file system has
// none. Everything that is read is checked, and a fault is an Error that names file, dataset and row of that file.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seine/backend.hpp"
#include "seine/comm.hpp"
#include "seine/request.hpp"

namespace seine {

enum class Dataset { embeddings, probabilities, ids, labels, classes, costs, groups };

// What a command wants read. `wanted` datasets must be there; the optional ones are used where they are.
struct Needs {
  bool embeddings = false;
  bool probabilities = false;  // or logits
  bool passes = false;         // probabilities [N,T,C] with T >= kFewestPasses
};
inline constexpr std::int64_t kFewestPasses = 2;

// What chunks that can only be read whole take while rows of them are read: one at a time is inflated, whatever the
// number of threads, and rows of it are kept.
struct Chunks {
  std::int64_t inflating = 0;  // bytes beside the rows
  std::int64_t fewest = 0;     // of rows: one chunk of each dataset
  std::int64_t all = 0;        // of rows, so that every chunk is inflated once

  std::int64_t least() const { return inflating + fewest; }
};

struct PoolShape {
  std::int64_t rows = 0;
  std::int64_t dim = 0;          // 0: no embeddings
  std::int64_t classes = 0;      // 0: neither probabilities nor logits
  std::int64_t passes = 0;       // 0: [N,C]
  bool logits = false;           // probabilities come from logits by a softmax in float64
  bool half_embeddings = false;  // every file stores float16
  bool ids = false, text_ids = false, labels = false, reference_classes = false, costs = false, groups = false;
  // Of the datasets that were asked for, and of ids and labels alone.
  Chunks chunks, id_chunks;
  std::string embeddings_type, probabilities_type;  // "float16", "float32", "float64", "mixed", or "" where absent
};

// Rows [first, first + count) of probabilities as they were read and checked, [count, max(passes, 1), classes].
struct Distributions {
  std::int64_t first = 0, count = 0;
  const float* narrow = nullptr;  // where float32 holds what is stored,
  const double* wide = nullptr;   // else this; the other one is null

  // The rows [from, from + some), counted from `first`; `width` values each.
  Distributions part(std::int64_t from, std::int64_t some, std::int64_t width) const {
    return {first + from, some, narrow ? narrow + from * width : nullptr, wide ? wide + from * width : nullptr};
  }
  void copy(std::int64_t width, double* out) const {
    if (narrow)
      std::copy_n(narrow, count * width, out);
    else
      std::copy_n(wide, count * width, out);
  }
};

class PoolFiles {
 public:
  // Collective. Reads the headers (file number modulo ranks) and checks that files and datasets agree with each other
  // and with `needs`. `probabilities` wins over `logits` where a file has both.
  PoolFiles(const Comm& comm, std::vector<std::string> paths, const DatasetNames& names, const Needs& needs);

  const PoolShape& shape() const;
  const std::vector<std::string>& paths() const;
  std::int64_t first_row_of(std::size_t file) const;  // global row; first_row_of(paths().size()) == shape().rows

  // Not collective, and several threads may read at once. Reads and checks `count` rows; any range, over any number of
  // files.
  // [count, dim], finite, squared norms < 8.5e37. `visit` sees the rows while they are still in the cache.
  using Visit = std::function<void(std::int64_t first, std::int64_t count)>;
  void read_embeddings(std::int64_t first, std::int64_t count, std::span<float> out, const Visit& visit = {}) const;
  // Single rows by global number, ascending: [rows, dim] as float32 or, where every file stores it, as float16. For
  // rows that were read and checked before: nothing is checked again.
  void read_embedding_rows(std::span<const std::int64_t> rows, std::byte* out, Element type) const;
  // Single rows by global number, ascending: visit(place in `rows`, that row) for each, in order. `room` as above.
  void visit_probability_rows(std::span<const std::int64_t> rows, std::vector<double>& room,
                              const std::function<void(std::size_t, const Distributions&)>& visit) const;
  // Probabilities as given: finite, >= -1e-6 (then >= 0), each distribution sums to 1 within 1e-3 (1e-2 where stored as
  // float16). Softmax already applied, in float64, where the pool has logits. Piece by piece, in order, while they are
  // still in the cache; `room` is where they lie.
  void visit_probabilities(std::int64_t first, std::int64_t count, std::vector<double>& room,
                           const std::function<void(const Distributions&)>& visit) const;
  // The same as float64, all at once: [count, max(passes, 1), classes].
  void read_probabilities(std::int64_t first, std::int64_t count, std::span<double> out) const;
  std::vector<std::int64_t> read_integers(Dataset dataset, std::int64_t first,
                                          std::int64_t count) const;  // ids, labels, classes, groups
  std::vector<std::string> read_text_ids(std::int64_t first, std::int64_t count) const;
  std::vector<double> read_costs(std::int64_t first, std::int64_t count) const;

  // Whether single rows of it cost no more than these: none lies in a chunk, and no type is converted by the library.
  bool reads_rows_alone(Dataset dataset) const;
  // Rows of chunks that were read whole may take so many bytes; at least, and at first, shape().chunks.fewest.
  void keep_chunks(std::int64_t bytes) const;

  // For messages about a global row: `FILE row 17`, and `FILE: dataset "ids", row 17`.
  std::string where(std::int64_t row) const;
  std::string where(std::int64_t row, Dataset dataset) const;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;  // copies read the same files
};

}  // namespace seine
