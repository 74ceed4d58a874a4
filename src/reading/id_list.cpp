#include "reading/id_list.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>

#include "file_content.hpp"
#include "reading/fence.hpp"
#include "reading/hdf5.hpp"
#include "reading/virtual_dataset.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

[[noreturn]] void fail_line(const std::string& path, std::int64_t line, const std::string& what) {
  throw Error(Exit::bad_data, fmt::format("{}: line {}: {}", path, line, what));
}

std::int64_t line_of(std::string_view text, std::size_t at) {
  return 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(std::min(at, text.size())), '\n');
}

std::string text_of(const std::string& path) {
  std::optional<std::string> content = read_file(path);
  if (!content) throw Error(Exit::no_input, path + ": no such file");
  std::string text = std::move(*content);
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.starts_with(byte_order_mark)) text.erase(0, byte_order_mark.size());
  if (const std::size_t nul = text.find('\0'); nul != std::string::npos)
    fail_line(path, line_of(text, nul), "expected text, found a zero byte");
  return text;
}

// Records of RFC 4180. Blank lines between them are skipped.
class CsvReader {
 public:
  CsvReader(const std::string& path, std::string_view text) : path_(path), text_(text) {}

  std::int64_t line() const { return first_line_; }  // where the last record starts

  bool next(std::vector<std::string>& fields) {
    while (at_ < text_.size() && skip_line_end()) continue;
    if (at_ >= text_.size()) return false;
    first_line_ = line_;
    fields.clear();
    do {
      fields.push_back(at_ < text_.size() && text_[at_] == '"' ? quoted() : plain());
    } while (skip_comma());
    return true;
  }

 private:
  bool skip_comma() {
    if (at_ >= text_.size() || skip_line_end()) return false;
    if (text_[at_] != ',') fail_line(path_, line_, "expected a comma or the line's end after a quoted field");
    ++at_;
    return true;
  }
  bool skip_line_end() {
    const bool carriage = text_[at_] == '\r' && at_ + 1 < text_.size() && text_[at_ + 1] == '\n';
    if (!carriage && text_[at_] != '\n') return false;
    at_ += carriage ? 2 : 1;
    ++line_;
    return true;
  }
  std::string quoted() {
    std::string field;
    for (++at_;; ++at_) {
      if (at_ >= text_.size()) fail_line(path_, first_line_, "expected a closing quote, found the end of the file");
      if (text_[at_] == '"') {
        if (at_ + 1 >= text_.size() || text_[at_ + 1] != '"') break;
        ++at_;
      }
      if (text_[at_] == '\n') ++line_;
      field += text_[at_];
    }
    ++at_;
    return field;
  }
  std::string plain() {
    const std::size_t end = std::min(text_.find_first_of(",\"\n", at_), text_.size());
    if (end < text_.size() && text_[end] == '"') fail_line(path_, line_, "found a quote in a field that is not quoted");
    std::string field(text_.substr(at_, end - at_));
    at_ = end;
    if (end < text_.size() && text_[end] == '\n' && field.ends_with('\r')) {
      field.pop_back();
      --at_;
    }
    return field;
  }

  const std::string& path_;
  std::string_view text_;
  std::size_t at_ = 0;
  std::int64_t line_ = 1, first_line_ = 1;
};

std::vector<std::string> ids_of_csv(const std::string& path) {
  const std::string text = text_of(path);
  CsvReader reader(path, text);
  std::vector<std::string> header, fields, ids;
  reader.next(header);
  const auto column = std::find(header.begin(), header.end(), "id");
  if (column == header.end()) fail_line(path, reader.line(), "expected a header with a column `id`, found none");
  if (std::find(column + 1, header.end(), "id") != header.end())
    fail_line(path, reader.line(), "expected one column `id`, found two");
  const auto wanted = static_cast<std::size_t>(column - header.begin());
  while (reader.next(fields)) {
    if (fields.size() != header.size())
      fail_line(path, reader.line(), fmt::format("expected {} fields, found {}", header.size(), fields.size()));
    ids.push_back(std::move(fields[wanted]));
  }
  return ids;
}

