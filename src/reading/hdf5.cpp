#include "reading/hdf5.hpp"

#include <errno.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <utility>

#include "reading/lzf.hpp"
#include "reading/raw_file.hpp"
#include "reading/text_heap.hpp"

namespace seine::h5 {
namespace {

// Before the first call of all, or it has no effect: after a failed close the library's own end crashes. Nothing is
// lost without it, as every handle here is closed by its owner.
[[maybe_unused]] const herr_t kNoEndOfItsOwn = H5dont_atexit();

// Before the first call of a thread: the library keeps its opinions to itself. Cheap enough for every entry point.
void quieten() {
  setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);  // 0: the user's own setting stays
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

herr_t keep_innermost(unsigned depth, const H5E_error2_t* entry, void* kept) {
  Reason& reason = *static_cast<Reason*>(kept);
  if (depth == 0 && entry->desc) reason.text = entry->desc;
  return 0;
}

Exit code_of_read_failure(int error_number) {
  if (error_number == 0) return Exit::bad_data;
  return error_number == ENOENT || error_number == EACCES || error_number == EPERM ? Exit::no_input : Exit::io;
}

[[noreturn]] void fail_write(const std::string& path, std::string_view what) {
  throw Error(Exit::io, fmt::format("{}: cannot write {}: {}", path, what, last_reason().text));
}

Id checked_write(hid_t id, Id::Close close, const std::string& path, std::string_view what) {
  if (id < 0) fail_write(path, what);
  return Id(id, close);
}

// The selection of whole rows in a data space, and the memory space that fits it.
struct RowSelection {
  Id file, memory;
};
RowSelection select_rows(hid_t dataset, std::uint64_t first, std::uint64_t count) {
  RowSelection selection{Id(H5Dget_space(dataset), H5Sclose), {}};
  std::vector<hsize_t> extent = shape_of(dataset);
  std::vector<hsize_t> start(extent.size(), 0);
  start[0] = first;
  extent[0] = count;
  H5Sselect_hyperslab(selection.file.get(), H5S_SELECT_SET, start.data(), nullptr, extent.data(), nullptr);
  selection.memory = Id(H5Screate_simple(static_cast<int>(extent.size()), extent.data(), nullptr), H5Sclose);
  return selection;
}

void check_read(herr_t status, const std::string& path, const std::string& name) {
  if (status >= 0) return;
  const Reason reason = last_reason();
  throw Error(code_of_read_failure(reason.error_number),
              fmt::format("{}: dataset \"{}\": cannot be read: {}", path, name, reason.text));
}

bool is_virtual(hid_t dataset) {
  const Id properties(H5Dget_create_plist(dataset), H5Pclose);
  return H5Pget_layout(properties.get()) == H5D_VIRTUAL;
}

// Those of the library that believe what they are given; deflate, shuffle and checksums do not.
bool has_fragile_filter(hid_t properties) {
  const int filters = H5Pget_nfilters(properties);
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    const H5Z_filter_t filter =
        H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &values, nullptr, 0, nullptr, nullptr);
    if (filter == H5Z_FILTER_SZIP || filter == H5Z_FILTER_NBIT || filter == H5Z_FILTER_SCALEOFFSET) return true;
  }
  return false;
}

// Of the file, and of the raw files beside it where the values lie in such.
std::uint64_t bytes_behind(hid_t dataset, hid_t properties) {
  const Id file(H5Iget_file_id(dataset), H5Fclose);
  hsize_t bytes = 0;
  H5Fget_filesize(file.get(), &bytes);
  const int others = H5Pget_external_count(properties);
  for (int i = 0; i < others; ++i) {
    std::string name(4096, '\0');
    std::error_code none;  // of a file that is not there
    if (H5Pget_external(properties, static_cast<unsigned>(i), name.size(), name.data(), nullptr, nullptr) < 0) continue;
    const std::uintmax_t more = std::filesystem::file_size(name.c_str(), none);
    if (!none) bytes += more;
  }
  return bytes;
}

std::string without_padding(const char* text, std::size_t size, H5T_str_t padding) {
  if (padding == H5T_STR_NULLTERM) return std::string(text, strnlen(text, size));
  const char pad = padding == H5T_STR_SPACEPAD ? ' ' : '\0';
  while (size > 0 && text[size - 1] == pad) --size;
  return std::string(text, size);
}

