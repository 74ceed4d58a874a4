#include "cli/options.hpp"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>

#include "cli/config.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

constexpr int kColumn = 32;  // where the meanings start in --help

std::vector<std::string> split(const std::string& words) {
  std::vector<std::string> all;
  for (std::size_t at = 0; at <= words.size();) {
    const std::size_t end = std::min(words.find('|', at), words.size());
    all.push_back(words.substr(at, end - at));
    at = end + 1;
  }
  return all;
}

std::string limits_in_words(const Limits& limits) {
  if (std::isinf(limits.low)) return "";
  if (std::isinf(limits.high)) return fmt::format(" {} {}", limits.open ? ">" : ">=", limits.low);
  return fmt::format(" from {} to {}", limits.low, limits.high);
}

}  // namespace

template <class T>
T parse_number(std::string_view option, const std::string& text, const Limits& limits) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stop, fault] = std::from_chars(text.data(), end, value);
  bool fits = fault == std::errc{} && stop == end && limits.allow(static_cast<double>(value));
  if constexpr (std::is_floating_point_v<T>) fits = fits && std::isfinite(value);
  if (fits) return value;
  throw Error(Exit::usage, fmt::format("{}: expected {} number{}, found \"{}\"{}", option,
                                       std::is_floating_point_v<T> ? "a finite" : "a whole", limits_in_words(limits),
                                       text, fault == std::errc::result_out_of_range ? ", which is out of range" : ""));
}
template int parse_number<int>(std::string_view, const std::string&, const Limits&);
template std::int64_t parse_number<std::int64_t>(std::string_view, const std::string&, const Limits&);
template std::uint64_t parse_number<std::uint64_t>(std::string_view, const std::string&, const Limits&);
template double parse_number<double>(std::string_view, const std::string&, const Limits&);

std::pair<std::string, std::string> parse_pair(std::string_view option, const std::string& text) {
  const std::size_t sign = text.find('=');
  if (sign == 0 || sign == std::string::npos)
    throw Error(Exit::usage, fmt::format("{}: expected KEY=VALUE, found \"{}\"", option, text));
  return {text.substr(0, sign), text.substr(sign + 1)};
}

Options::Options(std::string command, std::string summary, std::string examples)
    : command_(std::move(command)), app_(std::make_unique<CLI::App>(std::move(summary))) {
  app_->set_help_flag();  // without this CLI11 declares its own, in a group of its own
  app_->get_formatter()->column_width(kColumn);
  app_->footer(std::move(examples));
}

Options::~Options() = default;

Option& Options::add(Option::Kind kind, std::string name, const std::string& placeholder, std::string meaning,
                     std::function<void(const std::vector<std::string>&)> take) {
  Option option{std::move(name), kind, group_ == kRequired, std::move(take), nullptr};
  CLI::Option* const parser = kind == Option::Kind::flag
                                  ? app_->add_flag(option.label(), std::as_const(meaning))
                                  : app_->add_option(option.label(), CLI::callback_t{}, std::move(meaning));
  // Repetition is judged by parse(), in words of ours.
  parser->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  if (kind == Option::Kind::list) parser->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args();
  if (!placeholder.empty()) parser->option_text(placeholder);
  parser->group(group_);
  if (option.required) usage_ += fmt::format(" {} {}", option.label(), placeholder);
  option.parser = parser;
  return options_.emplace_back(std::move(option));
}

void Options::show_default(const Option& option, const std::string& value) {
  option.parser->description(fmt::format("{} [{}]", option.parser->get_description(), value));
}

void Options::text(std::string name, std::string placeholder, std::string& value, std::string meaning) {
  const Option& option = add(Option::Kind::text, std::move(name), placeholder, std::move(meaning),
                             [&value](const std::vector<std::string>& given) { value = given.front(); });
  if (!value.empty()) show_default(option, value);
}

void Options::text(std::string name, std::string placeholder, std::optional<std::string>& value, std::string meaning) {
  add(Option::Kind::text, std::move(name), placeholder, std::move(meaning),
      [&value](const std::vector<std::string>& given) { value = given.front(); });
}

void Options::list(std::string name, std::string placeholder, std::vector<std::string>& values, std::string meaning) {
  add(Option::Kind::list, std::move(name), placeholder, std::move(meaning),
      [&values](const std::vector<std::string>& given) { values = given; });
}

void Options::pairs(std::string name, std::map<std::string, std::string>& values, std::string meaning) {
  add(Option::Kind::pairs, name, "KEY=VALUE", std::move(meaning), [&values, name](const auto& given) {
    for (const std::string& text : given) {
      const auto [key, value] = parse_pair("--" + name, text);
      if (!values.emplace(key, value).second)
        throw Error(Exit::usage, fmt::format("--{}: \"{}\" is given twice", name, key));
    }
  });
}

void Options::flag(std::string name, bool& value, std::string meaning) {
  add(Option::Kind::flag, std::move(name), "", std::move(meaning), [&value](const auto&) { value = true; });
}

