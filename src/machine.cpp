#include "seine/machine.hpp"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>

#include "atomic_file.hpp"
#include "file_content.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

struct Constant {
  std::string_view name;
  double& (*of)(Machine&);
};
constexpr Constant kConstants[] = {
    {"start", [](Machine& m) -> double& { return m.start; }},
    {"stored_byte", [](Machine& m) -> double& { return m.stored_byte; }},
    {"cached_byte", [](Machine& m) -> double& { return m.cached_byte; }},
    {"fresh_byte", [](Machine& m) -> double& { return m.fresh_byte; }},
    {"fetched_byte", [](Machine& m) -> double& { return m.fetched_byte; }},
    {"fetched_row", [](Machine& m) -> double& { return m.fetched_row; }},
    {"identified_row", [](Machine& m) -> double& { return m.identified_row; }},
    {"residual_value", [](Machine& m) -> double& { return m.residual_value; }},
    {"bounded_value", [](Machine& m) -> double& { return m.bounded_value; }},
    {"scored_value", [](Machine& m) -> double& { return m.scored_value; }},
    {"distance", [](Machine& m) -> double& { return m.distance.each; }},
    {"distance_value", [](Machine& m) -> double& { return m.distance.value; }},
    {"screened_distance", [](Machine& m) -> double& { return m.screened_distance.each; }},
    {"screened_distance_value", [](Machine& m) -> double& { return m.screened_distance.value; }},
    {"product", [](Machine& m) -> double& { return m.product.each; }},
    {"product_value", [](Machine& m) -> double& { return m.product.value; }},
    {"similarity", [](Machine& m) -> double& { return m.similarity.each; }},
    {"similarity_value", [](Machine& m) -> double& { return m.similarity.value; }},
    {"moment", [](Machine& m) -> double& { return m.moment; }},
    {"entry", [](Machine& m) -> double& { return m.entry; }},
    {"raced_row", [](Machine& m) -> double& { return m.raced_row; }},
    {"scanned_row", [](Machine& m) -> double& { return m.scanned_row; }},
    {"sifted_row", [](Machine& m) -> double& { return m.sifted_row; }},
    {"pick", [](Machine& m) -> double& { return m.pick; }},
    {"close_pick", [](Machine& m) -> double& { return m.close_pick.each; }},
    {"close_pick_value", [](Machine& m) -> double& { return m.close_pick.value; }},
    {"drawn_row", [](Machine& m) -> double& { return m.drawn_row; }},
    {"message", [](Machine& m) -> double& { return m.message; }},
    {"sent_byte", [](Machine& m) -> double& { return m.sent_byte; }},
};

}  // namespace

std::string to_json(const Machine& machine) {
  Machine copy = machine;
  nlohmann::ordered_json json;
  json["format"] = "seine-machine";
  json["origin"] = machine.origin;
  for (const Constant& constant : kConstants) json[std::string(constant.name)] = constant.of(copy);
  return json.dump(2) + "\n";
}

Machine machine_from_json(const std::string& text, const std::string& path) {
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (!json.is_object() || !json.contains("format") || json["format"] != "seine-machine")
    throw Error(Exit::bad_data, fmt::format("{}: expected constants of `seine plan --calibrate`", path));
  Machine machine;
  machine.origin = path;
  for (const Constant& constant : kConstants) {
    const auto found = json.find(constant.name);
    if (found == json.end()) continue;
    if (!found->is_number() || !(found->get<double>() >= 0))
      throw Error(Exit::bad_data, fmt::format("{}: {}: expected a number of seconds", path, constant.name));
    constant.of(machine) = found->get<double>();
  }
  return machine;
}

Machine load_machine(const std::string& path) {
  const std::optional<std::string> text = path.empty() ? std::nullopt : read_file(path);
  return text ? machine_from_json(*text, path) : Machine{};
}

void store_machine(const std::string& path, const Machine& machine) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) make_folder(folder.string());
  AtomicFile file(path);
  file.write_text(to_json(machine));
  file.commit();
}

std::string default_machine_path() {
  const char *cache = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (cache && *cache) return std::string(cache) + "/seine/machine.json";
  return home && *home ? std::string(home) + "/.cache/seine/machine.json" : std::string();
}

}  // namespace seine
