#include "reading/stored_rows.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

namespace seine {

hid_t StoredRows::dataset(std::size_t file, Dataset which) const {
  const auto at = std::find_if(open_.begin(), open_.end(), [&](const OpenFile& kept) { return kept.number == file; });
  if (at != open_.end()) {
    open_.splice(open_.begin(), open_, at);
  } else {
    if (open_.size() == kOpenFiles) open_.pop_back();
    open_.emplace_front();
    open_.front().number = file;
    open_.front().file = h5::open_file(layout_.path(file));
  }
  h5::Id& id = open_.front().datasets[static_cast<std::size_t>(which)];
  if (!id) {
    const Column& column = layout_.column(file, which);
    // What is read whole is kept here, in rows; the library only has to find one chunk that is stored as it is worth
    // reading whole. Texts stay with the library.
    std::optional<std::size_t> cache_bytes;
    if (column.kind != Kind::text)
      cache_bytes = column.narrow_chunks ? static_cast<std::size_t>(column.chunk_bytes) : 0;
    id = h5::open_dataset(open_.front().file.get(), layout_.name(file, which), layout_.path(file), cache_bytes);
  }
  return id.get();
}

void StoredRows::read(const Slab& slab, void* out) const {
  const Column& column = slab.column;
  const std::int64_t row_bytes = column.row_bytes();
  if (column.offset >= 0) {
    RawFile file = raw_files_.take(slab.file, layout_.path(slab.file));
    file.read(column.offset + slab.first * row_bytes, static_cast<std::size_t>(slab.count * row_bytes), out,
              layout_.path(slab.file), layout_.name(slab.file, slab.which));
    raw_files_.give(slab.file, std::move(file));
    return;
  }
  const std::lock_guard lock(library_);
  if (column.chunk_bytes == 0) return read_library(slab, slab.first, slab.count, out);
  for (std::int64_t at = slab.first, count; at < slab.first + slab.count; at += count) {
    const Band& band = band_with(slab, at);
    count = std::min(slab.first + slab.count, band.first + band.count) - at;
    std::memcpy(static_cast<std::byte*>(out) + (at - slab.first) * row_bytes,
                band.rows.get() + (at - band.first) * row_bytes, static_cast<std::size_t>(count * row_bytes));
  }
}

// The rows around `row` of a file whose chunks are read whole: as many as may be kept, up to all of these chunks.
const StoredRows::Band& StoredRows::band_with(const Slab& slab, std::int64_t row) const {
  Band& band = bands_[static_cast<std::size_t>(slab.which)];
  if (band.file == slab.file && row >= band.first && row < band.first + band.count) return band;
  band = {};  // before the next is inflated
  const Column& column = slab.column;
  const Chunks chunks = chunks_of(column);
  const std::int64_t row_bytes = column.row_bytes(), whole = band_rows(column), start = row / whole * whole;
  const auto beyond = static_cast<std::int64_t>(kept_share_ * static_cast<double>(chunks.all - chunks.fewest));
  const std::int64_t rows = std::clamp<std::int64_t>((chunks.fewest + beyond) / row_bytes, 1, whole);
  const std::int64_t first = start + (row - start) / rows * rows;
  const std::int64_t count = std::min({rows, start + whole - first, column.rows - first});
  auto read = std::make_unique_for_overwrite<std::byte[]>(static_cast<std::size_t>(count * row_bytes));
  read_library(slab, first, count, read.get());
  band = {slab.file, first, count, std::move(read)};
  return band;
}

void StoredRows::read_library(const Slab& slab, std::int64_t first, std::int64_t count, void* out) const {
  const Column& column = slab.column;
  const hid_t from = dataset(slab.file, slab.which);
  const h5::Id half(column.kind == Kind::f16 ? H5Dget_type(from) : H5I_INVALID_HID, H5Tclose);
  const hid_t type = column.kind == Kind::f16           ? half.get()
                     : column.kind == Kind::f32         ? H5T_NATIVE_FLOAT
                     : column.kind == Kind::f64         ? H5T_NATIVE_DOUBLE
                     : column.kind == Kind::unsigned_64 ? H5T_NATIVE_UINT64
                                                        : H5T_NATIVE_INT64;
  // The library notes some 2 KiB for each chunk of a reading.
  constexpr std::int64_t kChunksAtOnce = 64;
  const std::int64_t at_once = column.chunk_rows > 0 ? kChunksAtOnce * column.chunk_rows : count;
  for (std::int64_t at = 0; at < count; at += at_once)
    h5::read_rows(from, type, static_cast<std::uint64_t>(first + at),
                  static_cast<std::uint64_t>(std::min(at_once, count - at)),
                  static_cast<std::byte*>(out) + at * column.row_bytes(), layout_.path(slab.file),
                  layout_.name(slab.file, slab.which));
}

std::vector<std::string> StoredRows::read_texts(const Slab& slab) const {
  const std::lock_guard lock(library_);
  return h5::read_text_rows(dataset(slab.file, slab.which), static_cast<std::uint64_t>(slab.first),
                            static_cast<std::uint64_t>(slab.count), layout_.path(slab.file),
                            layout_.name(slab.file, slab.which));
}

void StoredRows::keep_chunks(std::int64_t bytes) const {
  const Chunks& chunks = layout_.shape().chunks;
  const auto beyond = static_cast<double>(chunks.all - chunks.fewest);
  const std::lock_guard lock(library_);
  kept_share_ = beyond > 0 ? std::clamp(static_cast<double>(bytes - chunks.fewest) / beyond, 0.0, 1.0) : 0;
  bands_ = {};
  open_.clear();
  h5::release_memory();
}

}  // namespace seine
