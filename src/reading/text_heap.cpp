#include "reading/text_heap.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "reading/hdf5.hpp"
#include "reading/raw_file.hpp"
#include "seine/error.hpp"

namespace seine::h5 {
namespace {

// A conversion "from strings to opaque bytes" that leaves the bytes of the file as they are. The library finds it by
// the two classes of types.
herr_t keep_reference(hid_t from, hid_t to, H5T_cdata_t* conversion, std::size_t, std::size_t, std::size_t, void*,
                      void*, hid_t) {
  if (conversion->command != H5T_CONV_INIT) return 0;
  conversion->need_bkg = H5T_BKG_NO;
  return H5Tis_variable_str(from) > 0 && H5Tget_size(from) == H5Tget_size(to) ? 0 : -1;
}

Id reference_type(std::size_t size) {
  Id type(H5Tcreate(H5T_OPAQUE, size), H5Tclose);
  [[maybe_unused]] static const herr_t registered =  // once, or the library tries each of them
      H5Tregister(H5T_PERS_SOFT, "heap reference", text_type().get(), type.get(), keep_reference);
  return type;
}

std::uint64_t number_at(std::string_view bytes, std::size_t at, std::size_t width) {
  std::uint64_t value = 0;
  for (std::size_t i = width; i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

class Heap {
 public:
  Heap(hid_t dataset, const std::string& path, const std::string& name)
      : path_(path), name_(name), file_(file_of(dataset)) {
    const Id file(H5Iget_file_id(dataset), H5Fclose);
    const Id properties(H5Fget_create_plist(file.get()), H5Pclose);
    H5Pget_sizes(properties.get(), &address_bytes_, &size_bytes_);
    H5Pget_userblock(properties.get(), &base_);
    H5Fget_filesize(file.get(), &file_size_);
  }

  std::size_t reference_bytes() const { return 4 + address_bytes_ + 4; }

  std::string text(std::string_view reference, std::uint64_t row) {
    const std::uint64_t length = number_at(reference, 0, 4), address = number_at(reference, 4, address_bytes_);
    if (address == 0 || length == 0) return "";  // never written, or empty
    const Collection& collection = collection_at(address, row);
    const std::uint64_t number = number_at(reference, 4 + address_bytes_, 4);
    const bool is_there = number > 0 && number < collection.objects.size();
    const std::string_view object = is_there ? collection.objects[number] : std::string_view();
    if (length > object.size()) fail(row, "a reference to a string that is not there");
    const std::string_view text = object.substr(0, length);
    return std::string(text.substr(0, text.find('\0')));
  }

 private:
  struct Collection {
    std::string bytes;
    std::vector<std::string_view> objects;  // by number, into `bytes`
  };

  [[noreturn]] void fail(std::uint64_t row, std::string_view found) const {
    throw Error(Exit::bad_data,
                fmt::format("{}: dataset \"{}\", row {}: expected a string, found {}", path_, name_, row, found));
  }

  const Collection& collection_at(std::uint64_t address, std::uint64_t row) {
    if (const auto known = collections_.find(address); known != collections_.end()) return known->second;
    constexpr std::size_t most_bytes = std::size_t{64} << 20;
    if (kept_bytes_ > most_bytes) {
      collections_.clear();
      kept_bytes_ = 0;
    }
    Collection& collection = collections_[address];
    collection.bytes = bytes_at(address, row);
    kept_bytes_ += collection.bytes.size();
    find_objects(collection, row);
    return collection;
  }

  // "GCOL", version, three zero bytes, size of the whole; then objects.
  std::string bytes_at(std::uint64_t address, std::uint64_t row) {
    const std::size_t header = 8 + size_bytes_;
    if (address > file_size_ || base_ + header > file_size_ - address) fail(row, "a reference behind the file's end");
    const std::uint64_t from = base_ + address, there = file_size_ - from;
    constexpr std::uint64_t usual_bytes = 4096;
    std::string bytes(std::min(there, usual_bytes), '\0');
    file_.read(static_cast<std::int64_t>(from), bytes.size(), bytes.data(), path_, name_);
    if (!bytes.starts_with(std::string_view("GCOL\1", 5))) fail(row, "a reference to something else");
    const std::uint64_t size = number_at(bytes, 8, size_bytes_);
    if (size < header || size > there) fail(row, "a heap of an impossible size");
    const std::size_t read = std::min<std::size_t>(bytes.size(), size);
    bytes.resize(size);
    if (size > read) file_.read(static_cast<std::int64_t>(from + read), size - read, bytes.data() + read, path_, name_);
    return bytes;
  }

  // An object: number, references to it, four zero bytes, size, content, up to a multiple of 8. Number 0 is free space.
  void find_objects(Collection& collection, std::uint64_t row) const {
    const std::string_view bytes = collection.bytes;
    const std::size_t header = 8 + size_bytes_;
    for (std::size_t at = header; at + header <= bytes.size();) {
      const std::uint64_t number = number_at(bytes, at, 2), size = number_at(bytes, at + 8, size_bytes_);
      if (number == 0) return;
      const std::size_t left = bytes.size() - at - header;
      if (size > left) fail(row, "a heap with a string of an impossible size");
      if (number >= collection.objects.size()) collection.objects.resize(number + 1);
      collection.objects[number] = bytes.substr(at + header, size);
      at += header + std::min<std::size_t>((size + 7) / 8 * 8, left);
    }
  }

  const std::string &path_, &name_;
  const RawFile file_;
  std::size_t address_bytes_ = 8, size_bytes_ = 8;
  hsize_t base_ = 0, file_size_ = 0;
  std::unordered_map<std::uint64_t, Collection> collections_;
  std::size_t kept_bytes_ = 0;
};

}  // namespace

std::vector<std::string> read_heap_texts(hid_t dataset, std::uint64_t first, std::uint64_t count,
                                         const std::string& path, const std::string& name) {
  Heap heap(dataset, path, name);
  const std::size_t size = heap.reference_bytes();
  std::string references(count * size, '\0');
  read_rows(dataset, reference_type(size).get(), first, count, references.data(), path, name);
  std::vector<std::string> texts;
  texts.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i)
    texts.push_back(heap.text(std::string_view(references).substr(i * size, size), first + i));
  return texts;
}

}  // namespace seine::h5