template <class T>
void write_vector(hid_t parent, const std::string& name, hid_t type, std::span<const T> values,
                  const std::string& path) {
  const hsize_t size = values.size();
  const Id dataset = create_dataset(parent, name, type, std::span(&size, 1), path);
  write_rows(dataset.get(), type, 0, size, values.data(), path);
}

void write_scalar(hid_t object, const std::string& name, hid_t type, const void* value, const std::string& path) {
  const std::string what = fmt::format("attribute \"{}\"", name);
  const Id space(H5Screate(H5S_SCALAR), H5Sclose);
  const Id attribute = checked_write(H5Acreate2(object, name.c_str(), type, space.get(), H5P_DEFAULT, H5P_DEFAULT),
                                     H5Aclose, path, what);
  if (H5Awrite(attribute.get(), type, value) < 0) fail_write(path, what);
}

}  // namespace

Reason last_reason() {
  Reason reason;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, &reason);
  constexpr std::string_view key = "errno = ";
  if (const std::size_t at = reason.text.find(key); at != std::string::npos)
    reason.error_number = std::atoi(reason.text.c_str() + at + key.size());
  if (reason.error_number != 0) reason.text = std::strerror(reason.error_number);
  if (reason.text.empty()) reason.text = "unknown reason";
  // By the text: the library has no one number for it.
  reason.no_memory =
      reason.text.starts_with("unable to allocate") || reason.text.starts_with("memory allocation failed");
  return reason;
}

void release_memory() {
  H5garbage_collect();
}

namespace {

// Where chunks are many and small, their index is larger than they are: a little of it is kept.
Id access_to_files() {
  constexpr std::size_t kFewest = 64 << 10, kFirst = 256 << 10, kMost = 1 << 20;
  Id access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5AC_cache_config_t index{};
  index.version = H5AC__CURR_CACHE_CONFIG_VERSION;
  if (H5Pget_mdc_config(access.get(), &index) < 0) return access;
  index.set_initial_size = true;
  index.initial_size = kFirst;
  index.min_size = kFewest;
  index.max_size = kMost;
  H5Pset_mdc_config(access.get(), &index);
  return access;
}

}  // namespace

Id open_file(const std::string& path) {
  quieten();
  add_lzf();
  RawFile{path};                        // says more about a file that cannot be opened
  const Id access = access_to_files();  // until the reason of a failure is known: closing it is another call
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, access.get());
  if (file >= 0) return Id(file, H5Fclose);
  const Reason reason = last_reason();
  if (reason.no_memory) throw Error(Exit::system, fmt::format("{}: cannot be read: {}", path, reason.text));
  if (reason.error_number != 0)
    throw Error(code_of_read_failure(reason.error_number), fmt::format("{}: cannot be read: {}", path, reason.text));
  if (H5Fis_hdf5(path.c_str()) <= 0)
    throw Error(Exit::bad_data, path + ": expected an HDF5 file, found another format");
  throw Error(Exit::bad_data, fmt::format("{}: damaged HDF5 file: {}", path, reason.text));
}

bool exists(hid_t parent, const std::string& name) {
  quieten();
  const auto leads_to_something = [&](const std::string& part) {
    if (H5Lexists(parent, part.c_str(), H5P_DEFAULT) <= 0) return false;
    const htri_t there = H5Oexists_by_name(parent, part.c_str(), H5P_DEFAULT);
    if (there < 0 && last_reason().no_memory)
      throw Error(Exit::system, fmt::format("\"{}\": not enough memory to look at it", part));
    return there > 0;
  };
  for (std::size_t slash = name.find('/', 1); slash != std::string::npos; slash = name.find('/', slash + 1))
    if (!leads_to_something(name.substr(0, slash))) return false;
  return leads_to_something(name);
}

