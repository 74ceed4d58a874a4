#include "seine/pool_files.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <glob.h>
#include <immintrin.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <list>
#include <optional>
#include <utility>

#include "hdf5.hpp"
#include "header_faults.hpp"
#include "seine/error.hpp"
#include "seine/row_math.hpp"

namespace seine {
namespace {

constexpr std::size_t kDatasets = 7;
constexpr std::array<Dataset, kDatasets> kAll{Dataset::embeddings, Dataset::probabilities, Dataset::ids,
                                              Dataset::labels,     Dataset::classes,       Dataset::costs,
                                              Dataset::groups};
constexpr std::size_t kOpenFiles = 4;                               // kept open by a rank
constexpr std::size_t kSlabBytes = std::size_t{4} << 20;            // read, then checked while still in the cache
constexpr std::size_t kLargestChunkCache = std::size_t{256} << 20;  // larger bands of chunks are inflated again
constexpr double kSmallestProbability = -1e-6;                      // rounding of the writer; becomes 0

enum class Kind : int { unknown, f16, f32, f64, integer, unsigned_64, text };

bool is_float(Kind kind) {
  return kind == Kind::f16 || kind == Kind::f32 || kind == Kind::f64;
}

std::string_view name_of(Kind kind) {
  switch (kind) {
    case Kind::f16:
      return "float16";
    case Kind::f32:
      return "float32";
    case Kind::f64:
      return "float64";
    default:
      return "";
  }
}

// The header of one dataset in one file. Travels between ranks as bytes; the text of its fault follows separately.
struct Column {
  bool present = false;
  bool alternative = false;  // `train` for embeddings, the logits for probabilities
  bool swapped = false;      // big-endian float16: read raw
  Kind kind = Kind::unknown;
  std::int64_t rows = 0;
  std::int64_t passes = 0;      // 0: no such dimension
  std::int64_t width = 1;       // D or C
  std::int64_t chunk_rows = 0;  // 0: not chunked
  std::size_t cache_bytes = 0;  // that holds a band of chunks
  Exit fault_code = Exit::done;
  std::int64_t fault_size = 0;

