// The options of one command. One option is one line: its name, its placeholder, where its value goes, what it means.
// The command line, the configuration file and --help all go through this list.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace seine {

// The values that a number may have.
struct Limits {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open = false;  // `low` itself is not allowed

  bool allow(double value) const { return (open ? value > low : value >= low) && value <= high; }
};
inline Limits any_number() {
  return {};
}
inline Limits at_least(double low) {
  return {low};
}
inline Limits above(double low) {
  return {low, std::numeric_limits<double>::infinity(), true};
}
inline Limits between(double low, double high) {
  return {low, high};
}

// Strict: the whole text is one finite number that fits T and the limits. Error 64 that names the option.
template <class T>
T parse_number(std::string_view option, const std::string& text, const Limits& limits);

// "KEY=VALUE" as a pair; error 64 that names the option.
std::pair<std::string, std::string> parse_pair(std::string_view option, const std::string& text);

struct Option {
  enum class Kind { flag, whole, real, text, list, pairs, bare };  // bare: a word not behind a name

  std::string name;  // without the dashes: its key in a configuration file
  Kind kind;
  bool required;
  std::function<void(const std::vector<std::string>&)> take;
  CLI::Option* parser;
  std::vector<std::string> values = {};  // as written; empty: not given

  bool is_bare() const { return kind == Kind::bare; }
  std::string label() const { return is_bare() ? name : "--" + name; }  // in messages
  bool given() const { return !values.empty(); }
};

class Options {
 public:
  Options(std::string command, std::string summary, std::string examples);
  ~Options();
  Options(const Options&) = delete;
  Options& operator=(const Options&) = delete;

  void required() { group(kRequired); }              // the options declared next must be given
  void group(std::string title) { group_ = title; }  // their heading in --help; "": hidden

  // T: a number, or std::optional of one. A value that is already allowed is shown as the default.
  template <class T>
  void number(std::string name, std::string placeholder, T& value, Limits limits, std::string meaning);
  void text(std::string name, std::string placeholder, std::string& value, std::string meaning);
  void text(std::string name, std::string placeholder, std::optional<std::string>& value, std::string meaning);
  // One or more values, repeatable.
  void list(std::string name, std::string placeholder, std::vector<std::string>& values, std::string meaning);
  // KEY=VALUE, repeatable; a key only once.
  void pairs(std::string name, std::map<std::string, std::string>& values, std::string meaning);
  void flag(std::string name, bool& value, std::string meaning);
  // One of the words of `words`, "a|b|c"; `hidden` are further ones that --help does not show.
  void word(std::string name, std::string words, std::string& value, std::string meaning,
            const std::vector<std::string>& hidden = {});
  // The i-th word stands for the i-th of `values`.
  template <class T>
  void choice(std::string name, std::string words, T& value, std::vector<T> values, std::string meaning);
  // A word that is not behind a name.
  void positional(std::string placeholder, std::optional<std::string>& value, std::string meaning);

  // Takes the values from the command line, then from the file of --config. False: --help was asked for, and no value
  // has been taken. Errors: 64 wrong usage, 66 no such configuration file.
  bool parse(const std::vector<std::string>& arguments);
  std::string help() const;
  bool given(std::string_view name) const;
  // The options that were given, as one would type them, but for some.
  std::string typed(std::initializer_list<std::string_view> without) const;

 private:
  static constexpr const char* kRequired = "Required";

  Option& add(Option::Kind kind, std::string name, const std::string& placeholder, std::string meaning,
              std::function<void(const std::vector<std::string>&)> take);
  void show_default(const Option& option, const std::string& value);
  static std::size_t position(std::string_view option, const std::string& words, const std::string& word,
                              const std::vector<std::string>& hidden);
  static std::string word_at(const std::string& words, std::size_t position);

  std::string command_, group_, config_;
  std::string usage_;  // the required options
  std::unique_ptr<CLI::App> app_;
  std::vector<Option> options_;
};

template <class T>
struct NumberOf {
  using Type = T;
};
template <class T>
struct NumberOf<std::optional<T>> {
  using Type = T;
};

template <class T>
void Options::number(std::string name, std::string placeholder, T& value, Limits limits, std::string meaning) {
  using Number = typename NumberOf<T>::Type;
  const auto kind = std::is_floating_point_v<Number> ? Option::Kind::real : Option::Kind::whole;
  const Option& option =
      add(kind, name, placeholder, std::move(meaning), [&value, limits, name](const std::vector<std::string>& given) {
        value = parse_number<Number>("--" + name, given.front(), limits);
      });
  if constexpr (std::is_same_v<T, Number>) {
    if (limits.allow(static_cast<double>(value))) show_default(option, fmt::to_string(value));
  }
}

template <class T>
void Options::choice(std::string name, std::string words, T& value, std::vector<T> values, std::string meaning) {
  const Option& option = add(Option::Kind::text, name, words, std::move(meaning),
                             [&value, values, words, name](const std::vector<std::string>& given) {
                               value = values.at(position("--" + name, words, given.front(), {}));
                             });
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] == value) show_default(option, word_at(words, i));
}

}  // namespace seine