Id open_dataset(hid_t parent, const std::string& name, const std::string& path,
                std::optional<std::size_t> cache_bytes) {
  if (!exists(parent, name)) throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", path, name));
  const auto fail = [&](const std::string& found, Exit code = Exit::bad_data) {
    throw Error(code, fmt::format("{}: \"{}\": expected a dataset, found {}", path, name, found));
  };
  const Id object(H5Oopen(parent, name.c_str(), H5P_DEFAULT), H5Oclose);
  if (!object) {
    const Reason reason = last_reason();
    fail(reason.text, reason.no_memory ? Exit::system : Exit::bad_data);
  }
  if (H5Iget_type(object.get()) != H5I_DATASET) fail("a group or a type");
  const Id access(H5Pcreate(H5P_DATASET_ACCESS), H5Pclose);
  constexpr std::size_t slots = 10007;  // a prime well above the number of chunks that a cache holds
  if (cache_bytes) H5Pset_chunk_cache(access.get(), slots, *cache_bytes, H5D_CHUNK_CACHE_W0_DEFAULT);
  Id dataset(H5Dopen2(parent, name.c_str(), access.get()), H5Dclose);
  if (!dataset) fail(last_reason().text);
  return dataset;
}

std::vector<hsize_t> shape_of(hid_t dataset) {
  const Id space(H5Dget_space(dataset), H5Sclose);
  const int dimensions = H5Sget_simple_extent_ndims(space.get());
  std::vector<hsize_t> shape(static_cast<std::size_t>(std::max(dimensions, 0)));
  if (!shape.empty()) H5Sget_simple_extent_dims(space.get(), shape.data(), nullptr);
  return shape;
}

std::string text_of(const std::vector<hsize_t>& shape) {
  std::string extents;  // not fmt::join, in which GCC 12 at -O3 sees an overflow
  for (hsize_t extent : shape) extents += (extents.empty() ? "" : ",") + std::to_string(extent);
  return "[" + extents + "]";
}

void check_extent(hid_t dataset, const std::string& path, const std::string& name) {
  // Deflate reaches 1032; chunks that nobody wrote and some filters have no limit, so what is soon read is believed.
  constexpr double most_per_stored_byte = 4096, soon_read_bytes = 64 << 20, soon_read_rows = 1e5;
  const Id type(H5Dget_type(dataset), H5Tclose), properties(H5Dget_create_plist(dataset), H5Pclose);
  if (H5Pget_layout(properties.get()) == H5D_VIRTUAL) return;  // its rows are those of its sources: check_virtual
  const std::uint64_t stored = bytes_behind(dataset, properties.get());
  const auto check = [&](const std::vector<hsize_t>& shape, const char* what) {
    double bytes = static_cast<double>(H5Tget_size(type.get()));
    for (hsize_t extent : shape) bytes *= static_cast<double>(extent);
    if (bytes <= soon_read_bytes && (shape.empty() || static_cast<double>(shape[0]) <= soon_read_rows)) return;
    if (bytes > most_per_stored_byte * static_cast<double>(stored))
      throw Error(Exit::bad_data,
                  fmt::format("{}: dataset \"{}\": expected {} that a file of {} bytes can hold, found {}", path, name,
                              what, stored, text_of(shape)));
  };
  std::vector<hsize_t> shape = shape_of(dataset);
  check(shape, "rows");
  if (H5Pget_layout(properties.get()) != H5D_CHUNKED) return;
  H5Pget_chunk(properties.get(), static_cast<int>(shape.size()), shape.data());
  check(shape, "chunks");
}

void read_rows(hid_t dataset, hid_t memory_type, std::uint64_t first, std::uint64_t count, void* out,
               const std::string& path, const std::string& name) {
  if (count == 0) return;
  quieten();
  const RowSelection rows = select_rows(dataset, first, count);
  check_read(H5Dread(dataset, memory_type, rows.memory.get(), rows.file.get(), H5P_DEFAULT, out), path, name);
}