  std::int64_t per_row() const { return width * std::max<std::int64_t>(passes, 1); }
};

struct Header {
  std::int64_t file = 0;
  Exit fault_code = Exit::done;  // of the file itself
  std::int64_t fault_size = 0;
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

// --- names ---

const std::string& name_in(const DatasetNames& names, Dataset dataset) {
  switch (dataset) {
    case Dataset::embeddings:
      return names.embeddings;
    case Dataset::probabilities:
      return names.probabilities;
    case Dataset::ids:
      return names.ids;
    case Dataset::labels:
      return names.labels;
    case Dataset::classes:
      return names.classes;
    case Dataset::costs:
      return names.costs;
    default:
      return names.groups;
  }
}

std::string name_in_file(const DatasetNames& names, Dataset dataset, bool alternative) {
  if (!alternative) return name_in(names, dataset);
  return dataset == Dataset::embeddings ? "train" : names.logits;
}

std::string_view expected_form(Dataset dataset) {
  switch (dataset) {
    case Dataset::embeddings:
      return "[N,D] of float16, float32 or float64, D >= 1";
    case Dataset::probabilities:
      return "[N,C] or [N,T,C] of float16, float32 or float64, C >= 2 and T >= 1";
    case Dataset::ids:
      return "[N] of integers that fit int64, or of UTF-8 strings";
    case Dataset::costs:
      return "[N] of float16, float32 or float64";
    default:
      return "[N] of integers that fit int64";
  }
}

// --- what a dataset is ---

// Standard layouts only: bfloat16 and long double have the class but not the fields.
Kind kind_of_float(hid_t type) {
  if (h5::is_half(type)) return Kind::f16;
  if (H5Tequal(type, H5T_IEEE_F32LE) > 0 || H5Tequal(type, H5T_IEEE_F32BE) > 0) return Kind::f32;
  if (H5Tequal(type, H5T_IEEE_F64LE) > 0 || H5Tequal(type, H5T_IEEE_F64BE) > 0) return Kind::f64;
  return Kind::unknown;
}

Kind kind_of_integer(hid_t type) {
  if (H5Tget_size(type) > 8) return Kind::unknown;
  return H5Tget_size(type) == 8 && H5Tget_sign(type) == H5T_SGN_NONE ? Kind::unsigned_64 : Kind::integer;
}

Kind kind_of(hid_t type) {
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return kind_of_float(type);
    case H5T_INTEGER:
      return kind_of_integer(type);
    case H5T_ENUM:
      return kind_of_integer(h5::Id(H5Tget_super(type), H5Tclose).get());
    case H5T_STRING:
      return Kind::text;
    default:
      return Kind::unknown;
  }
}

std::string describe_type(hid_t type) {
  const std::size_t bits = 8 * H5Tget_size(type);
  switch (H5Tget_class(type)) {
    case H5T_FLOAT:
      return kind_of_float(type) == Kind::unknown ? fmt::format("a {}-bit float that is not IEEE", bits)
                                                  : fmt::format("float{}", bits);
    case H5T_INTEGER:
      return fmt::format("{}int{}", H5Tget_sign(type) == H5T_SGN_NONE ? "u" : "", bits);
    case H5T_ENUM:
      return "an enumeration";
    case H5T_STRING:
      return "strings";
    case H5T_COMPOUND:
      return "a compound type";
    default:
      return "another type";
  }
}

bool suits(Kind kind, Dataset dataset) {
  const bool whole = kind == Kind::integer || kind == Kind::unsigned_64;
  switch (dataset) {
    case Dataset::embeddings:
    case Dataset::probabilities:
    case Dataset::costs:
      return is_float(kind);
    case Dataset::ids:
      return whole || kind == Kind::text;
    default:
      return whole;
  }
}

bool suits(const std::vector<hsize_t>& shape, Dataset dataset) {
  if (dataset == Dataset::embeddings) return shape.size() == 2 && shape[1] >= 1;
  if (dataset == Dataset::probabilities)
    return (shape.size() == 2 || (shape.size() == 3 && shape[1] >= 1)) && shape.back() >= 2;
  return shape.size() == 1;
}

// The first filter that this process cannot undo, or "".
std::string missing_filter(hid_t properties) {
  const int filters = H5Pget_nfilters(properties);
  for (int i = 0; i < filters; ++i) {
    unsigned flags = 0;
    std::size_t values = 0;
    char name[64] = "";
    const H5Z_filter_t filter =
        H5Pget_filter2(properties, static_cast<unsigned>(i), &flags, &values, nullptr, sizeof name, name, nullptr);
    if (filter >= 0 && H5Zfilter_avail(filter) <= 0) return fmt::format("filter \"{}\" ({})", name, filter);
  }
  return "";
}

void read_chunking(Column& column, hid_t properties, const std::vector<hsize_t>& shape, std::size_t element_bytes) {
  std::vector<hsize_t> chunk(shape.size());
  if (H5Pget_chunk(properties, static_cast<int>(chunk.size()), chunk.data()) < 0) return;
  column.chunk_rows = static_cast<std::int64_t>(chunk[0]);
  std::size_t band = chunk[0] * element_bytes;
  for (std::size_t i = 1; i < shape.size(); ++i) band *= (shape[i] + chunk[i] - 1) / chunk[i] * chunk[i];
  constexpr std::size_t library_default = std::size_t{1} << 20;
  column.cache_bytes = band <= kLargestChunkCache ? std::max(band, library_default) : 0;
}

// --- virtual datasets: the library reads a missing source as fill values, without a word ---

// Where the library looks for a source: as given, then beside the file of the virtual dataset.
std::string source_path(const std::string& source, const std::string& path) {
  if (source == ".") return path;
  std::error_code ignored;
  const auto beside = std::filesystem::path(path).parent_path() / source;
  return std::filesystem::exists(beside, ignored) ? beside.string() : source;
}

std::string virtual_text(hid_t properties, std::size_t mapping,
                         ssize_t (*get)(hid_t, std::size_t, char*, std::size_t)) {
  std::string text(static_cast<std::size_t>(std::max<ssize_t>(get(properties, mapping, nullptr, 0), 0)), '\0');
  get(properties, mapping, text.data(), text.size() + 1);
  return text;
}

// Whether `dataset` has the elements that a mapping selects in it.
bool holds_selection(hid_t dataset, hid_t selection, hssize_t elements) {
  const std::vector<hsize_t> shape = h5::shape_of(dataset);
  if (H5Sget_simple_extent_ndims(selection) != static_cast<int>(shape.size())) {  // "everything", of any extent
    hssize_t there = 1;
    for (hsize_t extent : shape) there *= static_cast<hssize_t>(extent);
    return elements < 0 || there == elements;
  }
  std::vector<hsize_t> low(shape.size()), high(shape.size());
  if (H5Sget_select_bounds(selection, low.data(), high.data()) < 0) return true;  // unlimited
  for (std::size_t i = 0; i < shape.size(); ++i)
    if (high[i] >= shape[i] && high[i] != H5S_UNLIMITED) return false;
  return true;
}

void check_source(hid_t properties, std::size_t mapping, hssize_t elements, const std::string& path,
                  const std::string& name) {
  const std::string file_name = virtual_text(properties, mapping, H5Pget_virtual_filename);
  const std::string dataset_name = virtual_text(properties, mapping, H5Pget_virtual_dsetname);
  if (file_name.find("%b") != std::string::npos || dataset_name.find("%b") != std::string::npos) return;  // a series
  try {
    const std::string source = source_path(file_name, path);
    const h5::Id file = h5::open_file(source);
    const h5::Id dataset = h5::open_dataset(file.get(), dataset_name, source);
    const h5::Id selection(H5Pget_virtual_srcspace(properties, mapping), H5Sclose);
    if (!holds_selection(dataset.get(), selection.get(), elements))
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" has another shape", source, dataset_name));
  } catch (const Error& error) {
    throw Error(error.code(),
                fmt::format("{}: dataset \"{}\" is virtual, and a source fails: {}", path, name, error.what()));
  }
}

void check_virtual(hid_t properties, const std::vector<hsize_t>& shape, const std::string& path,
                   const std::string& name) {
  std::size_t mappings = 0;
  H5Pget_virtual_count(properties, &mappings);
  hsize_t mapped = 0, elements = 1;
  bool bounded = true;
  for (std::size_t i = 0; i < mappings; ++i) {
    const h5::Id space(H5Pget_virtual_vspace(properties, i), H5Sclose);
    const hssize_t points = H5Sget_select_npoints(space.get());  // all bits set where unlimited
    check_source(properties, i, points, path, name);
    bounded = bounded && points >= 0;
    if (bounded) mapped += static_cast<hsize_t>(points);
  }
  for (hsize_t extent : shape) elements *= extent;
  if (bounded && mapped < elements)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is virtual: expected sources for {} elements, found "
                                            "them for {}",
                                            path, name, elements, mapped));
}

// --- headers ---

std::string found_form(const std::vector<hsize_t>& shape, hid_t type) {
  return fmt::format("[{}] of {}", fmt::join(shape, ","), describe_type(type));
}

