#include "seine/loader.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "backend/workers.hpp"
#include "fingerprint.hpp"
#include "scorer.hpp"
#include "seine/error.hpp"

namespace seine {
namespace {

// The fields of the own rows while they are filled block by block.
struct Fields {
  Array<std::byte> x;
  Array<float> a;
  std::vector<float> score;
};

void check_memory(const Comm& comm, const PoolShape& shape, const Ownership& own, const Wanted& wanted,
                  std::optional<double> memory_gib) {
  const std::int64_t row_bytes =
      (wanted.embeddings ? 4 * shape.dim : 0) + (wanted.residuals ? 4 * shape.classes + 16 : 0);
  constexpr std::int64_t kStateBytes = 128;  // columns, state and keys of the rule, global numbers
  const double bytes = static_cast<double>(own.own()) * (static_cast<double>(row_bytes) * wanted.copies + kStateBytes);
  const double needed = comm.max(bytes) / (1 << 30);
  comm.agree([&] {
    if (!memory_gib || needed <= *memory_gib) return;
    throw Error(
        Exit::system,
        fmt::format("the pool needs {:.3f} GiB on each of {} ranks and --memory gives {:.3f}: use more ranks or "
                    "more memory (this release does not stream)",
                    needed, comm.size(), *memory_gib));
  });
}

// Consecutive own rows, whole tiles; `at` is the position of the first among the own rows.
struct Block {
  std::int64_t first, count, at;
};

std::vector<Block> blocks_of(const Ownership& own, std::int64_t row_bytes) {
  constexpr std::int64_t bytes = 4 << 20, tile = Ownership::kTileRows;
  const std::int64_t rows = std::max<std::int64_t>(bytes / std::max<std::int64_t>(row_bytes, 1) / tile, 1) * tile;
  std::vector<Block> blocks;
  std::int64_t at = 0;
  for (const Ownership::Run& run : own.runs())
    for (std::int64_t i = 0; i < run.count; i += rows) {
      blocks.push_back({run.first + i, std::min(rows, run.count - i), at});
      at += blocks.back().count;
    }
  return blocks;
}

// Where the rows of a block go: into the fields, or, where these are not host memory, to be copied there.
struct Target {
  float* x = nullptr;
  float* a = nullptr;
};

// What one thread does with the blocks that it takes.
class Reader {
 public:
  Reader(const OpenedPool& opened, const Wanted& wanted, std::atomic<double>& floor, std::vector<float>& scores)
      : opened_(opened), shape_(opened.files.shape()), wanted_(wanted), scores_(scores), fingerprint_(shape_.rows) {
    if (wanted.score) scorer_.emplace(shape_, *wanted.score, wanted.best, floor);
  }

  void read(const Block& block, const Target& target) {
    read_small(block);
    if (wanted_.embeddings) read_embeddings(block, target.x);
    if (wanted_.residuals || wanted_.score) read_probabilities(block, target.a);
  }

  const Fingerprint& fingerprint() const { return fingerprint_; }
  double score_seconds() const { return score_seconds_; }
  std::vector<Candidate> best() { return scorer_ ? scorer_->best() : std::vector<Candidate>(); }

 private:
  // Ids and labels: what makes a row of equal vectors another row.
  void read_small(const Block& block) {
    if (shape_.ids && shape_.text_ids) {
      std::int64_t row = block.first;
      for (const std::string& id : opened_.files.read_text_ids(block.first, block.count))
        fingerprint_.add_text(Dataset::ids, row++, id);
    } else if (shape_.ids) {
      add_integers(Dataset::ids, block, opened_.files.read_integers(Dataset::ids, block.first, block.count));
    }
    if (!shape_.labels) return;
    labels_ = opened_.files.read_integers(Dataset::labels, block.first, block.count);
    add_integers(Dataset::labels, block, labels_);
  }

  void add_integers(Dataset dataset, const Block& block, const std::vector<std::int64_t>& values) {
    fingerprint_.add(dataset, block.first, block.count, values.data(), sizeof values[0]);
  }

  void read_embeddings(const Block& block, float* out) {
    const std::span<float> rows(out, static_cast<std::size_t>(block.count * shape_.dim));
    opened_.files.read_embeddings(block.first, block.count, rows, [&](std::int64_t first, std::int64_t count) {
      fingerprint_.add(Dataset::embeddings, first, count, out + (first - block.first) * shape_.dim,
                       static_cast<std::size_t>(shape_.dim) * sizeof(float));
    });
  }