std::vector<std::string> read_text_rows(hid_t dataset, std::uint64_t first, std::uint64_t count,
                                        const std::string& path, const std::string& name) {
  std::vector<std::string> texts(count);
  if (count == 0) return texts;
  quieten();
  const Id file_type(H5Dget_type(dataset), H5Tclose);
  const bool is_variable = H5Tis_variable_str(file_type.get()) > 0;
  if (is_variable && !is_virtual(dataset)) return read_heap_texts(dataset, first, count, path, name);
  if (is_variable) {  // references into the heaps of several files
    const RowSelection rows = select_rows(dataset, first, count);
    std::vector<char*> pointers(count, nullptr);
    const herr_t status =
        H5Dread(dataset, file_type.get(), rows.memory.get(), rows.file.get(), H5P_DEFAULT, pointers.data());
    for (std::size_t i = 0; i < count; ++i)
      if (pointers[i]) texts[i] = pointers[i];
    // Before the check, whose reason must not be lost to another call: reclaiming leaves no error of its own.
    if (status >= 0) H5Dvlen_reclaim(file_type.get(), rows.memory.get(), H5P_DEFAULT, pointers.data());
    check_read(status, path, name);
  } else {
    const std::size_t size = H5Tget_size(file_type.get());
    const H5T_str_t padding = H5Tget_strpad(file_type.get());
    std::vector<char> raw(count * size);
    read_rows(dataset, file_type.get(), first, count, raw.data(), path, name);
    for (std::size_t i = 0; i < count; ++i) texts[i] = without_padding(raw.data() + i * size, size, padding);
  }
  return texts;
}

std::string file_of(hid_t dataset) {
  std::string name(static_cast<std::size_t>(std::max<ssize_t>(H5Fget_name(dataset, nullptr, 0), 0)), '\0');
  H5Fget_name(dataset, name.data(), name.size() + 1);
  return name;
}

void try_rows(hid_t dataset, const std::string& path, const std::string& name) {
  const std::vector<hsize_t> shape = shape_of(dataset);
  const Id type(H5Dget_type(dataset), H5Tclose), properties(H5Dget_create_plist(dataset), H5Pclose);
  const bool is_variable = H5Tis_variable_str(type.get()) > 0;
  if (shape.empty() || !(has_fragile_filter(properties.get()) || (is_variable && is_virtual(dataset)))) return;
  std::uint64_t row_bytes = H5Tget_size(type.get());
  for (std::size_t i = 1; i < shape.size(); ++i) row_bytes *= shape[i];
  constexpr std::uint64_t bytes_at_once = std::uint64_t{16} << 20;
  const std::uint64_t most = std::max<std::uint64_t>(1, bytes_at_once / std::max<std::uint64_t>(1, row_bytes));
  std::vector<std::byte> rows;
  for (std::uint64_t first = 0; first < shape[0]; first += most) {
    const std::uint64_t count = std::min<std::uint64_t>(most, shape[0] - first);
    if (is_variable) {
      read_text_rows(dataset, first, count, path, name);
    } else {
      rows.resize(count * row_bytes);
      read_rows(dataset, type.get(), first, count, rows.data(), path, name);
    }
  }
}

Id create_file(const std::string& path) {
  quieten();
  const Id properties(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_obj_track_times(properties.get(), false);
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, properties.get(), H5P_DEFAULT);
  if (file < 0) throw Error(Exit::cannot_create, fmt::format("{}: cannot be created: {}", path, last_reason().text));
  return Id(file, H5Fclose);
}