// Fills `column` as far as it can be known, and throws what is wrong with the dataset.
void read_column(Column& column, hid_t file, Dataset dataset, const std::string& name, const std::string& path) {
  column.present = true;
  const h5::Id opened = h5::open_dataset(file, name, path);
  const h5::Id type(H5Dget_type(opened.get()), H5Tclose);
  const std::vector<hsize_t> shape = h5::shape_of(opened.get());
  if (!shape.empty()) column.rows = static_cast<std::int64_t>(shape[0]);
  column.kind = kind_of(type.get());
  column.swapped = column.kind == Kind::f16 && h5::is_big_endian(type.get());
  const bool nothing_inside = !shape.empty() && shape[0] == 0;  // an empty shard may have any form
  if (nothing_inside) return;
  if (!suits(shape, dataset) || !suits(column.kind, dataset))
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\": expected {}, found {}", path, name,
                                            expected_form(dataset), found_form(shape, type.get())));
  if (shape.size() > 1) column.width = static_cast<std::int64_t>(shape.back());
  if (shape.size() == 3) column.passes = static_cast<std::int64_t>(shape[1]);

  const h5::Id properties(H5Dget_create_plist(opened.get()), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  if (layout == H5D_VIRTUAL) check_virtual(properties.get(), shape, path, name);
  if (layout == H5D_CHUNKED) read_chunking(column, properties.get(), shape, H5Tget_size(type.get()));
  if (const std::string filter = missing_filter(properties.get()); !filter.empty())
    throw Error(Exit::bad_data,
                fmt::format("{}: dataset \"{}\": stored with {}, which is not installed here", path, name, filter));
}

// Which of the two names of a dataset this file has: the second counts where the first is absent.
void read_column(FileHeader& header, hid_t file, Dataset dataset, const DatasetNames& names, const std::string& path) {
  const auto at = static_cast<std::size_t>(dataset);
  Column& column = header.header.columns[at];
  const bool has_alternative = dataset == Dataset::probabilities ||
                               (dataset == Dataset::embeddings && names.embeddings == DatasetNames{}.embeddings);
  try {
    if (h5::exists(file, name_in(names, dataset))) {
      read_column(column, file, dataset, name_in(names, dataset), path);
    } else if (has_alternative && h5::exists(file, name_in_file(names, dataset, true))) {
      column.alternative = true;
      read_column(column, file, dataset, name_in_file(names, dataset, true), path);
    }
  } catch (const Error& error) {
    column.fault_code = error.code();
    header.faults[at] = error.what();
    column.fault_size = static_cast<std::int64_t>(header.faults[at].size());
  }
}

// A name that the user chose must be there; a default need not.
void check_chosen_names(hid_t file, const DatasetNames& names, const std::string& path) {
  const DatasetNames usual;
  const auto check = [&](const std::string& name, const std::string& usual_name) {
    if (name != usual_name && !h5::exists(file, name))
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", path, name));
  };
  for (Dataset dataset : kAll)
    if (dataset != Dataset::labels || names.labels != "none") check(name_in(names, dataset), name_in(usual, dataset));
  check(names.logits, usual.logits);
}

FileHeader read_header(std::int64_t number, const std::string& path, const DatasetNames& names) {
  FileHeader header;
  header.header.file = number;
  try {
    const h5::Id file = h5::open_file(path);
    check_chosen_names(file.get(), names, path);
    for (Dataset dataset : kAll)
      if (dataset != Dataset::labels || names.labels != "none") read_column(header, file.get(), dataset, names, path);
  } catch (const Error& error) {
    header.header.fault_code = error.code();
    header.fault = error.what();
    header.header.fault_size = static_cast<std::int64_t>(header.fault.size());
  }
  return header;
}

// Collective. The headers of all files, on every rank.
std::vector<FileHeader> read_headers(const Comm& comm, const std::vector<std::string>& paths,
                                     const DatasetNames& names) {
  std::vector<Header> mine;
  std::string texts;
  comm.agree([&] {
    for (std::size_t file = static_cast<std::size_t>(comm.rank()); file < paths.size();
         file += static_cast<std::size_t>(comm.size())) {
      const FileHeader header = read_header(static_cast<std::int64_t>(file), paths[file], names);
      mine.push_back(header.header);
      texts += header.fault;
      for (const std::string& fault : header.faults) texts += fault;
    }
  });
  const std::vector<Header> all = comm.gather(std::span<const Header>(mine));
  const std::vector<char> all_texts = comm.gather(std::span<const char>(texts));
  std::vector<FileHeader> headers(paths.size());
  const char* text = all_texts.data();
  const auto next_text = [&](std::int64_t size) {
    const char* begin = text;
    text += size;
    return std::string(begin, text);
  };
  for (const Header& header : all) {
    FileHeader& file = headers[static_cast<std::size_t>(header.file)];
    file.header = header;
    file.fault = next_text(header.fault_size);
    for (std::size_t i = 0; i < kDatasets; ++i) file.faults[i] = next_text(header.columns[i].fault_size);
  }
  return headers;
}

// --- values ---

// Widens `count` stored values that lie at the end of the memory of `out`. In place, so that a read needs no second
// buffer: the front of what is written never overtakes what is still to be read.
template <class To, class Widen8, class Widen1>
void widen_in_place(To* out, std::int64_t count, std::size_t stored_bytes, Widen8 widen8, Widen1 widen1) {
  const std::byte* stored =
      reinterpret_cast<const std::byte*>(out + count) - static_cast<std::size_t>(count) * stored_bytes;
  std::int64_t i = 0;
  for (; i + 8 <= count; i += 8, stored += 8 * stored_bytes) widen8(stored, out + i);
  for (; i < count; ++i, stored += stored_bytes) out[i] = static_cast<To>(widen1(stored));
}

__m256 load_half8(const std::byte* stored, bool swapped) {
  __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(stored));
  if (swapped) bits = _mm_or_si128(_mm_slli_epi16(bits, 8), _mm_srli_epi16(bits, 8));
  return _mm256_cvtph_ps(bits);
}

float load_half(const std::byte* stored, bool swapped) {
  std::uint16_t bits = 0;
  std::memcpy(&bits, stored, sizeof bits);
  return _cvtsh_ss(swapped ? static_cast<std::uint16_t>(bits << 8 | bits >> 8) : bits);
}

void store8(__m256 values, float* out) {
  _mm256_storeu_ps(out, values);
}
void store8(__m256 values, double* out) {
  _mm256_storeu_pd(out, _mm256_cvtps_pd(_mm256_castps256_ps128(values)));
  _mm256_storeu_pd(out + 4, _mm256_cvtps_pd(_mm256_extractf128_ps(values, 1)));
}

