// A batch is encoded in memory and then written as bytes, whatever the format: HDF5 notices a full disk late or not at
// all, write(2) does at once.
#include "seine/batch_file.hpp"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "csv.hpp"
#include "hdf5.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

constexpr const char* kFormat = "seine-batch";
constexpr std::int64_t kFormatVersion = 1;

[[noreturn]] void fail(const std::string& path, int error_number) {
  throw Error(Exit::cannot_create,
              fmt::format("cannot write {}: {}", path, std::generic_category().message(error_number)));
}

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
  std::string text = "id,row,score,gain\n";
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
  return {{"read", timing.read},    {"select", timing.select}, {"certificate", timing.certificate},
          {"write", timing.write},  {"ranks", timing.ranks},   {"threads", timing.threads},
          {"device", timing.device}};
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

// --- files ---

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags) : number_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int number() const { return number_; }
  explicit operator bool() const { return number_ >= 0; }
  bool close() { return ::close(std::exchange(number_, -1)) == 0; }

 private:
  int number_;
};

bool sync(const Descriptor& file) {
  // Some file systems have no fsync; their data are as safe as they get.
  return ::fsync(file.number()) == 0 || errno == EINVAL || errno == ENOTSUP;
}

bool write_all(const Descriptor& file, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(file.number(), text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return true;
}

// Whether the file has exactly this content; false with errno 0 where it was read and differs.
bool reads_back(const std::string& path, std::string_view text) {
  const Descriptor file(path, O_RDONLY);
  if (!file) return false;
  std::vector<char> buffer(std::size_t{1} << 20);
  while (true) {
    const ssize_t read = ::read(file.number(), buffer.data(), buffer.size());
    if (read < 0 && errno == EINTR) continue;
    if (read < 0) return false;
    errno = 0;
    if (read == 0) return text.empty();
    const std::string_view piece(buffer.data(), static_cast<std::size_t>(read));
    if (!text.starts_with(piece)) return false;
    text.remove_prefix(piece.size());
  }
}

fs::path folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Removes files `prefix` + process number in `folder` whose process on this host is gone.
void remove_leftovers(const fs::path& folder, const std::string& prefix) {
  std::error_code ignored;  // what cannot be listed or removed is in nobody's way
  for (fs::directory_iterator entry(folder, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    pid_t process = 0;
    const char* const last = name.data() + name.size();
    const auto [parsed, status] = std::from_chars(name.data() + prefix.size(), last, process);
    const bool is_process = status == std::errc() && parsed == last && process > 0;
    if (is_process && ::kill(process, 0) != 0 && errno == ESRCH) ::unlink(entry->path().c_str());
  }
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  ::signal(SIGXFSZ, SIG_IGN);  // a file above the limit of its size is an error of write(2), not the end of the process
  const fs::path folder = folder_of(path_);
  const std::string prefix = fmt::format(".{}.part-{}-", fs::path(path_).filename().string(), host_name());
  remove_leftovers(folder, prefix);
  temporary_ = (folder / (prefix + std::to_string(::getpid()))).string();
}

AtomicFile::~AtomicFile() {
  if (!committed_) ::unlink(temporary_.c_str());
}

void AtomicFile::write_text(const std::string& text) {
  Descriptor file(temporary_, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  if (!file || !write_all(file, text) || !sync(file) || !file.close()) fail(path_, errno);
  if (reads_back(temporary_, text)) return;
  if (errno != 0) fail(path_, errno);
  throw Error(Exit::cannot_create, fmt::format("cannot write {}: it does not read back as it was written", path_));
}

void AtomicFile::commit() {
  Descriptor file(temporary_, O_RDONLY);
  if (!file || !sync(file) || !file.close()) fail(path_, errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) fail(path_, errno);
  committed_ = true;
  // The output is there; a folder that cannot be opened or synced only delays when a power cut would keep it.
  const Descriptor folder(folder_of(path_).string(), O_RDONLY | O_DIRECTORY);
  if (folder) ::fsync(folder.number());
}

std::string digest_of(std::span<const std::int64_t> rows) {
  const XXH128_hash_t hash = XXH3_128bits(rows.data(), rows.size_bytes());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

void check_output(const std::string& path) {
  format_of(path);
  std::error_code ignored;  // whatever keeps it from being looked at shows below
  if (fs::is_directory(path, ignored)) fail(path, EISDIR);
  AtomicFile(path).write_text("");  // permissions, quotas and read-only mounts: nothing tells as surely as trying
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
