// A batch is encoded in memory and then written as bytes, whatever the format: HDF5 notices a full disk late or not at
// all, AtomicFile does at once.
#include "seine/batch_file.hpp"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <xxhash.h>

#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "atomic_file.hpp"
#include "file_content.hpp"
#include "overwrite.hpp"
#include "reading/csv.hpp"
#include "reading/hdf5.hpp"
#include "seine/checkpoint.hpp"
#include "seine/checkpoint_files.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "seine-batch";
constexpr std::string_view kCsvHeader = "id,row,score,gain\n";
constexpr std::int64_t kFormatVersion = 1;

// --- formats ---

enum class Format { hdf5, csv, json };

Format format_of(const std::string& path) {
  if (path.ends_with(".h5")) return Format::hdf5;
  if (path.ends_with(".csv")) return Format::csv;
  if (path.ends_with(".json")) return Format::json;
  throw Error(Exit::usage, fmt::format("--out {}: the name must end in .h5, .csv or .json", path));
}

void encode_ids(hid_t file, const Batch& batch) {
  if (batch.ids.text)
    h5::write_dataset(file, "ids", std::span<const std::string>(batch.ids.words), kFormat);
  else
    h5::write_dataset(file, "ids", std::span<const std::int64_t>(batch.ids.numbers), kFormat);
}

void encode_certificate(hid_t file, const Certificate& certificate) {
  const h5::Id group = h5::create_group(file, "certificate", kFormat);
  const auto set = [&](const char* name, const auto& value) { h5::write_attribute(group.get(), name, value, kFormat); };
  set("kind", certificate.kind);
  set("objective", certificate.objective);
  set("value", certificate.value);
  set("bound", certificate.bound);
  set("bound_kind", certificate.bound_kind);
  set("ratio", certificate.ratio);
  set("random", certificate.random);
  set("rows", certificate.rows);
}

void encode_timing(hid_t file, const Timing& timing) {
  const h5::Id group = h5::create_group(file, "timing", kFormat);
  const auto set = [&](const char* name, const auto& value) { h5::write_attribute(group.get(), name, value, kFormat); };
  set("read", timing.read);
  set("select", timing.select);
  set("certificate", timing.certificate);
  set("write", timing.write);
  set("ranks", std::int64_t{timing.ranks});
  set("threads", std::int64_t{timing.threads});
  set("device", timing.device);
  set("share", timing.share);
  set("memory", timing.memory);
}

std::string hdf5_of(const Batch& batch, const std::string& created) {
  h5::Id file = h5::create_file_in_memory();
  const auto set = [&](const char* name, const auto& value) { h5::write_attribute(file.get(), name, value, kFormat); };
  set("format", std::string(kFormat));
  set("format_version", kFormatVersion);
  set("strategy", batch.strategy);
  set("seed", batch.seed);
  set("request", batch.request_json);
  set("pool_rows", batch.pool_rows);
  set("candidates", batch.candidates);
  set("truncated", std::int64_t{batch.truncated});
  set("pool_fingerprint", batch.pool_fingerprint);
  set("digest", batch.digest);
  set("software_version", std::string(SEINE_VERSION));
  set("created", created);
  encode_ids(file.get(), batch);
  h5::write_dataset(file.get(), "rows", std::span<const std::int64_t>(batch.selection.rows), kFormat);
  h5::write_dataset(file.get(), "score", std::span<const float>(batch.selection.scores), kFormat);
  h5::write_dataset(file.get(), "gain", std::span<const double>(batch.selection.gains), kFormat);
  encode_certificate(file.get(), batch.certificate);
  encode_timing(file.get(), batch.timing);
  return h5::bytes_of(file.get());
}

std::string csv_of(const Batch& batch) {
  std::string text(kCsvHeader);
  const Selection& picked = batch.selection;
  for (std::size_t i = 0; i < picked.rows.size(); ++i)
    fmt::format_to(std::back_inserter(text), "{},{},{},{}\n", csv_field(batch.ids.as_text(i)), picked.rows[i],
                   number_text(picked.scores[i]), number_text(picked.gains[i]));
  return text;
}

Json json_of(double value) {
  return std::isfinite(value) ? Json(value) : Json();
}

template <class T>
Json json_of(const std::vector<T>& values) {
  Json array = Json::array();
  for (const T value : values) array.push_back(json_of(double{value}));
  return array;
}

Json json_of(const Certificate& certificate) {
  return {{"kind", certificate.kind},
          {"objective", certificate.objective},
          {"value", json_of(certificate.value)},
          {"bound", json_of(certificate.bound)},
          {"bound_kind", certificate.bound_kind},
          {"ratio", json_of(certificate.ratio)},
          {"random", json_of(certificate.random)},
          {"rows", certificate.rows}};
}

Json json_of(const Timing& timing) {
  return {{"read", timing.read},     {"select", timing.select}, {"certificate", timing.certificate},
          {"write", timing.write},   {"ranks", timing.ranks},   {"threads", timing.threads},
          {"device", timing.device}, {"share", timing.share},   {"memory", timing.memory}};
}