template <class To>
void widen_halves(To* out, std::int64_t count, bool swapped) {
  widen_in_place(
      out, count, 2, [&](const std::byte* from, To* to) { store8(load_half8(from, swapped), to); },
      [&](const std::byte* from) { return load_half(from, swapped); });
}

void widen_singles(double* out, std::int64_t count) {
  const auto load = [](const std::byte* from) {
    float value = 0;
    std::memcpy(&value, from, sizeof value);
    return value;
  };
  widen_in_place(
      out, count, 4,
      [](const std::byte* from, double* to) { store8(_mm256_loadu_ps(reinterpret_cast<const float*>(from)), to); },
      load);
}

// In integers, because a sum of floats does not vectorise.
bool all_finite(const float* values, std::int64_t count) {
  std::uint32_t largest = 0;
  for (std::int64_t i = 0; i < count; ++i)
    largest = std::max(largest, std::bit_cast<std::uint32_t>(values[i]) & 0x7fffffffU);
  return largest < 0x7f800000U;
}

bool all_finite(const double* values, std::int64_t count) {
  bool finite = true;
  for (std::int64_t i = 0; i < count; ++i)
    finite &= (std::bit_cast<std::uint64_t>(values[i]) & 0x7ff0000000000000U) != 0x7ff0000000000000U;
  return finite;
}

// Raises values in [-1e-6, 0) to 0; the sum, or NaN where a value lies below. In four lanes, to be quick.
double settle_distribution(double* p, std::int64_t classes) {
  double lane[4] = {}, smallest[4] = {};
  for (std::int64_t c = 0; c < classes; ++c) {
    smallest[c % 4] = std::min(smallest[c % 4], p[c]);
    p[c] = p[c] < 0 && p[c] >= kSmallestProbability ? 0 : p[c];
    lane[c % 4] += p[c];
  }
  const double low = std::min(std::min(smallest[0], smallest[1]), std::min(smallest[2], smallest[3]));
  return low < kSmallestProbability ? std::numeric_limits<double>::quiet_NaN()
                                    : (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

void softmax(double* p, std::int64_t classes) {
  const double largest = *std::max_element(p, p + classes);
  double sum = 0;
  for (std::int64_t c = 0; c < classes; ++c) sum += p[c] = exp_of(p[c] - largest);
  for (std::int64_t c = 0; c < classes; ++c) p[c] /= sum;
}

bool is_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    const auto first = static_cast<unsigned char>(text[i]);
    const std::size_t length = first < 0x80   ? 1
                               : first < 0xc2 ? 0
                               : first < 0xe0 ? 2
                               : first < 0xf0 ? 3
                               : first < 0xf5 ? 4
                                              : 0;
    if (length == 0 || i + length > text.size()) return false;
    for (std::size_t j = 1; j < length; ++j)
      if ((static_cast<unsigned char>(text[i + j]) & 0xc0) != 0x80) return false;
    i += length;
  }
  return true;
}

// --- paths ---

// Runs of digits compare as numbers, so that part-2 comes before part-10; everything else by bytes.
bool naturally_before(const std::string& a, const std::string& b) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  std::size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (digit(a[i]) && digit(b[j])) {
      const auto number = [&](const std::string& text, std::size_t& at) {
        const std::size_t first = std::min(text.find_first_not_of('0', at), text.size());
        while (at < text.size() && digit(text[at])) ++at;
        return std::string_view(text).substr(std::min(first, at), at - std::min(first, at));
      };
      const std::string_view x = number(a, i), y = number(b, j);
      if (x.size() != y.size()) return x.size() < y.size();
      if (x != y) return x < y;
    } else {
      if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
      ++i, ++j;
    }
  }
  if (i < a.size() || j < b.size()) return i == a.size();
  return a < b;  // they differ in leading zeros at most
}

bool is_there(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0 || (errno != ENOENT && errno != ENOTDIR);
}

void check_there(const std::string& path) {
  if (!is_there(path)) throw Error(Exit::no_input, path + ": no such file");
}

std::vector<std::string> read_path_list(const std::string& list) {
  std::ifstream file(list);
  if (!file || std::filesystem::is_directory(list))
    throw Error(Exit::no_input, fmt::format("{}: cannot be read: {}", list, std::strerror(errno ? errno : EISDIR)));
  std::vector<std::string> paths;
  for (std::string line; std::getline(file, line);) {
    const std::size_t first = line.find_first_not_of(" \t\r");
    if (first == std::string::npos || line[first] == '#') continue;
    paths.push_back(line.substr(first, line.find_last_not_of(" \t\r") + 1 - first));
  }
  if (file.bad()) throw Error(Exit::io, list + ": cannot be read to its end");
  if (paths.empty()) throw Error(Exit::bad_data, list + ": expected one path per line, found none");
  for (const std::string& path : paths) check_there(path);
  return paths;
}

void expand_glob(const std::string& pattern, std::vector<std::string>& paths) {
  glob_t found{};
  const int status = ::glob(pattern.c_str(), GLOB_ERR | GLOB_NOSORT, nullptr, &found);
  for (std::size_t i = 0; status == 0 && i < found.gl_pathc; ++i) paths.emplace_back(found.gl_pathv[i]);
  ::globfree(&found);
  if (status == GLOB_NOSPACE) throw Error(Exit::system, "out of memory while expanding " + pattern);
  if (status == GLOB_ABORTED) throw Error(Exit::no_input, pattern + ": a folder of this pattern cannot be read");
  if (status != 0) throw Error(Exit::no_input, pattern + ": no file matches");
}

}  // namespace

