// What is in the files of a pool, before any row is read: which datasets, of what form, and what is wrong with them.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "seine/comm.hpp"
#include "seine/error.hpp"
#include "seine/pool_files.hpp"
#include "seine/request.hpp"

namespace seine {

inline constexpr std::size_t kDatasets = 7;
inline constexpr std::array<Dataset, kDatasets> kEveryDataset{
    Dataset::embeddings, Dataset::probabilities, Dataset::ids,   Dataset::labels,
    Dataset::classes,    Dataset::costs,         Dataset::groups};

enum class Kind : int { unknown, f16, f32, f64, integer, unsigned_64, text };

inline std::int64_t bytes_of(Kind kind) {
  return kind == Kind::f16 ? 2 : kind == Kind::f32 ? 4 : 8;
}
std::string_view name_of(Kind kind);  // "float16", "float32", "float64", or "" where it is no float

// The header of one dataset in one file. Travels between ranks as bytes.
struct Column {
  bool present = false;
  bool alternative = false;  // `train` for embeddings, the logits for probabilities
  bool swapped = false;      // big-endian float16: read raw
  Kind kind = Kind::unknown;
  std::int64_t rows = 0;
  std::int64_t passes = 0;       // 0: no such dimension
  std::int64_t width = 1;        // D or C
  std::int64_t chunk_rows = 0;   // 0: not chunked
  std::int64_t chunk_bytes = 0;  // of a chunk that can only be read whole; 0: rows are read alone
  bool narrow_chunks = false;    // that have only some of the columns
  // Byte of the file where the rows start, one behind the other, as the numbers that this program reads; -1: otherwise.
  std::int64_t offset = -1;
  Exit fault_code = Exit::done;

  std::int64_t per_row() const { return width * std::max<std::int64_t>(passes, 1); }
  std::int64_t row_bytes() const { return per_row() * bytes_of(kind); }  // as read: the library widens integers
};

// Of one file; travels likewise.
struct Header {
  std::int64_t file = 0;
  Exit fault_code = Exit::done;  // of the file itself
  std::array<Column, kDatasets> columns;
};

// A header with the texts of its faults; empty: none.
struct FileHeader {
  Header header;
  std::string fault;
  std::array<std::string, kDatasets> faults;
  std::int64_t rows = 0;

  const Column& column(Dataset dataset) const { return header.columns[static_cast<std::size_t>(dataset)]; }
  const std::string& fault_of(Dataset dataset) const { return faults[static_cast<std::size_t>(dataset)]; }
};

const std::string& name_in(const DatasetNames& names, Dataset dataset);
std::string name_in_file(const DatasetNames& names, Dataset dataset, bool alternative);

// Collective. The headers of all files, on every rank; file number modulo ranks says who reads it.
std::vector<FileHeader> read_headers(const Comm& comm, const std::vector<std::string>& paths,
                                     const DatasetNames& names);

// Collective. The faults of all headers, in order of the files; of one file alone, not of files that disagree.
// PoolFiles throws the first.
std::vector<std::string> header_faults(const Comm& comm, const std::vector<std::string>& paths,
                                       const DatasetNames& names);

}  // namespace seine
