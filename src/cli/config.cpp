#include "cli/config.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <set>

#include "file_content.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

toml::table parse(const std::string& path) {
  const std::optional<std::string> text = read_file(path);
  if (!text) throw Error(Exit::no_input, fmt::format("{}: {}", path, std::strerror(ENOENT)));
  try {
    return toml::parse(*text, path);
  } catch (const toml::parse_error& error) {
    throw Error(Exit::usage, fmt::format("{}:{}: not valid TOML: {}", path, error.source().begin.line,
                                         std::string(error.description())));
  }
}

// A single value as the command line would write it; nothing for tables, arrays and dates.
std::optional<std::string> scalar(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* whole = node.as_integer()) return fmt::to_string(whole->get());
  if (const auto* real = node.as_floating_point()) return fmt::to_string(real->get());
  if (const auto* flag = node.as_boolean()) return flag->get() ? "true" : "false";
  return std::nullopt;
}

bool is_texts(const toml::node& node) {
  const auto* array = node.as_array();
  return array && std::all_of(array->begin(), array->end(), [](const toml::node& item) { return item.is_string(); });
}

std::vector<std::string> texts(const toml::node& node) {
  std::vector<std::string> all;
  for (const toml::node& item : *node.as_array()) all.push_back(item.as_string()->get());
  return all;
}

// The value of one key as the words of a command line; nothing where its type is wrong.
std::optional<std::vector<std::string>> words_of(const Option& option, const toml::node& node) {
  using Words = std::vector<std::string>;
  switch (option.kind) {
    case Option::Kind::flag:
      if (!node.is_boolean()) return std::nullopt;
      return node.as_boolean()->get() ? Words{"true"} : Words{};
    case Option::Kind::whole:
      // Text as well: TOML's integers end at 2^63 - 1, seeds do not.
      if (!node.is_integer() && !(option.name == "seed" && node.is_string())) return std::nullopt;
      return Words{*scalar(node)};
    case Option::Kind::real:
      if (!node.is_number()) return std::nullopt;
      return Words{*scalar(node)};
    case Option::Kind::text:
      if (!node.is_string()) return std::nullopt;
      return Words{*scalar(node)};
    case Option::Kind::list:
      if (node.is_string()) return Words{*scalar(node)};
      if (!is_texts(node)) return std::nullopt;
      return texts(node);
    case Option::Kind::pairs: {
      if (is_texts(node)) return texts(node);
      if (!node.is_table()) return std::nullopt;
      Words words;
      for (const auto& [key, value] : *node.as_table()) {
        const std::optional<std::string> text = scalar(value);
        if (!text) return std::nullopt;
        words.push_back(fmt::format("{}={}", key.str(), *text));
      }
      return words;
    }
    case Option::Kind::bare:
      break;  // has no key
  }
  return std::nullopt;
}

std::string expected(Option::Kind kind) {
  switch (kind) {
    case Option::Kind::flag:
      return "true or false";
    case Option::Kind::whole:
      return "a whole number";
    case Option::Kind::real:
      return "a number";
    case Option::Kind::text:
      return "a text";
    case Option::Kind::list:
      return "a text or an array of texts";
    case Option::Kind::pairs:
      return "a table or an array of \"KEY=VALUE\" texts";
    case Option::Kind::bare:
      break;
  }
  return "";
}

// The command line wins: a list as a whole, pairs key by key.
void merge(Option& option, const std::vector<std::string>& words) {
  if (option.kind != Option::Kind::pairs) {
    if (!option.given()) option.values = words;
    return;
  }
  std::set<std::string> taken;
  for (const std::string& text : option.values) taken.insert(parse_pair(option.label(), text).first);
  for (const std::string& text : words)
    if (!taken.contains(parse_pair(option.label(), text).first)) option.values.push_back(text);
}

bool is_key(const Option& option) {
  return option.name != "config" && !option.is_bare();
}

std::string known_keys(const std::vector<Option>& options) {
  std::vector<std::string> names;
  for (const Option& option : options)
    if (is_key(option)) names.push_back(option.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

void read_config(const std::string& path, std::vector<Option>& options) {
  const toml::table table = parse(path);
  std::set<std::string> seen;
  for (const auto& [key, node] : table) {
    std::string name(key.str());
    std::replace(name.begin(), name.end(), '_', '-');
    const auto option = std::find_if(options.begin(), options.end(),
                                     [&](const Option& known) { return is_key(known) && known.name == name; });
    const auto where = fmt::format("{}:{}", path, node.source().begin.line);
    if (option == options.end())
      throw Error(Exit::usage,
                  fmt::format("{}: unknown key \"{}\"; known are {}", where, key.str(), known_keys(options)));
    if (!seen.insert(name).second) throw Error(Exit::usage, fmt::format("{}: \"{}\" is given twice", where, name));
    const auto words = words_of(*option, node);
    if (!words)
      throw Error(Exit::usage, fmt::format("{}: \"{}\": expected {}", where, key.str(), expected(option->kind)));
    merge(*option, *words);
  }
}

}  // namespace seine
