// What the files of a pool are together, from their headers alone: which of their rows are which global ones, of what
// shape, and what is wrong with that.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "reading/pool_header.hpp"

namespace seine {

class PoolLayout {
 public:
  // Faults come in order of the files, so that the first is the same for every number of ranks. Those of datasets that
  // nobody needs are kept until somebody reads them.
  PoolLayout(std::vector<std::string> paths, const DatasetNames& names, std::vector<FileHeader> headers,
             const Needs& needs);

  const PoolShape& shape() const { return shape_; }
  const std::vector<std::string>& paths() const { return paths_; }
  const std::string& path(std::size_t file) const { return paths_[file]; }
  const Column& column(std::size_t file, Dataset dataset) const { return headers_[file].column(dataset); }
  std::string name(std::size_t file, Dataset dataset) const {  // in that file
    return name_in_file(names_, dataset, column(file, dataset).alternative);
  }
  std::int64_t first_row(std::size_t file) const { return first_rows_[file]; }
  std::size_t file_of(std::int64_t row) const;
  bool reads_rows_alone(Dataset dataset) const;  // see PoolFiles
  void expect_sound(Dataset dataset) const {     // throws the fault that was kept
    if (const auto& kept = faults_[static_cast<std::size_t>(dataset)]) throw *kept;
  }

 private:
  void settle_rows(std::size_t file, const Needs& needs);
  void settle_needs(std::size_t file, const Needs& needs);
  void compare(std::size_t file, std::size_t reference, Dataset dataset, const Needs& needs);
  void fault(Dataset dataset, const Needs& needs, const Error& error);
  void describe(const Needs& needs);
  std::string type_of(Dataset dataset) const;

  std::vector<std::string> paths_;
  DatasetNames names_;
  std::vector<FileHeader> headers_;
  std::vector<std::int64_t> first_rows_{0};
  PoolShape shape_;
  std::array<std::optional<Error>, kDatasets> faults_;
};

inline constexpr std::size_t kSlabBytes = std::size_t{1} << 20;   // of one call of the library
inline constexpr std::size_t kPieceBytes = std::size_t{1} << 18;  // of one read by position: checked while in the cache

// Rows of the chunks that are read together: those of one chunk, or of a few small ones. And what they take.
std::int64_t band_rows(const Column& column);
Chunks chunks_of(const Column& column);

}  // namespace seine
