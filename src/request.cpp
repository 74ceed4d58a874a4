// Requests as JSON: what has to be known to repeat the run, and nothing about where it ran.
#include "seine/request.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

namespace seine {
namespace {

using Json = nlohmann::ordered_json;

Json json_of(const PoolRequest& request) {
  const DatasetNames& names = request.names;
  return {{"pool", request.pool},
          {"embeddings", names.embeddings},
          {"probabilities", names.probabilities},
          {"logits", names.logits},
          {"ids", names.ids},
          {"labels", names.labels},
          {"classes", names.classes},
          {"costs", names.costs},
          {"groups", names.groups},
          {"labelled", request.labelled},
          {"pending", request.pending},
          {"exclude", request.exclude},
          {"candidates", request.candidates},
          {"labelled_pool", request.labelled_pool},
          {"strict_ids", request.strict_ids}};
}

// null: not given.
template <class T>
Json json_of(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json json_of(Normalize normalize) {
  switch (normalize) {
    case Normalize::none:
      return "none";
    case Normalize::l2:
      return "l2";
    default:
      return nullptr;
  }
}

const char* name_of(CertificateMode mode) {
  switch (mode) {
    case CertificateMode::full:
      return "full";
    case CertificateMode::off:
      return "off";
    default:
      return "auto";
  }
}

// A path need not be UTF-8; JSON must be.
std::string text_of(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

std::string Request::to_json() const {
  Json json = json_of(pool);
  json["strategy"] = strategy;
  json["set"] = set;
  json["batch"] = batch;
  json["normalize"] = json_of(normalize);
  json["score"] = json_of(score);
  json["keep"] = json_of(keep);
  json["score_power"] = score_power;
  json["reduce"] = reduce == Reduce::merge ? "merge" : "exact";
  json["partitions"] = partitions;
  json["fan_in"] = fan_in;
  json["seed"] = seed;
  json["certificate"] = name_of(certificate);
  return text_of(json);
}

std::string ScoreRequest::to_json() const {
  Json json = json_of(pool);
  json["strategy"] = strategy;
  json["set"] = set;
  return text_of(json);
}

void Selection::add(std::int64_t row, float score, double gain) {
  rows.push_back(row);
  scores.push_back(score);
  gains.push_back(gain);
}

std::int64_t prefiltered_rows(double keep, std::int64_t batch, std::int64_t most) {
  const double wanted = std::ceil(keep * static_cast<double>(batch));
  return wanted < static_cast<double>(most) ? static_cast<std::int64_t>(wanted) : most;
}

}  // namespace seine
