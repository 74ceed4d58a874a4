// `seine strategies [NAME]`: the table of strategies, or all about one.
#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "cli/command.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

using Json = nlohmann::ordered_json;

std::string_view normalize_of(const Entry& entry) {
  return entry.unit_rows ? "l2" : "none";
}

Json as_json(const Entry& entry) {
  Json object;
  object["name"] = entry.name;
  object["summary"] = entry.summary;
  object["inputs"] = entry.inputs;
  object["parameters"] = Json::array();
  for (const Parameter& parameter : entry.parameters) {
    Json& item = object["parameters"].emplace_back();
    item["name"] = parameter.name;
    item["default"] = parameter.value;
    item["choices"] = parameter.choices;
    item["meaning"] = parameter.meaning;
  }
  object["cost"] = entry.cost;
  object["source"] = entry.source;
  object["certificate"] = certificate_kind(entry.objective);
  object["weights"] = entry.weights;
  object["score"] = entry.score.has_value();
  object["normalize"] = normalize_of(entry);
  return object;
}

std::string to_text(const Entry& entry) {
  std::string text = fmt::format("{}\n  {}\n\n", entry.name, entry.summary);
  const auto line = [&](std::string_view name, std::string_view value) {
    text += fmt::format("  {:<12} {}\n", name, value);
  };
  line("inputs", entry.inputs);
  line("cost", entry.cost);
  line("source", entry.source);
  line("certificate", certificate_kind(entry.objective));
  line("--normalize", fmt::format("default {}", normalize_of(entry)));
  line("weights", entry.weights ? "takes --score-power" : "takes no --score-power");
  if (entry.score) line("score", "usable as --score and in seine score");
  if (entry.parameters.empty()) {
    line("parameters", "none");
    return text;
  }
  text += "\n  parameters (--set KEY=VALUE)\n";
  for (const Parameter& parameter : entry.parameters)
    text += fmt::format("    {}={}  {}: {}\n", parameter.name, parameter.value, parameter.choices, parameter.meaning);
  return text;
}

std::string table() {
  using Row = std::array<std::string_view, 4>;
  std::vector<Row> rows{{"strategy", "certificate", "inputs", "what it does"}};
  for (const Entry& entry : strategies())
    rows.push_back({entry.name, certificate_kind(entry.objective), entry.inputs, entry.summary});
  std::array<std::size_t, 3> width{};
  for (const Row& row : rows)
    for (std::size_t i = 0; i < width.size(); ++i) width[i] = std::max(width[i], row[i].size());
  std::string text;
  for (const Row& row : rows)
    text += fmt::format("{:<{}}  {:<{}}  {:<{}}  {}\n", row[0], width[0], row[1], width[1], row[2], width[2], row[3]);
  return text;
}

class Strategies : public Command {
 public:
  void declare(Options& options) override {
    options.group("Output");
    options.positional("NAME", name_, "the strategy [all of them]");
    options.flag("json", json_, "as JSON");
  }

  std::optional<std::string> answer() const override {
    if (name_) {
      const Entry& entry = strategy(*name_);
      return json_ ? as_json(entry).dump(2) + "\n" : to_text(entry);
    }
    if (!json_) return table();
    Json all = Json::array();
    for (const Entry& entry : strategies()) all.push_back(as_json(entry));
    return all.dump(2) + "\n";
  }

 private:
  std::optional<std::string> name_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_strategies() {
  return std::make_unique<Strategies>();
}

}  // namespace seine