std::vector<std::string> expand_pool_paths(std::span<const std::string> given) {
  if (given.size() == 1 && given[0].ends_with(".txt")) {
    check_there(given[0]);
    return read_path_list(given[0]);
  }
  std::vector<std::string> paths;
  for (const std::string& path : given) {
    if (path.find_first_of("*?[") != std::string::npos && !is_there(path)) {
      expand_glob(path, paths);
    } else {
      check_there(path);
      paths.push_back(path);
    }
  }
  std::vector<std::pair<std::string, std::string>> keyed;  // full path, path as given
  for (std::string& path : paths)
    keyed.emplace_back(std::filesystem::absolute(path).lexically_normal().string(), std::move(path));
  std::stable_sort(keyed.begin(), keyed.end(),
                   [](const auto& a, const auto& b) { return naturally_before(a.first, b.first); });
  for (std::size_t i = 0; i < paths.size(); ++i) paths[i] = std::move(keyed[i].second);
  return paths;
}

std::vector<std::string> header_faults(const Comm& comm, const std::vector<std::string>& paths,
                                       const DatasetNames& names) {
  std::vector<std::string> texts;
  for (const FileHeader& header : read_headers(comm, paths, names)) {
    if (!header.fault.empty()) texts.push_back(header.fault);
    for (const std::string& fault : header.faults)
      if (!fault.empty()) texts.push_back(fault);
  }
  return texts;
}

// --- the pool ---

struct PoolFiles::Impl {
  struct OpenFile {
    std::size_t number = 0;
    h5::Id file;
    std::array<h5::Id, kDatasets> datasets;  // closed before the file: the library keeps it open otherwise
  };
  // What one read of one file is about.
  struct Slab {
    std::size_t file;
    hid_t dataset;
    const Column& column;
    std::int64_t first, count;  // rows of the file
    std::int64_t offset;        // rows since the start of what was asked for
  };

  std::vector<std::string> paths;
  DatasetNames names;
  std::vector<FileHeader> headers;
  std::vector<std::int64_t> first_rows;
  PoolShape shape;
  std::array<std::optional<Error>, kDatasets> faults;  // of datasets that nobody needs so far
  mutable std::list<OpenFile> open;                    // last used first

  std::string name(std::size_t file, Dataset dataset) const {
    return name_in_file(names, dataset, headers[file].column(dataset).alternative);
  }

  std::size_t file_of(std::int64_t row) const {
    require(row >= 0 && row < shape.rows, "the row lies in the pool");
    return static_cast<std::size_t>(std::upper_bound(first_rows.begin(), first_rows.end(), row) - first_rows.begin() -
                                    1);
  }

  // From headers to the shape of the pool.
  void settle(const Needs& needs);
  void settle_rows(std::size_t file, const Needs& needs);
  void settle_needs(std::size_t file, const Needs& needs);
  void compare(std::size_t file, std::size_t reference, Dataset dataset, const Needs& needs);
  void fault(Dataset dataset, const Needs& needs, const Error& error);
  void describe();
  std::string type_of(Dataset dataset) const;

  // Reading.
  hid_t dataset(std::size_t file, Dataset which) const;
  template <class Read>
  void read_slabs(Dataset which, std::int64_t first, std::int64_t count, std::size_t row_bytes, Read read) const;
  template <class To>
  void read_floats(const Slab& slab, Dataset which, To* out) const;
  void read_raw(const Slab& slab, Dataset which, hid_t type, void* out) const;
  [[noreturn]] void fail_row(const Slab& slab, Dataset which, std::int64_t row, const std::string& what) const;
  void read_rounded(const Slab& slab, float* out) const;
  void check_embeddings(const Slab& slab, const float* rows, const double* unrounded) const;
  void check_distributions(const Slab& slab, double* p) const;
  void check_logits(const Slab& slab, double* p) const;
};

namespace {

bool is_needed(Dataset dataset, const Needs& needs) {
  if (dataset == Dataset::embeddings) return needs.embeddings;
  if (dataset == Dataset::probabilities) return needs.probabilities || needs.passes;
  return dataset == Dataset::ids || dataset == Dataset::labels;  // every command reads them where they are
}

// Whether its rows count for the file: not those of large datasets that nobody reads.
bool counts_rows(Dataset dataset, const Needs& needs) {
  const bool large = dataset == Dataset::embeddings || dataset == Dataset::probabilities;
  return !large || is_needed(dataset, needs);
}

}  // namespace

void PoolFiles::Impl::fault(Dataset dataset, const Needs& needs, const Error& error) {
  if (is_needed(dataset, needs)) throw error;
  auto& kept = faults[static_cast<std::size_t>(dataset)];
  if (!kept) kept = error;
}

// In order of the files, so that the first fault is the same for every number of ranks.
void PoolFiles::Impl::settle(const Needs& needs) {
  std::optional<std::size_t> reference;  // the first file with rows: others must look like it
  first_rows.push_back(0);
  for (std::size_t file = 0; file < paths.size(); ++file) {
    const FileHeader& header = headers[file];
    if (!header.fault.empty()) throw Error(header.header.fault_code, header.fault);
    for (Dataset which : kAll)
      if (!header.fault_of(which).empty())
        fault(which, needs, Error(header.column(which).fault_code, header.fault_of(which)));
    settle_rows(file, needs);
    first_rows.push_back(first_rows.back() + headers[file].rows);
    if (headers[file].rows == 0) continue;
    settle_needs(file, needs);
    if (!reference) reference = file;
    for (Dataset which : kAll) compare(file, *reference, which, needs);
  }
  if (!reference)
    throw Error(Exit::bad_data,
                fmt::format("{}: the pool is empty: expected at least one row in {} file{}, found none",
                            paths.empty() ? "--pool" : paths[0], paths.size(), paths.size() == 1 ? "" : "s"));
  describe();
}