  void read_probabilities(const Block& block, float* residuals) {
    const std::int64_t width = std::max<std::int64_t>(shape_.passes, 1) * shape_.classes;
    opened_.files.visit_probabilities(block.first, block.count, room_, [&](const Distributions& rows) {
      const void* content = rows.narrow ? static_cast<const void*>(rows.narrow) : rows.wide;
      fingerprint_.add(Dataset::probabilities, rows.first, rows.count, content,
                       static_cast<std::size_t>(width) * (rows.narrow ? sizeof(float) : sizeof(double)));
      Stopwatch watch;
      const std::int64_t at = block.at + rows.first - block.first;
      if (wanted_.score && wanted_.best > 0)
        scorer_->keep_best(rows, opened_.roles.data() + at);
      else if (wanted_.score)
        scorer_->score_all(rows, scores_.data() + at);
      if (wanted_.residuals) write_residuals(rows, block, residuals + (rows.first - block.first) * shape_.classes);
      score_seconds_ += watch.lap();
    });
  }

  void write_residuals(const Distributions& rows, const Block& block, float* out) {
    const std::int64_t passes = std::max<std::int64_t>(shape_.passes, 1), width = passes * shape_.classes;
    row_.resize(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < rows.count; ++i, out += shape_.classes) {
      if (rows.narrow)
        std::copy_n(rows.narrow + i * width, width, row_.begin());
      else
        std::copy_n(rows.wide + i * width, width, row_.begin());
      residual(row_.data(), passes, shape_.classes, residual_class(rows.first + i, block), out);
    }
  }

  // The class of a row's residual; -1: the predicted one.
  std::int64_t residual_class(std::int64_t row, const Block& block) const {
    const auto in_block = static_cast<std::size_t>(row - block.first);
    if (!wanted_.residuals_by_label || !shape_.labels) return -1;
    if (!is_covered(opened_.roles[static_cast<std::size_t>(block.at) + in_block]) || labels_[in_block] < 0) return -1;
    if (labels_[in_block] >= shape_.classes)
      throw Error(Exit::bad_data, fmt::format("{}: dataset \"labels\": expected a class below {}, found {}",
                                              opened_.files.where(row), shape_.classes, labels_[in_block]));
    return labels_[in_block];
  }

  const OpenedPool& opened_;
  const PoolShape& shape_;
  const Wanted& wanted_;
  std::vector<float>& scores_;  // of the own rows
  Fingerprint fingerprint_;
  std::optional<Scorer> scorer_;
  std::vector<double> room_, row_;
  std::vector<std::int64_t> labels_;  // of the block
  double score_seconds_ = 0;
};

class Loading {
 public:
  Loading(Backend& backend, const OpenedPool& opened, const Wanted& wanted, const Console* console)
      : backend_(backend),
        opened_(opened),
        shape_(opened.files.shape()),
        wanted_(wanted),
        console_(console),
        workers_(std::max(1, wanted.threads)) {
    const std::int64_t own = opened.own.own();
    if (wanted.embeddings) fields_.x = Array<std::byte>(backend, own * shape_.dim * 4);
    if (wanted.residuals) fields_.a = Array<float>(backend, own * shape_.classes);
    if (wanted.score && wanted.best == 0) fields_.score.resize(static_cast<std::size_t>(own));
    readers_.reserve(static_cast<std::size_t>(workers_.threads()));
    for (int t = 0; t < workers_.threads(); ++t) readers_.emplace_back(opened, wanted, floor_, fields_.score);
  }

  void run() {
    const bool distributions = wanted_.residuals || wanted_.score;
    const std::int64_t width = distributions ? std::max<std::int64_t>(shape_.passes, 1) * shape_.classes : 0;
    const std::int64_t row_bytes = ((wanted_.embeddings ? shape_.dim : 0) + width) * 4 + 16;
    const std::vector<Block> blocks = blocks_of(opened_.own, row_bytes);
    const bool is_host = backend_.is_host_memory();
    constexpr std::size_t kStagedBlocks = 16;
    const std::size_t group = is_host || (!wanted_.embeddings && !wanted_.residuals) ? blocks.size() : kStagedBlocks;
    for (std::size_t first = 0; first < blocks.size(); first += group)
      read_group(std::span(blocks).subspan(first, std::min(group, blocks.size() - first)), is_host);
    if (wanted_.unit_rows && wanted_.embeddings)
      backend_.unit_rows(reinterpret_cast<float*>(fields_.x.data()), opened_.own.own(), shape_.dim);
  }

  Fields& fields() { return fields_; }
  Fingerprint fingerprint() const {
    Fingerprint all(shape_.rows);
    for (const Reader& reader : readers_) all.add(reader.fingerprint());
    return all;
  }
  double score_seconds() const {
    double sum = 0;
    for (const Reader& reader : readers_) sum += reader.score_seconds();
    return sum / workers_.threads();
  }
  std::vector<Candidate> best() {
    std::vector<Candidate> all;
    for (Reader& reader : readers_) {
      const std::vector<Candidate> some = reader.best();
      all.insert(all.end(), some.begin(), some.end());
    }
    return all;
  }

