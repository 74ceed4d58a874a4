#include "seine/loader.hpp"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <memory>

#include <fmt/format.h>
#include <xxhash.h>

#include "file_rows.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

// 128-bit hash of rows that does not depend on the order in which they are read: hashes keyed by dataset and global row
// are added.
class Fingerprint {
 public:
  void add(Dataset dataset, std::int64_t row, const void* content, std::size_t bytes) {
    const std::uint64_t key = static_cast<std::uint64_t>(row) * 16 + static_cast<std::uint64_t>(dataset);
    const XXH128_hash_t hash = XXH3_128bits_withSeed(content, bytes, key);
    low_ += hash.low64;
    high_ += hash.high64;
  }
  // Collective.
  std::string text(const Comm& comm, const PoolShape& shape) const {
    std::int64_t sums[2] = {static_cast<std::int64_t>(low_), static_cast<std::int64_t>(high_)};
    comm.sum(sums);
    const std::int64_t all[] = {sums[0], sums[1], shape.rows, shape.dim, shape.classes, shape.passes};
    const XXH128_hash_t hash = XXH3_128bits(all, sizeof all);
    return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
  }

 private:
  std::uint64_t low_ = 0, high_ = 0;
};

// The fields of the own rows while they are filled block by block.
struct Fields {
  Array<std::byte> x;
  Array<float> a;
  std::vector<float> score;
  std::optional<std::vector<std::int32_t>> label;  // of residuals that are read again
};

// What is left for vectors beside what every row needs; absent where all vectors fit.
std::optional<std::int64_t> room_for_vectors(const Comm& comm, const MemoryNeed& need,
                                             std::optional<double> memory_gib) {
  if (!memory_gib) return std::nullopt;
  const double memory = *memory_gib * (1 << 30), in_use = static_cast<double>(resident_bytes());
  const double room = -comm.max(in_use + static_cast<double>(need.least()) - memory);
  const double largest = comm.max(static_cast<double>(need.vectors));
  comm.agree([&] {
    if (room >= 0 || need.vectors == 0) return;
    throw Error(Exit::system,
                fmt::format("a rank needs at least {:.3f} GiB, streaming all that can be streamed, and --memory gives "
                            "{:.3f}: use more ranks or more memory",
                            (memory - room) / (1 << 30), *memory_gib));
  });
  if (room >= largest) return std::nullopt;
  return static_cast<std::int64_t>(room);
}

class Loading {
 public:
  // resident: the vectors are kept; else they are only checked and hashed.
  Loading(Backend& backend, const OpenedPool& opened, const Wanted& wanted, bool resident, const Console* console)
      : backend_(backend),
        opened_(opened),
        shape_(opened.files.shape()),
        wanted_(wanted),
        format_(row_format(shape_, wanted)),
        resident_(resident),
        console_(console) {
    const std::int64_t own = opened.own.own();
    if (resident) fields_.x = Array<std::byte>(backend, own * format_.x_bytes());
    if (resident) fields_.a = Array<float>(backend, own * format_.classes);
    if (!resident && wanted.residuals_by_label && shape_.labels) fields_.label.emplace();
    if (wanted.score) fields_.score.resize(static_cast<std::size_t>(own));
  }

  void run() {
    const bool distributions = wanted_.residuals || wanted_.score;
    const std::int64_t row_bytes =
        (wanted_.embeddings ? shape_.dim * 4 : 0) + (distributions ? distribution_size() * 8 : 0);
    std::int64_t at = 0;
    for_blocks(opened_.own, row_bytes, [&](std::int64_t first, std::int64_t count) {
      read_small(first, count);
      if (wanted_.embeddings) read_embeddings(first, count, at);
      if (distributions) read_probabilities(first, count, at);
      at += count;
      if (console_) console_->progress("read", at, opened_.own.own());
    });
    if (wanted_.unit_rows && wanted_.embeddings && resident_)
      backend_.unit_rows(reinterpret_cast<float*>(fields_.x.data()), opened_.own.own(), shape_.dim);
  }

  Fields& fields() { return fields_; }
  const Fingerprint& fingerprint() const { return fingerprint_; }
  double score_seconds() const { return score_seconds_; }

 private:
  std::int64_t distribution_size() const { return std::max<std::int64_t>(shape_.passes, 1) * shape_.classes; }

  // Ids and labels: what makes a row of equal vectors another row.
  void read_small(std::int64_t first, std::int64_t count) {
    if (shape_.ids && shape_.text_ids) {
      const std::vector<std::string> ids = opened_.files.read_text_ids(first, count);
      for (std::int64_t i = 0; i < count; ++i) {
        const std::string& id = ids[static_cast<std::size_t>(i)];
        fingerprint_.add(Dataset::ids, first + i, id.data(), id.size());
      }
    } else if (shape_.ids) {
      add_integers(Dataset::ids, first, opened_.files.read_integers(Dataset::ids, first, count));
    }
    if (!shape_.labels) return;
    labels_ = opened_.files.read_integers(Dataset::labels, first, count);
    add_integers(Dataset::labels, first, labels_);
  }

  void add_integers(Dataset dataset, std::int64_t first, const std::vector<std::int64_t>& values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      fingerprint_.add(dataset, first + static_cast<std::int64_t>(i), &values[i], sizeof values[i]);
  }