void PoolFiles::Impl::settle_rows(std::size_t file, const Needs& needs) {
  FileHeader& header = headers[file];
  std::optional<Dataset> counted;
  const auto is_usable = [&](Dataset which) { return header.column(which).present && header.fault_of(which).empty(); };
  for (Dataset which : kAll)
    if (!counted && is_usable(which) && counts_rows(which, needs)) counted = which;
  for (Dataset which : kAll)
    if (!counted && is_usable(which)) counted = which;
  for (Dataset which : kAll)
    if (!counted && header.column(which).present) throw Error(header.column(which).fault_code, header.fault_of(which));
  if (!counted)
    throw Error(Exit::bad_data, fmt::format("{}: expected a dataset \"{}\", found neither it nor another one of a pool",
                                            paths[file], name_in(names, Dataset::embeddings)));
  header.rows = header.column(*counted).rows;
  for (Dataset which : kAll) {
    if (!is_usable(which) || header.column(which).rows == header.rows) continue;
    const Error error(Exit::bad_data,
                      fmt::format("{}: dataset \"{}\": expected {} rows as in dataset \"{}\", found {}", paths[file],
                                  name(file, which), header.rows, name(file, *counted), header.column(which).rows));
    if (counts_rows(which, needs)) throw error;
    fault(which, needs, error);
  }
}

void PoolFiles::Impl::settle_needs(std::size_t file, const Needs& needs) {
  const FileHeader& header = headers[file];
  if (needs.embeddings && !header.column(Dataset::embeddings).present)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", paths[file], names.embeddings));
  const Column& probabilities = header.column(Dataset::probabilities);
  if (is_needed(Dataset::probabilities, needs) && !probabilities.present)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing, and so is \"{}\"", paths[file],
                                            names.probabilities, names.logits));
  if (needs.passes && probabilities.passes < 2)
    throw Error(
        Exit::bad_data,
        fmt::format("{}: dataset \"{}\": expected passes, [N,T,C] with T >= 2, found {}", paths[file],
                    name(file, Dataset::probabilities),
                    probabilities.passes == 0 ? fmt::format("[N,C] = [{},{}]", probabilities.rows, probabilities.width)
                                              : fmt::format("[{},1,{}]", probabilities.rows, probabilities.width)));
}

void PoolFiles::Impl::compare(std::size_t file, std::size_t reference, Dataset which, const Needs& needs) {
  const Column& here = headers[file].column(which);
  const Column& there = headers[reference].column(which);
  const auto differs = [&](std::string_view what, const std::string& expected, const std::string& found) {
    fault(which, needs,
          Error(Exit::bad_data, fmt::format("{}: dataset \"{}\": expected {}{} as in {}, found {}", paths[file],
                                            name(file, which), what, expected, paths[reference], found)));
  };
  if (here.present != there.present)
    differs("", there.present ? "one" : "none", here.present ? "one" : "none");
  else if (here.width != there.width)
    differs(which == Dataset::embeddings ? "D = " : "C = ", std::to_string(there.width), std::to_string(here.width));
  else if (here.passes != there.passes)
    differs("T = ", there.passes == 0 ? "none" : std::to_string(there.passes),
            here.passes == 0 ? "none" : std::to_string(here.passes));
  else if (here.present && (here.kind == Kind::text) != (there.kind == Kind::text))
    differs("", there.kind == Kind::text ? "strings" : "integers", here.kind == Kind::text ? "strings" : "integers");
}

std::string PoolFiles::Impl::type_of(Dataset which) const {
  std::string type;
  for (const FileHeader& header : headers) {
    const Column& column = header.column(which);
    if (!column.present || column.rows == 0) continue;
    if (!type.empty() && type != name_of(column.kind)) return "mixed";
    type = name_of(column.kind);
  }
  return type;
}

void PoolFiles::Impl::describe() {
  shape.rows = first_rows.back();
  for (const FileHeader& header : headers) {
    if (header.rows == 0) continue;
    const auto has = [&](Dataset which) { return header.column(which).present; };
    const Column& probabilities = header.column(Dataset::probabilities);
    if (has(Dataset::embeddings) && shape.dim == 0) shape.dim = header.column(Dataset::embeddings).width;
    if (has(Dataset::probabilities) && shape.classes == 0) {
      shape.classes = probabilities.width;
      shape.passes = probabilities.passes;
    }
    shape.logits = shape.logits || (has(Dataset::probabilities) && probabilities.alternative);
    shape.ids = shape.ids || has(Dataset::ids);
    shape.text_ids = shape.text_ids || (has(Dataset::ids) && header.column(Dataset::ids).kind == Kind::text);
    shape.labels = shape.labels || has(Dataset::labels);
    shape.reference_classes = shape.reference_classes || has(Dataset::classes);
    shape.costs = shape.costs || has(Dataset::costs);
    shape.groups = shape.groups || has(Dataset::groups);
  }
  shape.embeddings_type = type_of(Dataset::embeddings);
  shape.probabilities_type = type_of(Dataset::probabilities);
  shape.half_embeddings = shape.embeddings_type == name_of(Kind::f16);
}

// --- reading ---

hid_t PoolFiles::Impl::dataset(std::size_t file, Dataset which) const {
  const auto at = std::find_if(open.begin(), open.end(), [&](const OpenFile& kept) { return kept.number == file; });
  if (at != open.end()) {
    open.splice(open.begin(), open, at);
  } else {
    if (open.size() == kOpenFiles) open.pop_back();
    open.emplace_front();
    open.front().number = file;
    open.front().file = h5::open_file(paths[file]);
  }
  h5::Id& id = open.front().datasets[static_cast<std::size_t>(which)];
  if (!id)
    id = h5::open_dataset(open.front().file.get(), name(file, which), paths[file],
                          headers[file].column(which).cache_bytes);
  return id.get();
}

