#include "reading/virtual_dataset.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "seine/error.hpp"

namespace seine {
namespace {

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

constexpr int kMostLevels = 16;  // the library goes round in circles until its stack ends

void check_levels(hid_t properties, const std::vector<hsize_t>& shape, const std::string& path, const std::string& name,
                  int level);

void check_source(hid_t properties, std::size_t mapping, hssize_t elements, const std::string& path,
                  const std::string& name, int level) {
  const std::string file_name = virtual_text(properties, mapping, H5Pget_virtual_filename);
  const std::string dataset_name = virtual_text(properties, mapping, H5Pget_virtual_dsetname);
  if (file_name.find("%b") != std::string::npos || dataset_name.find("%b") != std::string::npos) return;  // a series
  try {
    const std::string source = source_path(file_name, path);
    const h5::Id file = h5::open_file(source);
    const h5::Id dataset = h5::open_dataset(file.get(), dataset_name, source);
    h5::check_extent(dataset.get(), source, dataset_name);
    const h5::Id selection(H5Pget_virtual_srcspace(properties, mapping), H5Sclose);
    if (!holds_selection(dataset.get(), selection.get(), elements))
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" has another shape", source, dataset_name));
    const h5::Id inner(H5Dget_create_plist(dataset.get()), H5Pclose);
    if (H5Pget_layout(inner.get()) == H5D_VIRTUAL)
      check_levels(inner.get(), h5::shape_of(dataset.get()), source, dataset_name, level + 1);
  } catch (const Error& error) {
    if (level > 0) throw;  // one frame around the reason is enough
    throw Error(error.code(),
                fmt::format("{}: dataset \"{}\" is virtual, and a source fails: {}", path, name, error.what()));
  }
}

void check_levels(hid_t properties, const std::vector<hsize_t>& shape, const std::string& path, const std::string& name,
                  int level) {
  if (level > kMostLevels)
    throw Error(Exit::bad_data,
                fmt::format("{}: dataset \"{}\" is virtual: expected at most {} levels of virtual sources", path, name,
                            kMostLevels));
  std::size_t mappings = 0;
  H5Pget_virtual_count(properties, &mappings);
  hsize_t mapped = 0, elements = 1;
  bool bounded = true;
  for (std::size_t i = 0; i < mappings; ++i) {
    const h5::Id space(H5Pget_virtual_vspace(properties, i), H5Sclose);
    const hssize_t points = H5Sget_select_npoints(space.get());  // all bits set where unlimited
    check_source(properties, i, points, path, name, level);
    bounded = bounded && points >= 0;
    if (bounded) mapped += static_cast<hsize_t>(points);
  }
  for (hsize_t extent : shape) elements *= extent;
  if (bounded && mapped < elements)
    throw Error(Exit::bad_data, fmt::format("{}: dataset \"{}\" is virtual: expected sources for {} elements, found "
                                            "them for {}",
                                            path, name, elements, mapped));
}

}  // namespace

void check_virtual(hid_t properties, const std::vector<hsize_t>& shape, const std::string& path,
                   const std::string& name) {
  check_levels(properties, shape, path, name, 0);
}

}  // namespace seine