std::vector<std::string> ids_of_lines(const std::string& path) {
  std::istringstream text(text_of(path));
  std::vector<std::string> ids;
  for (std::string line; std::getline(text, line);) {
    if (line.ends_with('\r')) line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) ids.push_back(std::move(line));
  }
  return ids;
}

std::vector<std::string> ids_of_json(const std::string& path) {
  const std::string text = text_of(path);
  nlohmann::json content;
  try {
    content = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    fail_line(path, line_of(text, error.byte), "expected JSON, found a syntax error");
  } catch (const nlohmann::json::out_of_range&) {
    throw Error(Exit::bad_data, path + ": expected JSON, found a number beyond those of float64");
  }
  if (!content.is_object() || !content.contains("ids") || !content["ids"].is_array())
    throw Error(Exit::bad_data, path + ": expected a batch file, a JSON object with an array \"ids\"; found none");
  std::vector<std::string> ids;
  for (const nlohmann::json& id : content["ids"]) {
    if (id.is_string())
      ids.push_back(id.get<std::string>());
    else if (id.is_number_integer())
      ids.push_back(id.dump());
    else
      throw Error(Exit::bad_data,
                  fmt::format("{}: \"ids\", entry {}: expected an integer or a string, found {}", path, ids.size(),
                              id.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)));
  }
  return ids;
}

template <class Integer>
std::vector<std::string> integers_as_text(hid_t dataset, hid_t type, std::uint64_t count, const std::string& path) {
  std::vector<Integer> values(count);
  h5::read_rows(dataset, type, 0, count, values.data(), path, "ids");
  std::vector<std::string> texts;
  for (Integer value : values) texts.push_back(std::to_string(value));
  return texts;
}

std::vector<std::string> ids_of_hdf5(const std::string& path) {
  try_in_child(path, [&](const SayNext& say_next) {
    const h5::Id tried = h5::open_file(path);
    say_next("ids");
    const h5::Id ids = h5::open_dataset(tried.get(), "ids", path);
    h5::check_extent(ids.get(), path, "ids");
    h5::try_rows(ids.get(), path, "ids");
  });
  const h5::Id file = h5::open_file(path);
  const h5::Id dataset = h5::open_dataset(file.get(), "ids", path);
  const h5::Id type(H5Dget_type(dataset.get()), H5Tclose);
  const std::vector<hsize_t> shape = h5::shape_of(dataset.get());
  const H5T_class_t kind = H5Tget_class(type.get());
  if (shape.size() != 1 || (kind != H5T_STRING && kind != H5T_INTEGER))
    throw Error(Exit::bad_data, path + ": dataset \"ids\": expected [N] of integers or strings, found another form");
  h5::check_extent(dataset.get(), path, "ids");
  const h5::Id properties(H5Dget_create_plist(dataset.get()), H5Pclose);
  if (H5Pget_layout(properties.get()) == H5D_VIRTUAL) check_virtual(properties.get(), shape, path, "ids");
  if (kind == H5T_STRING) return h5::read_text_rows(dataset.get(), 0, shape[0], path, "ids");
  if (H5Tget_sign(type.get()) == H5T_SGN_NONE)
    return integers_as_text<std::uint64_t>(dataset.get(), H5T_NATIVE_UINT64, shape[0], path);
  return integers_as_text<std::int64_t>(dataset.get(), H5T_NATIVE_INT64, shape[0], path);
}

}  // namespace

std::vector<std::string> read_id_list(const std::string& path) {
  std::string ending = path.substr(std::min(path.rfind('.'), path.size()));
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  if (ending == ".csv") return ids_of_csv(path);
  if (ending == ".h5" || ending == ".hdf5") return ids_of_hdf5(path);
  if (ending == ".json") return ids_of_json(path);
  return ids_of_lines(path);
}

}  // namespace seine