Id create_group(hid_t parent, const std::string& name, const std::string& path) {
  const Id properties(H5Pcreate(H5P_GROUP_CREATE), H5Pclose);
  H5Pset_obj_track_times(properties.get(), false);
  return checked_write(H5Gcreate2(parent, name.c_str(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Gclose, path,
                       fmt::format("group \"{}\"", name));
}

Id create_dataset(hid_t parent, const std::string& name, hid_t file_type, std::span<const hsize_t> shape,
                  const std::string& path) {
  const Id space(H5Screate_simple(static_cast<int>(shape.size()), shape.data(), nullptr), H5Sclose);
  const Id properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_obj_track_times(properties.get(), false);
  // Every row will be written, so no pass of zeros before; but the library insists on it for variable length.
  if (H5Tis_variable_str(file_type) <= 0) H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER);
  return checked_write(
      H5Dcreate2(parent, name.c_str(), file_type, space.get(), H5P_DEFAULT, properties.get(), H5P_DEFAULT), H5Dclose,
      path, fmt::format("dataset \"{}\"", name));
}

void write_rows(hid_t dataset, hid_t memory_type, std::uint64_t first, std::uint64_t count, const void* data,
                const std::string& path) {
  if (count == 0) return;
  const RowSelection rows = select_rows(dataset, first, count);
  if (H5Dwrite(dataset, memory_type, rows.memory.get(), rows.file.get(), H5P_DEFAULT, data) < 0)
    fail_write(path, "data");
}

void write_dataset(hid_t parent, const std::string& name, std::span<const std::int64_t> values,
                   const std::string& path) {
  write_vector(parent, name, H5T_STD_I64LE, values, path);
}
void write_dataset(hid_t parent, const std::string& name, std::span<const float> values, const std::string& path) {
  write_vector(parent, name, H5T_IEEE_F32LE, values, path);
}
void write_dataset(hid_t parent, const std::string& name, std::span<const double> values, const std::string& path) {
  write_vector(parent, name, H5T_IEEE_F64LE, values, path);
}
void write_dataset(hid_t parent, const std::string& name, std::span<const std::string> values,
                   const std::string& path) {
  std::vector<const char*> pointers;
  for (const std::string& value : values) pointers.push_back(value.c_str());
  write_vector(parent, name, text_type().get(), std::span<const char* const>(pointers), path);
}

void write_attribute(hid_t object, const std::string& name, const std::string& value, const std::string& path) {
  const char* pointer = value.c_str();
  write_scalar(object, name, text_type().get(), &pointer, path);
}
void write_attribute(hid_t object, const std::string& name, std::int64_t value, const std::string& path) {
  write_scalar(object, name, H5T_STD_I64LE, &value, path);
}
void write_attribute(hid_t object, const std::string& name, double value, const std::string& path) {
  write_scalar(object, name, H5T_IEEE_F64LE, &value, path);
}
void write_attribute(hid_t object, const std::string& name, float value, const std::string& path) {
  write_scalar(object, name, H5T_IEEE_F32LE, &value, path);
}
void write_attribute(hid_t object, const std::string& name, const char* value, const std::string& path) {
  write_attribute(object, name, std::string(value), path);
}

void close_file(Id file, const std::string& path) {
  if (!file.close()) fail_write(path, "the file's end");
}

Id half_type() {
  Id type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  H5Tset_fields(type.get(), 15, 10, 5, 0, 10);
  H5Tset_size(type.get(), 2);
  H5Tset_ebias(type.get(), 15);
  return type;
}

Id text_type() {
  Id type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), H5T_VARIABLE);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  return type;
}

bool is_half(hid_t type) {
  if (H5Tget_class(type) != H5T_FLOAT || H5Tget_size(type) != 2 || H5Tget_ebias(type) != 15) return false;
  std::size_t sign = 0, exponent = 0, exponent_size = 0, mantissa = 0, mantissa_size = 0;
  H5Tget_fields(type, &sign, &exponent, &exponent_size, &mantissa, &mantissa_size);
  return sign == 15 && exponent == 10 && exponent_size == 5 && mantissa == 0 && mantissa_size == 10;
}

bool is_big_endian(hid_t type) {
  return H5Tget_order(type) == H5T_ORDER_BE;
}

void write_attribute(hid_t object, const std::string& name, std::uint64_t value, const std::string& path) {
  write_scalar(object, name, H5T_STD_U64LE, &value, path);
}

Id create_file_in_memory() {
  quieten();
  const char* const name = "a file in memory";
  const Id access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose), properties(H5Pcreate(H5P_FILE_CREATE), H5Pclose);
  H5Pset_fapl_core(access.get(), std::size_t{1} << 20, false);
  H5Pset_obj_track_times(properties.get(), false);
  return checked_write(H5Fcreate(name, H5F_ACC_TRUNC, properties.get(), access.get()), H5Fclose, name, "its head");
}

std::string bytes_of(hid_t file) {
  const char* const name = "a file in memory";
  if (H5Fflush(file, H5F_SCOPE_LOCAL) < 0) fail_write(name, "its end");
  const ssize_t size = H5Fget_file_image(file, nullptr, 0);
  std::string bytes(size > 0 ? static_cast<std::size_t>(size) : 0, '\0');
  if (size <= 0 || H5Fget_file_image(file, bytes.data(), bytes.size()) != size) fail_write(name, "its image");
  return bytes;
}

}  // namespace seine::h5