 private:
  // Of several faults, that of the first block counts, whichever thread finds it.
  void read_group(std::span<const Block> blocks, bool is_host) {
    const std::int64_t start = blocks.front().at, rows = blocks.back().at + blocks.back().count - start;
    std::vector<float> staged_x, staged_a;
    Target target{reinterpret_cast<float*>(fields_.x.data()) + start * shape_.dim,
                  fields_.a.data() + start * shape_.classes};
    if (!is_host) {
      if (wanted_.embeddings) staged_x.resize(static_cast<std::size_t>(rows * shape_.dim));
      if (wanted_.residuals) staged_a.resize(static_cast<std::size_t>(rows * shape_.classes));
      target = {staged_x.data(), staged_a.data()};
    }
    const auto count = static_cast<std::int64_t>(blocks.size());
    std::atomic<std::int64_t> done = start, faulty = count;
    std::mutex mutex;
    std::exception_ptr fault;
    workers_.share(count, [&](std::int64_t b, int thread) {
      if (b > faulty) return;
      const Block& block = blocks[static_cast<std::size_t>(b)];
      try {
        readers_[static_cast<std::size_t>(thread)].read(
            block, {target.x + (block.at - start) * shape_.dim, target.a + (block.at - start) * shape_.classes});
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (b < faulty) fault = std::current_exception();
        faulty = std::min<std::int64_t>(b, faulty);
      }
      done += block.count;
      if (console_ && thread == 0) console_->progress("read", done, opened_.own.own());
    });
    if (fault) std::rethrow_exception(fault);
    if (console_) console_->progress("read", done, opened_.own.own());
    if (is_host) return;
    fields_.x.write(std::as_bytes(std::span<const float>(staged_x)), start * shape_.dim * 4);
    fields_.a.write(staged_a, start * shape_.classes);
  }

  Backend& backend_;
  const OpenedPool& opened_;
  const PoolShape& shape_;
  const Wanted& wanted_;
  const Console* console_;
  Fields fields_;
  std::atomic<double> floor_ = kNoCandidate.value;
  Workers workers_;
  std::vector<Reader> readers_;  // one per thread
};

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Stopwatch::Stopwatch() : since_(now()) {}

double Stopwatch::lap() {
  const double before = since_;
  since_ = now();
  return since_ - before;
}

Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted,
            std::optional<double> memory_gib, const Console* console) {
  Stopwatch watch;
  check_memory(comm, opened.files.shape(), opened.own, wanted, memory_gib);
  const auto loading = comm.agree([&] {
    auto mine = std::make_unique<Loading>(backend, opened, wanted, console);
    mine->run();
    return mine;
  });
  Columns columns;
  columns.rows.reserve(opened.roles.size());
  for (const Ownership::Run& run : opened.own.runs())
    for (std::int64_t i = 0; i < run.count; ++i) columns.rows.push_back(run.first + i);
  columns.role = opened.roles;
  if (wanted.score && wanted.best == 0) columns.score = std::move(loading->fields().score);
  const PoolShape& shape = opened.files.shape();
  Pool pool(comm, backend, std::move(columns), Element::f32, wanted.embeddings ? shape.dim : 0,
            std::move(loading->fields().x), wanted.residuals ? shape.classes : 0, std::move(loading->fields().a));
  const double score_seconds = loading->score_seconds();
  std::string fingerprint = loading->fingerprint().text(comm, shape);
  return {std::move(pool), std::move(fingerprint), watch.lap() - score_seconds, score_seconds, loading->best()};
}

std::vector<float> scores_of(const Pool& pool, const PoolFiles& files, ScoreKind kind,
                             std::span<const std::int64_t> rows) {
  struct Scored {
    std::int64_t place;
    float score;
  };
  const std::vector<Scored> mine = pool.comm().agree([&] {
    std::vector<std::pair<std::int64_t, std::size_t>> own;  // ascending: files and chunks are opened once
    pool.for_own(rows, [&](std::int64_t, std::size_t i) { own.emplace_back(rows[i], i); });
    std::sort(own.begin(), own.end());
    std::atomic<double> floor = kNoCandidate.value;
    Scorer scorer(files.shape(), kind, 0, floor);
    std::vector<double> room;
    std::vector<Scored> scored;
    for (const auto& [row, place] : own)
      files.visit_probabilities(row, 1, room, [&, at = place](const Distributions& one) {
        scored.push_back({static_cast<std::int64_t>(at), 0});
        scorer.score_all(one, &scored.back().score);
      });
    return scored;
  });
  std::vector<float> scores(rows.size());
  for (const Scored& scored : pool.comm().gather(std::span<const Scored>(mine)))
    scores[static_cast<std::size_t>(scored.place)] = scored.score;
  return scores;
}

}  // namespace seine