std::string json_text_of(const Batch& batch, const std::string& created) {
  const Json content = {{"format", kFormat},
                        {"format_version", kFormatVersion},
                        {"strategy", batch.strategy},
                        {"seed", batch.seed},
                        {"request", Json::parse(batch.request_json)},
                        {"pool_rows", batch.pool_rows},
                        {"candidates", batch.candidates},
                        {"truncated", batch.truncated ? 1 : 0},
                        {"pool_fingerprint", batch.pool_fingerprint},
                        {"digest", batch.digest},
                        {"software_version", SEINE_VERSION},
                        {"created", created},
                        {"ids", batch.ids.text ? Json(batch.ids.words) : Json(batch.ids.numbers)},
                        {"rows", batch.selection.rows},
                        {"score", json_of(batch.selection.scores)},
                        {"gain", json_of(batch.selection.gains)},
                        {"certificate", json_of(batch.certificate)},
                        {"timing", json_of(batch.timing)}};
  std::string text = "{";  // one line per key: readable, and still one line per column
  for (const auto& [key, value] : content.items())
    text += fmt::format("{}\n\"{}\": {}", text.size() > 1 ? "," : "", key,
                        value.dump(-1, ' ', false, Json::error_handler_t::replace));
  return text + "\n}\n";
}

std::string encoded(Format format, const Batch& batch, const std::string& created) {
  switch (format) {
    case Format::hdf5:
      return hdf5_of(batch, created);
    case Format::csv:
      return csv_of(batch);
    default:
      return json_text_of(batch, created);
  }
}

void require_complete(const Batch& batch) {
  const std::size_t rows = batch.selection.rows.size();
  require(batch.selection.scores.size() == rows && batch.selection.gains.size() == rows,
          "a batch has a score and a gain for every row");
  require((batch.ids.text ? batch.ids.words.size() : batch.ids.numbers.size()) == rows,
          "a batch has an id for every row");
}

// --- what is there already ---

enum class Content { nothing, batch, table, foreign };  // table: a batch as .csv, which does not name its request

Content recognise(std::string_view bytes, const std::string& path) {
  if (bytes.empty()) return Content::nothing;
  if (bytes.starts_with(kCsvHeader)) return Content::table;
  if (bytes.starts_with(fmt::format("{{\n\"format\": \"{}\"", kFormat))) return Content::batch;
  if (!bytes.starts_with("\x89HDF")) return Content::foreign;
  try {
    const h5::Id file = h5::open_file(path);
    // By the names alone: a text in a damaged file can end the library.
    const bool is_batch = H5Aexists(file.get(), "format") > 0 && H5Aexists(file.get(), "digest") > 0;
    return is_batch ? Content::batch : Content::foreign;
  } catch (const Error&) {
    return Content::foreign;
  }
}

// Whether a checkpoint waits whose run had this output: it may have died after it renamed it into place.
bool goes_on(const Request& request) {
  if (request.checkpoint.empty() || request.restart) return false;
  const std::string bytes = CheckpointFiles(request.checkpoint).read(Console());
  if (bytes.empty()) return false;
  const std::map<std::string, std::string> facts = Checkpoint::from_bytes(bytes, request.checkpoint).facts;
  const auto out = facts.find(Checkpoint::kOut);
  return out != facts.end() && out->second == whole_path(request.out);
}

// What its owner would miss of the file at request.out; empty: nothing.
std::string loss(const Request& request) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(request.out, ignored)) return "";
  const std::optional<std::string> beginning = beginning_of(request.out);
  const Content content = beginning ? recognise(*beginning, request.out) : Content::foreign;
  if (content == Content::nothing) return "";
  if (content == Content::foreign) return "a file that is not a batch of seine";
  if (content == Content::table) return goes_on(request) ? "" : "a batch that may be of another request";
  // All formats keep the text of the request as it is.
  const std::string bytes = read_file(request.out).value_or("");
  return bytes.find(request.to_json()) != std::string::npos ? "" : "a batch of another request";
}

}  // namespace

std::string digest_of(std::span<const std::int64_t> rows) {
  const XXH128_hash_t hash = XXH3_128bits(rows.data(), rows.size_bytes());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

void check_output(const Request& request) {
  format_of(request.out);
  if (const std::string lost = request.force ? "" : loss(request); !lost.empty())
    throw Error(Exit::cannot_create, fmt::format("--out {}: {} is there; --force replaces it", request.out, lost));
  AtomicFile(request.out).write_text("");  // permissions, quotas, read-only mounts: nothing tells as surely as trying
}

void write_batch(const std::string& path, const Batch& batch) {
  require_complete(batch);
  const Format format = format_of(path);
  const std::string created = fmt::format(
      "{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::chrono::system_clock::to_time_t(std::chrono::system_clock::now())));
  const auto begin = std::chrono::steady_clock::now();
  AtomicFile file(path);
  file.write_text(encoded(format, batch, created));
  // No file holds the time of its own writing: this is the second writing, with the time of the first.
  Batch timed = batch;
  timed.timing.write = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  file.write_text(encoded(format, timed, created));
  file.commit();
}

}  // namespace seine
