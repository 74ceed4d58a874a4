// HDF5 ids with one owner each, and thin functions over the library that turn its errors into seine::Error.
//
// Locks are off unless the user's environment says otherwise: pools are only ever read, and outputs are written under
// temporary names. Serial HDF5 is enough, as nobody reads or writes collectively.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "seine/error.hpp"

namespace seine::h5 {

// Owns one id of any kind.
class Id {
 public:
  using Close = herr_t (*)(hid_t);

  Id() = default;
  Id(hid_t id, Close with) : id_(id), close_(with) {}
  Id(Id&& other) noexcept { *this = std::move(other); }
  Id& operator=(Id&& other) noexcept {
    std::swap(id_, other.id_);
    std::swap(close_, other.close_);
    return *this;
  }
  ~Id() {
    if (id_ >= 0) close_(id_);
  }

  hid_t get() const { return id_; }
  explicit operator bool() const { return id_ >= 0; }
  bool close() {  // false where the library says that closing failed, as it does when a full disk takes no flush
    const hid_t id = id_;
    id_ = H5I_INVALID_HID;
    return id < 0 || close_(id) >= 0;
  }

 private:
  hid_t id_ = H5I_INVALID_HID;
  Close close_ = nullptr;
};

// The innermost reason on the library's error stack, as one line, and the errno behind it (0: none).
struct Reason {
  std::string text;
  int error_number = 0;
  bool no_memory = false;  // it was asked for more than there is
};
Reason last_reason();

// Of what is freed the library keeps some for later; this gives it back.
void release_memory();

// --- reading ---

// Read-only. Errors: 66 not there or not readable, 65 not HDF5 or damaged, 74 the disk fails.
Id open_file(const std::string& path);
// Whether `name` (a path of groups is fine) leads to something in `parent`.
bool exists(hid_t parent, const std::string& name);
// `path` is for messages only, here and below. Errors: 65 missing, not a dataset, damaged.
// cache_bytes: of the library's chunk cache; absent: its default, 1 MiB.
Id open_dataset(hid_t parent, const std::string& name, const std::string& path,
                std::optional<std::size_t> cache_bytes = {});
std::vector<hsize_t> shape_of(hid_t dataset);
std::string text_of(const std::vector<hsize_t>& shape);  // "[100,4]"
// Error 65 where the file cannot hold so many rows. Rows that nobody wrote are legal HDF5 and cost no bytes, so a
// damaged extent may be anything: nothing must be sized by it before. Up to 100,000 rows and 64 MiB any file is
// believed; beyond, it has a byte for every 4096, of which deflate alone makes 1032. A virtual dataset has the rows of
// its sources, and check_virtual looks at those.
void check_extent(hid_t dataset, const std::string& path, const std::string& name);
// Rows [first, first + count) of the first dimension into `out`, converted to `memory_type`. Error 65 for damaged data,
// 66 for a missing file behind it, 74 where the disk fails.
void read_rows(hid_t dataset, hid_t memory_type, std::uint64_t first, std::uint64_t count, void* out,
               const std::string& path, const std::string& name);
// The same for strings of fixed or variable length, without padding.
std::vector<std::string> read_text_rows(hid_t dataset, std::uint64_t first, std::uint64_t count,
                                        const std::string& path, const std::string& name);
// The path of the file that holds a dataset: behind an external link it is another one than was opened.
std::string file_of(hid_t dataset);
// Reads all rows and forgets them where the library may crash on damaged ones. For a child process.
void try_rows(hid_t dataset, const std::string& path, const std::string& name);

// --- writing: every error is 74 ---

// Truncates what is there. No time stamps inside, so that equal content gives equal bytes. Error 73.
Id create_file(const std::string& path);
Id create_group(hid_t parent, const std::string& name, const std::string& path);
// Contiguous; filled by write_rows. file_type: H5T_IEEE_F32LE, half_type().get(), ...
Id create_dataset(hid_t parent, const std::string& name, hid_t file_type, std::span<const hsize_t> shape,
                  const std::string& path);
// memory_type: what `data` points to; for float16 half_type().get(), which is two raw bytes per element.
void write_rows(hid_t dataset, hid_t memory_type, std::uint64_t first, std::uint64_t count, const void* data,
                const std::string& path);
// One dimension, from memory.
void write_dataset(hid_t parent, const std::string& name, std::span<const std::int64_t> values,
                   const std::string& path);
void write_dataset(hid_t parent, const std::string& name, std::span<const float> values, const std::string& path);
void write_dataset(hid_t parent, const std::string& name, std::span<const double> values, const std::string& path);
void write_dataset(hid_t parent, const std::string& name, std::span<const std::string> values,
                   const std::string& path);  // UTF-8, variable length
// Scalar attributes of a file, group or dataset.
void write_attribute(hid_t object, const std::string& name, const std::string& value, const std::string& path);
void write_attribute(hid_t object, const std::string& name, std::int64_t value, const std::string& path);
void write_attribute(hid_t object, const std::string& name, double value, const std::string& path);
void write_attribute(hid_t object, const std::string& name, float value, const std::string& path);
// A literal would silently become a number.
void write_attribute(hid_t object, const std::string& name, const char* value, const std::string& path);
// Closes a written file. Error 74 where the last flush fails; the file is then not to be trusted.
void close_file(Id file, const std::string& path);
// A seed is not an int64.
void write_attribute(hid_t object, const std::string& name, std::uint64_t value, const std::string& path);

// --- a file in memory, for content that is written to disk as bytes ---

Id create_file_in_memory();
std::string bytes_of(hid_t file);  // flushes; what the file would be on disk

// --- types ---

Id half_type();                  // IEEE binary16, little-endian
Id text_type();                  // UTF-8, variable length
bool is_half(hid_t type);        // IEEE binary16 of either byte order
bool is_big_endian(hid_t type);  // of a number

}  // namespace seine::h5