// Calls `read` with pieces of files that fit the processor's cache and end where a chunk ends.
template <class Read>
void PoolFiles::Impl::read_slabs(Dataset which, std::int64_t first, std::int64_t count, std::size_t row_bytes,
                                 Read read) const {
  require(first >= 0 && count >= 0 && count <= shape.rows - first, "rows to read lie in the pool");
  if (const auto& kept = faults[static_cast<std::size_t>(which)]) throw *kept;
  const std::int64_t end = first + count;
  auto file =
      static_cast<std::size_t>(std::upper_bound(first_rows.begin(), first_rows.end(), first) - first_rows.begin() - 1);
  for (std::int64_t row = first; row < end; ++file) {
    const std::int64_t in_file = row - first_rows[file];
    const std::int64_t stop = std::min(end, first_rows[file + 1]) - first_rows[file];
    const Column& column = headers[file].column(which);
    if (stop > in_file && !column.present)
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", paths[file], name(file, which)));
    std::int64_t step = std::max<std::int64_t>(1, static_cast<std::int64_t>(kSlabBytes / row_bytes));
    if (column.chunk_rows > 0) step = (step + column.chunk_rows - 1) / column.chunk_rows * column.chunk_rows;
    for (std::int64_t at = in_file; at < stop;) {
      const std::int64_t next = std::min(stop, (at / step + 1) * step);
      read(Slab{file, dataset(file, which), column, at, next - at, first_rows[file] + at - first});
      at = next;
    }
    row = first_rows[file] + stop;
  }
}

void PoolFiles::Impl::read_raw(const Slab& slab, Dataset which, hid_t type, void* out) const {
  h5::read_rows(slab.dataset, type, static_cast<std::uint64_t>(slab.first), static_cast<std::uint64_t>(slab.count), out,
                paths[slab.file], name(slab.file, which));
}

// As To, without rounding: To holds every value of what is stored. The library would convert float16 at 0.02 GB/s.
template <class To>
void PoolFiles::Impl::read_floats(const Slab& slab, Dataset which, To* out) const {
  const std::int64_t elements = slab.count * slab.column.per_row();
  const auto end_of_memory = [&](std::size_t stored_bytes) {
    return reinterpret_cast<std::byte*>(out + elements) - static_cast<std::size_t>(elements) * stored_bytes;
  };
  if (slab.column.kind == Kind::f16) {
    const h5::Id type(H5Dget_type(slab.dataset), H5Tclose);
    read_raw(slab, which, type.get(), end_of_memory(2));
    widen_halves(out, elements, slab.column.swapped);
  } else if (slab.column.kind == Kind::f32) {
    read_raw(slab, which, H5T_NATIVE_FLOAT, end_of_memory(4));
    if constexpr (sizeof(To) > 4) widen_singles(out, elements);
  } else {
    require(sizeof(To) == 8, "float64 is not read as float32");
    read_raw(slab, which, H5T_NATIVE_DOUBLE, out);
  }
}

void PoolFiles::Impl::fail_row(const Slab& slab, Dataset which, std::int64_t row, const std::string& what) const {
  throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\", row {}{}", paths[slab.file], name(slab.file, which),
                                          slab.first + row, what));
}

// `unrounded`: what was stored, where that was float64; else null.
void PoolFiles::Impl::check_embeddings(const Slab& slab, const float* rows, const double* unrounded) const {
  const std::int64_t width = slab.column.width, elements = slab.count * width;
  if (all_finite(rows, elements)) return;
  const std::int64_t at = std::find_if(rows, rows + elements, [](float x) { return !std::isfinite(x); }) - rows;
  const bool overflowed = unrounded && std::isfinite(unrounded[at]);
  fail_row(slab, Dataset::embeddings, at / width,
           fmt::format(", column {}: expected a number that is finite{}, found {}", at % width,
                       overflowed ? " in float32" : "", unrounded ? unrounded[at] : static_cast<double>(rows[at])));
}

void PoolFiles::Impl::read_rounded(const Slab& slab, float* out) const {
  std::vector<double> stored(static_cast<std::size_t>(slab.count * slab.column.width));
  read_floats(slab, Dataset::embeddings, stored.data());
  std::transform(stored.begin(), stored.end(), out, [](double x) { return static_cast<float>(x); });
  check_embeddings(slab, out, stored.data());
}

void PoolFiles::read_embeddings(std::int64_t first, std::int64_t count, std::span<float> out) const {
  const std::int64_t dim = impl_->shape.dim;
  require(static_cast<std::int64_t>(out.size()) == count * dim, "room for the embeddings asked for");
  impl_->read_slabs(Dataset::embeddings, first, count, static_cast<std::size_t>(dim) * sizeof(float),
                    [&](const Impl::Slab& slab) {
                      float* rows = out.data() + slab.offset * dim;
                      if (slab.column.kind == Kind::f64) return impl_->read_rounded(slab, rows);
                      impl_->read_floats(slab, Dataset::embeddings, rows);
                      impl_->check_embeddings(slab, rows, nullptr);
                    });
}

void PoolFiles::Impl::check_distributions(const Slab& slab, double* p) const {
  const std::int64_t classes = slab.column.width, passes = std::max<std::int64_t>(slab.column.passes, 1);
  const double tolerance = slab.column.kind == Kind::f16 ? 1e-2 : 1e-3;
  for (std::int64_t i = 0; i < slab.count * passes; ++i) {
    double* one = p + i * classes;
    const double sum = settle_distribution(one, classes);
    if (std::fabs(sum - 1) <= tolerance) continue;
    const std::string pass = slab.column.passes > 0 ? fmt::format(", pass {}", i % passes) : "";
    const double* bad =
        std::find_if(one, one + classes, [](double x) { return !std::isfinite(x) || x < kSmallestProbability; });
    if (bad == one + classes)
      fail_row(slab, Dataset::probabilities, i / passes,
               fmt::format("{}: expected a sum of 1 within {}, found {}", pass, tolerance, sum));
    fail_row(slab, Dataset::probabilities, i / passes,
             fmt::format("{}, class {}: expected a finite number that is at least {}, found {}", pass, bad - one,
                         kSmallestProbability, *bad));
  }
}