void Options::word(std::string name, std::string words, std::string& value, std::string meaning,
                   const std::vector<std::string>& hidden) {
  const Option& option = add(Option::Kind::text, name, words, std::move(meaning),
                             [&value, words, name, hidden](const std::vector<std::string>& given) {
                               position("--" + name, words, given.front(), hidden);
                               value = given.front();
                             });
  show_default(option, value);
}

void Options::positional(std::string placeholder, std::optional<std::string>& value, std::string meaning) {
  add(Option::Kind::bare, std::move(placeholder), "", std::move(meaning),
      [&value](const std::vector<std::string>& given) { value = given.front(); });
}

bool Options::parse(const std::vector<std::string>& arguments) {
  group("Configuration");
  text("config", "FILE.toml", config_, "every option as a key, e.g. batch = 1000;\nthe command line wins");
  CLI::Option* const help_flag = app_->set_help_flag("-h,--help", "print this and exit")->group("Configuration");
  app_->allow_extras();  // they are named in words of ours
  try {
    app_->parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));  // CLI11 reads from the back
  } catch (const CLI::CallForHelp&) {
    return false;
  } catch (const CLI::ArgumentMismatch& error) {
    const std::string text = error.what();  // "--name: 1 required  missing"
    throw Error(Exit::usage, fmt::format("{}: the value is missing", text.substr(0, text.find(':'))));
  } catch (const CLI::ParseError& error) {
    throw Error(Exit::usage, fmt::format("{}; see {} --help", error.what(), command_));
  }
  if (help_flag->count() > 0) return false;
  if (const auto extra = app_->remaining(); !extra.empty())
    throw Error(Exit::usage, fmt::format("{} \"{}\"; see {} --help",
                                         extra.front().starts_with('-') ? "unknown option" : "unexpected argument",
                                         extra.front(), command_));

  for (Option& option : options_) {
    option.values = option.parser->results();
    const bool is_repeatable = option.kind == Option::Kind::list || option.kind == Option::Kind::pairs;
    if (option.values.size() > 1 && !is_repeatable)
      throw Error(Exit::usage, fmt::format("{} is given twice", option.label()));
    if (option.kind == Option::Kind::flag && option.given() && option.values.front() != "true" &&
        option.values.front() != "false")
      throw Error(Exit::usage, fmt::format("{}: expected no value, or true or false", option.label()));
    if (option.name == "config" && option.given()) config_ = option.values.front();
  }
  if (given("config")) read_config(config_, options_);
  for (Option& option : options_)  // --flag=false has taken back what the file says
    if (option.kind == Option::Kind::flag && option.given() && option.values.front() == "false") option.values.clear();

  for (const Option& option : options_) {
    if (option.required && !option.given())
      throw Error(Exit::usage, fmt::format("{} is required; see {} --help", option.label(), command_));
    // Numbers and words say themselves what they expect.
    const bool is_free = option.kind == Option::Kind::text || option.kind == Option::Kind::list;
    if (is_free && std::count(option.values.begin(), option.values.end(), ""))
      throw Error(Exit::usage, fmt::format("{}: the value is empty", option.label()));
  }
  for (const Option& option : options_)
    if (option.given()) option.take(option.values);
  return true;
}

std::string Options::help() const {
  app_->name(command_ + usage_);
  // CLI11 parts its groups with two empty lines.
  return CLI::detail::find_and_replace(app_->help(), "\n\n\n", "\n\n");
}

bool Options::given(std::string_view name) const {
  return std::any_of(options_.begin(), options_.end(),
                     [&](const Option& option) { return option.name == name && option.given(); });
}

std::string Options::typed(std::initializer_list<std::string_view> without) const {
  const auto quoted = [](const std::string& word) {
    constexpr std::string_view plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./=:,+-@%";
    if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
    return "'" + CLI::detail::find_and_replace(word, "'", "'\\''") + "'";
  };
  std::string text;
  for (const Option& option : options_) {
    if (!option.given() || option.name == "config") continue;
    if (std::find(without.begin(), without.end(), option.name) != without.end()) continue;
    text += (text.empty() ? "" : " ") + option.label();
    if (option.kind == Option::Kind::flag) continue;
    for (std::size_t i = 0; i < option.values.size(); ++i) {
      if (i > 0 && option.kind == Option::Kind::pairs) text += " " + option.label();
      text += " " + quoted(option.values[i]);
    }
  }
  return text;
}

std::size_t Options::position(std::string_view option, const std::string& words, const std::string& word,
                              const std::vector<std::string>& hidden) {
  const std::vector<std::string> known = split(words);
  const auto found = std::find(known.begin(), known.end(), word);
  if (found == known.end() && !std::count(hidden.begin(), hidden.end(), word))
    throw Error(Exit::usage, fmt::format("{}: expected one of {}, found \"{}\"", option, fmt::join(known, ", "), word));
  return static_cast<std::size_t>(found - known.begin());
}

std::string Options::word_at(const std::string& words, std::size_t position) {
  return split(words).at(position);
}

}  // namespace seine
