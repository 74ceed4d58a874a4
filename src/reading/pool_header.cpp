#include "reading/pool_header.hpp"

#include <fmt/format.h>

#include <utility>

#include "reading/fence.hpp"
#include "reading/hdf5.hpp"
#include "reading/virtual_dataset.hpp"

namespace seine {
namespace {

bool is_float(Kind kind) {
  return kind == Kind::f16 || kind == Kind::f32 || kind == Kind::f64;
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
  std::size_t bytes = chunk[0] * element_bytes;
  for (std::size_t i = 1; i < shape.size(); ++i) {
    bytes *= chunk[i];
    column.narrow_chunks = column.narrow_chunks || chunk[i] < shape[i];
  }
  // The library reads rows out of a chunk that is stored as it is, but piece by piece where they are not together.
  if (column.narrow_chunks || H5Pget_nfilters(properties) > 0) column.chunk_bytes = static_cast<std::int64_t>(bytes);
}

// Where the rows start in the file, if they can be read without the library.
std::int64_t offset_of(hid_t dataset, hid_t type, hid_t properties, Kind kind, const std::string& path) {
  const hid_t plain = kind == Kind::f32           ? H5T_IEEE_F32LE
                      : kind == Kind::f64         ? H5T_IEEE_F64LE
                      : kind == Kind::integer     ? H5T_STD_I64LE
                      : kind == Kind::unsigned_64 ? H5T_STD_U64LE
                                                  : H5I_INVALID_HID;
  const bool is_plain = kind == Kind::f16 ? !h5::is_big_endian(type) : plain >= 0 && H5Tequal(type, plain) > 0;
  if (!is_plain || H5Pget_layout(properties) != H5D_CONTIGUOUS || H5Pget_external_count(properties) != 0) return -1;
  if (h5::file_of(dataset) != path) return -1;
  const haddr_t offset = H5Dget_offset(dataset);  // undefined before the first row is written
  return offset == HADDR_UNDEF ? -1 : static_cast<std::int64_t>(offset);
}

std::string found_form(const std::vector<hsize_t>& shape, hid_t type) {
  return fmt::format("{} of {}", h5::text_of(shape), describe_type(type));
}

// --- headers ---

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
  h5::check_extent(opened.get(), path, name);
  if (shape.size() > 1) column.width = static_cast<std::int64_t>(shape.back());
  if (shape.size() == 3) column.passes = static_cast<std::int64_t>(shape[1]);

  const h5::Id properties(H5Dget_create_plist(opened.get()), H5Pclose);
  const H5D_layout_t layout = H5Pget_layout(properties.get());
  if (layout == H5D_VIRTUAL) check_virtual(properties.get(), shape, path, name);
  if (layout == H5D_CHUNKED) read_chunking(column, properties.get(), shape, H5Tget_size(type.get()));
  column.offset = offset_of(opened.get(), type.get(), properties.get(), column.kind, path);
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
  }
}

// A name that the user chose must be there; a default need not.
void check_chosen_names(hid_t file, const DatasetNames& names, const std::string& path) {
  const DatasetNames usual;
  const auto check = [&](const std::string& name, const std::string& usual_name) {
    if (name != usual_name && !h5::exists(file, name))
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is missing", path, name));
  };
  for (Dataset dataset : kEveryDataset)
    if (dataset != Dataset::labels || names.labels != "none") check(name_in(names, dataset), name_in(usual, dataset));
  check(names.logits, usual.logits);
}

bool is_wanted(Dataset dataset, const DatasetNames& names) {
  return dataset != Dataset::labels || names.labels != "none";
}

// Everything that the library finds its way by, and the rows that it reads without a check: all that it crashes on.
void try_file(const std::string& path, const DatasetNames& names, const SayNext& say_next) {
  const h5::Id file = h5::open_file(path);
  for (Dataset dataset : kEveryDataset) {
    if (!is_wanted(dataset, names)) continue;
    say_next(name_in(names, dataset));
    FileHeader header;
    read_column(header, file.get(), dataset, names, path);
    const Column& column = header.column(dataset);
    if (column.fault_code == Exit::system) throw Error(column.fault_code, header.fault_of(dataset));
    if (!column.present || !header.fault_of(dataset).empty()) continue;
    const std::string name = name_in_file(names, dataset, column.alternative);
    h5::try_rows(h5::open_dataset(file.get(), name, path).get(), path, name);
  }
}

FileHeader read_header(std::int64_t number, const std::string& path, const DatasetNames& names) {
  FileHeader header;
  header.header.file = number;
  try {
    try_in_child(path, [&](const SayNext& say_next) { try_file(path, names, say_next); });
    const h5::Id file = h5::open_file(path);
    check_chosen_names(file.get(), names, path);
    for (Dataset dataset : kEveryDataset)
      if (is_wanted(dataset, names)) read_column(header, file.get(), dataset, names, path);
  } catch (const Error& error) {
    header.header.fault_code = error.code();
    header.fault = error.what();
  }
  return header;
}

}  // namespace

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

std::vector<FileHeader> read_headers(const Comm& comm, const std::vector<std::string>& paths,
                                     const DatasetNames& names) {
  std::vector<Header> mine;
  std::vector<std::string> texts;  // of each header: its own fault, then those of its datasets
  comm.agree([&] {
    for (std::size_t file = static_cast<std::size_t>(comm.rank()); file < paths.size();
         file += static_cast<std::size_t>(comm.size())) {
      FileHeader header = read_header(static_cast<std::int64_t>(file), paths[file], names);
      mine.push_back(header.header);
      texts.push_back(std::move(header.fault));
      for (std::string& fault : header.faults) texts.push_back(std::move(fault));
    }
  });
  const std::vector<Header> all = comm.gather(std::span<const Header>(mine));
  std::vector<std::string> all_texts = comm.gather(std::span<const std::string>(texts));
  std::vector<FileHeader> headers(paths.size());
  auto text = all_texts.begin();
  for (const Header& header : all) {
    FileHeader& file = headers[static_cast<std::size_t>(header.file)];
    file.header = header;
    file.fault = std::move(*text++);
    for (std::string& fault : file.faults) fault = std::move(*text++);
  }
  return headers;
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

}  // namespace seine