void PoolFiles::Impl::check_logits(const Slab& slab, double* p) const {
  const std::int64_t classes = slab.column.width, per_row = slab.column.per_row(), elements = slab.count * per_row;
  if (!all_finite(p, elements)) {
    const std::int64_t at = std::find_if(p, p + elements, [](double x) { return !std::isfinite(x); }) - p;
    fail_row(slab, Dataset::probabilities, at / per_row, fmt::format(": expected finite numbers, found {}", p[at]));
  }
  for (std::int64_t i = 0; i < elements; i += classes) softmax(p + i, classes);
}

void PoolFiles::read_probabilities(std::int64_t first, std::int64_t count, std::span<double> out) const {
  const std::int64_t per_row = impl_->shape.classes * std::max<std::int64_t>(impl_->shape.passes, 1);
  require(static_cast<std::int64_t>(out.size()) == count * per_row, "room for the probabilities asked for");
  impl_->read_slabs(Dataset::probabilities, first, count, static_cast<std::size_t>(per_row) * sizeof(double),
                    [&](const Impl::Slab& slab) {
                      double* p = out.data() + slab.offset * per_row;
                      impl_->read_floats(slab, Dataset::probabilities, p);
                      if (slab.column.alternative)
                        impl_->check_logits(slab, p);
                      else
                        impl_->check_distributions(slab, p);
                    });
}

std::vector<std::int64_t> PoolFiles::read_integers(Dataset dataset, std::int64_t first, std::int64_t count) const {
  std::vector<std::int64_t> values(static_cast<std::size_t>(count));
  impl_->read_slabs(dataset, first, count, sizeof(std::int64_t), [&](const Impl::Slab& slab) {
    std::int64_t* rows = values.data() + slab.offset;
    const bool is_unsigned = slab.column.kind == Kind::unsigned_64;
    impl_->read_raw(slab, dataset, is_unsigned ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64, rows);
    if (!is_unsigned) return;
    const std::int64_t at = std::find_if(rows, rows + slab.count, [](std::int64_t x) { return x < 0; }) - rows;
    if (at < slab.count)
      impl_->fail_row(
          slab, dataset, at,
          fmt::format(": expected an integer that fits int64, found {}", static_cast<std::uint64_t>(rows[at])));
  });
  return values;
}

std::vector<std::string> PoolFiles::read_text_ids(std::int64_t first, std::int64_t count) const {
  std::vector<std::string> texts;
  texts.reserve(static_cast<std::size_t>(count));
  constexpr std::size_t typical_bytes = 64;
  impl_->read_slabs(Dataset::ids, first, count, typical_bytes, [&](const Impl::Slab& slab) {
    std::vector<std::string> rows =
        h5::read_text_rows(slab.dataset, static_cast<std::uint64_t>(slab.first), static_cast<std::uint64_t>(slab.count),
                           impl_->paths[slab.file], impl_->name(slab.file, Dataset::ids));
    for (std::size_t i = 0; i < rows.size(); ++i) {
      if (!is_utf8(rows[i]))
        impl_->fail_row(slab, Dataset::ids, static_cast<std::int64_t>(i), ": expected UTF-8, found other bytes");
      texts.push_back(std::move(rows[i]));
    }
  });
  return texts;
}

std::vector<double> PoolFiles::read_costs(std::int64_t first, std::int64_t count) const {
  std::vector<double> costs(static_cast<std::size_t>(count));
  impl_->read_slabs(Dataset::costs, first, count, sizeof(double), [&](const Impl::Slab& slab) {
    double* rows = costs.data() + slab.offset;
    impl_->read_floats(slab, Dataset::costs, rows);
    for (std::int64_t i = 0; i < slab.count; ++i)
      if (!(rows[i] > 0) || !std::isfinite(rows[i]))
        impl_->fail_row(slab, Dataset::costs, i, fmt::format(": expected a finite cost > 0, found {}", rows[i]));
  });
  return costs;
}

// --- the interface ---

PoolFiles::PoolFiles(const Comm& comm, std::vector<std::string> paths, const DatasetNames& names, const Needs& needs)
    : impl_(std::make_unique<Impl>()) {
  impl_->paths = std::move(paths);
  impl_->names = names;
  impl_->headers = read_headers(comm, impl_->paths, names);
  comm.agree([&] { impl_->settle(needs); });
}
PoolFiles::PoolFiles(PoolFiles&&) noexcept = default;
PoolFiles& PoolFiles::operator=(PoolFiles&&) noexcept = default;
PoolFiles::~PoolFiles() = default;

const PoolShape& PoolFiles::shape() const {
  return impl_->shape;
}
const std::vector<std::string>& PoolFiles::paths() const {
  return impl_->paths;
}
std::int64_t PoolFiles::first_row_of(std::size_t file) const {
  return impl_->first_rows[file];
}

std::string PoolFiles::where(std::int64_t row) const {
  const std::size_t file = impl_->file_of(row);
  return fmt::format("{} row {}", impl_->paths[file], row - impl_->first_rows[file]);
}
std::string PoolFiles::where(std::int64_t row, Dataset dataset) const {
  const std::size_t file = impl_->file_of(row);
  return fmt::format("{}: dataset \"{}\", row {}", impl_->paths[file], impl_->name(file, dataset),
                     row - impl_->first_rows[file]);
}

Ownership::Ownership(std::int64_t rows, int rank, int ranks) : rows_(rows), ranks_(ranks) {
  constexpr std::int64_t tile = 256;
  const std::int64_t tiles = (rows + tile - 1) / tile;
  run_length_ = tile * std::clamp<std::int64_t>(tiles / (4 * ranks), 1, 256);
  for (std::int64_t first = rank * run_length_; first < rows; first += ranks * run_length_) {
    runs_.push_back({first, std::min(run_length_, rows - first)});
    own_ += runs_.back().count;
  }
}

int Ownership::owner(std::int64_t row) const {
  return static_cast<int>(row / run_length_ % ranks_);
}

std::int64_t Ownership::local(std::int64_t row) const {
  return row / run_length_ / ranks_ * run_length_ + row % run_length_;
}

}  // namespace seine