  void read_embeddings(std::int64_t first, std::int64_t count, std::int64_t at) {
    std::vector<float>& block = embeddings_;
    block.resize(static_cast<std::size_t>(count * shape_.dim));
    opened_.files.read_embeddings(first, count, block);
    const auto row_bytes = static_cast<std::size_t>(shape_.dim) * sizeof(float);
    for (std::int64_t i = 0; i < count; ++i)
      fingerprint_.add(Dataset::embeddings, first + i, block.data() + i * shape_.dim, row_bytes);
    if (resident_) fields_.x.write(std::as_bytes(std::span<const float>(block)), at * static_cast<std::int64_t>(row_bytes));
  }

  void read_probabilities(std::int64_t first, std::int64_t count, std::int64_t at) {
    std::vector<double>& block = probabilities_;
    const std::int64_t width = distribution_size();
    block.resize(static_cast<std::size_t>(count * width));
    opened_.files.read_probabilities(first, count, block);
    for (std::int64_t i = 0; i < count; ++i)
      fingerprint_.add(Dataset::probabilities, first + i, block.data() + i * width,
                       static_cast<std::size_t>(width) * sizeof(double));
    Stopwatch watch;
    const Array<double> p(backend_, std::span<const double>(block));
    const std::int64_t passes = std::max<std::int64_t>(shape_.passes, 1);
    if (wanted_.score) {
      Array<float> score(backend_, count);
      backend_.score(*wanted_.score, p.data(), count, passes, shape_.classes, score.data());
      score.read(std::span(fields_.score).subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(count)));
    }
    if (wanted_.residuals) {
      const std::vector<std::int64_t> of_rows = residual_classes(first, count, at);
      if (fields_.label) fields_.label->insert(fields_.label->end(), of_rows.begin(), of_rows.end());
      if (!resident_) return;
      const Array<std::int64_t> classes(backend_, std::span<const std::int64_t>(of_rows));
      backend_.residuals(p.data(), classes.data(), count, passes, shape_.classes,
                         fields_.a.data() + at * shape_.classes);
    }
    score_seconds_ += watch.lap();
  }

  // The class of each row's residual; -1: the predicted one.
  std::vector<std::int64_t> residual_classes(std::int64_t first, std::int64_t count, std::int64_t at) const {
    std::vector<std::int64_t> classes(static_cast<std::size_t>(count), -1);
    if (!wanted_.residuals_by_label || !shape_.labels) return classes;
    for (std::size_t i = 0; i < classes.size(); ++i) {
      if (!is_covered(opened_.roles[static_cast<std::size_t>(at) + i]) || labels_[i] < 0) continue;
      if (labels_[i] >= shape_.classes)
        throw Error(Exit::bad_data,
                    fmt::format("{}: dataset \"labels\": expected a class below {}, found {}",
                                opened_.files.where(first + static_cast<std::int64_t>(i)), shape_.classes, labels_[i]));
      classes[i] = labels_[i];
    }
    return classes;
  }

  Backend& backend_;
  const OpenedPool& opened_;
  const PoolShape& shape_;
  const Wanted& wanted_;
  const RowFormat format_;
  const bool resident_;
  const Console* console_;
  Fields fields_;
  Fingerprint fingerprint_;
  std::vector<float> embeddings_;
  std::vector<double> probabilities_;
  std::vector<std::int64_t> labels_;  // of the block
  double score_seconds_ = 0;
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

std::string combined_fingerprint(const std::string& one, const std::string& other) {
  const std::string both = one + other;
  const XXH128_hash_t hash = XXH3_128bits(both.data(), both.size());
  return fmt::format("{:016x}{:016x}", hash.high64, hash.low64);
}

Stopwatch::Stopwatch() : since_(now()) {}

double Stopwatch::lap() {
  const double before = since_;
  since_ = now();
  return since_ - before;
}

Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted,
            std::optional<double> memory_gib, const Console* console) {
  Stopwatch watch;
  const PoolShape& shape = opened.files.shape();
  const std::optional<std::int64_t> room =
      room_for_vectors(comm, memory_need(shape, opened.own.own(), wanted), memory_gib);
  const auto loading = comm.agree([&] {
    auto mine = std::make_unique<Loading>(backend, opened, wanted, !room, console);
    mine->run();
    return mine;
  });
  Columns columns;
  columns.rows.reserve(opened.roles.size());
  for (const Ownership::Run& run : opened.own.runs())
    for (std::int64_t i = 0; i < run.count; ++i) columns.rows.push_back(run.first + i);
  columns.role = opened.roles;
  if (wanted.score) columns.score = std::move(loading->fields().score);
  columns.label = std::move(loading->fields().label);
  const RowFormat format = row_format(shape, wanted);
  const auto store = [&] {
    if (!room)
      return RowStore(backend, format, opened.own.own(), std::move(loading->fields().x),
                      std::move(loading->fields().a));
    return RowStore(backend, format, {file_rows(opened.files, format, wanted.unit_rows), columns.rows,
                                      columns.label.value_or(std::vector<std::int32_t>()), std::make_shared<Room>(*room)});
  };
  if (room && console)
    console->info(fmt::format("the vectors of this pool do not fit --memory: {:.3f} GiB of each rank keep the rows that "
                              "are wanted most, the others are read again",
                              static_cast<double>(*room) / (1 << 30)));
  Pool pool(comm, backend, std::move(columns), store());
  const double score_seconds = loading->score_seconds();
  return {std::move(pool), loading->fingerprint().text(comm, shape), watch.lap() - score_seconds, score_seconds};
}

}  // namespace seine
