// Rows of the files of a pool as they are stored, by position or by the HDF5 library. Threads may read at once; the
// library has no threads, so they take turns where it is asked.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "reading/hdf5.hpp"
#include "reading/pool_layout.hpp"
#include "reading/raw_file.hpp"

namespace seine {

// What one read of one file is about.
struct Slab {
  std::size_t file;
  Dataset which;
  const Column& column;
  std::int64_t first, count;  // rows of the file
  std::int64_t offset = 0;    // rows since the start of what was asked for
};

class StoredRows {
 public:
  explicit StoredRows(const PoolLayout& layout) : layout_(layout) {}

  // Numbers of the column's kind, in this machine's byte order where they are not float16.
  void read(const Slab& slab, void* out) const;
  std::vector<std::string> read_texts(const Slab& slab) const;
  void keep_chunks(std::int64_t bytes) const;  // see PoolFiles

 private:
  static constexpr std::size_t kOpenFiles = 4;  // kept open by a rank

  struct OpenFile {
    std::size_t number = 0;
    h5::Id file;
    std::array<h5::Id, kDatasets> datasets;  // closed before the file: the library keeps it open otherwise
  };
  // Rows of chunks that were read whole: of each dataset those of one file, as they are read.
  struct Band {
    std::size_t file = 0;
    std::int64_t first = 0, count = 0;
    std::unique_ptr<std::byte[]> rows;
  };

  hid_t dataset(std::size_t file, Dataset which) const;
  void read_library(const Slab& slab, std::int64_t first, std::int64_t count, void* out) const;
  const Band& band_with(const Slab& slab, std::int64_t row) const;

  const PoolLayout& layout_;
  mutable std::mutex library_;        // guards what follows and the library
  mutable std::list<OpenFile> open_;  // last used first
  mutable std::array<Band, kDatasets> bands_;
  mutable double kept_share_ = 0;  // of what may be kept beyond the fewest
  mutable RawFiles raw_files_;
};

}  // namespace seine
