#include "seine/loader.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "backend/row_kernel.hpp"
#include "backend/workers.hpp"
#include "file_rows.hpp"
#include "fingerprint.hpp"
#include "scorer.hpp"
#include "seine/error.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

// The fields of the own rows while they are filled block by block.
struct Fields {
  Array<std::byte> x;
  Array<float> a;
  std::vector<float> score;
  std::optional<std::vector<std::int32_t>> label;  // of residuals that are read again
};

// What the memory has room for beside what must be in it, and whether the vectors are part of that.
struct Memory {
  std::int64_t room;
  bool streams;
};

// Collective; all ranks stream, or none.
Memory memory_for(const Comm& comm, const MemoryNeed& need, const PoolRequest& request) {
  constexpr std::int64_t kUnknown = std::int64_t{1} << 30;
  if (request.stream_room) return {*request.stream_room, true};
  const double memory = request.memory_gib ? *request.memory_gib * (1 << 30) : HUGE_VAL;
  const double own_room = room_for_vectors(need, memory, static_cast<double>(resident_bytes()));
  const double room = -comm.max(-own_room);
  const double vectors = comm.max(static_cast<double>(need.vectors));
  comm.agree([&] {
    if (own_room >= 0) return;
    throw Error(Exit::system,
                fmt::format("a rank needs at least {:.3f} GiB, streaming all that can be streamed, and --memory gives "
                            "{:.3f}: use more ranks or more memory",
                            std::ceil((memory - own_room) / (1 << 30) * 1000) / 1000, *request.memory_gib));
  });
  if (std::isinf(room)) return {kUnknown, false};
  const double left = vectors <= room ? room - vectors : room;
  return {static_cast<std::int64_t>(std::clamp(left, 0.0, 0x1p62)), vectors > 0 && vectors > room};
}

// Consecutive own rows, whole tiles; `at` is the position of the first among the own rows.
struct Block {
  std::int64_t first, count, at;
};

std::vector<Block> blocks_of(const Ownership& own, std::int64_t row_bytes, std::int64_t bytes) {
  constexpr std::int64_t tile = Ownership::kTileRows;
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

// Where the vectors of a block go: into the fields, or, where these are not host memory, to be copied there; null where
// they are only checked and hashed.
struct Target {
  std::byte* x = nullptr;
  float* a = nullptr;
  std::int32_t* label = nullptr;  // class of each residual
};

// What one thread does with the blocks that it takes.
class Reader {
 public:
  Reader(const OpenedPool& opened, const Wanted& wanted, std::atomic<double>& floor, std::vector<float>& scores)
      : opened_(opened),
        shape_(opened.files.shape()),
        wanted_(wanted),
        format_(row_format(shape_, wanted)),
        scores_(scores),
        fingerprint_(shape_.rows) {
    if (wanted.score) scorer_.emplace(shape_, *wanted.score, wanted.best, floor);
  }

  void read(const Block& block, const Target& target) {
    read_small(block);
    if (wanted_.embeddings) read_embeddings(block, target.x);
    if (wanted_.residuals || wanted_.score) read_probabilities(block, target);
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

  void read_embeddings(const Block& block, std::byte* out) {
    const bool in_place = out && format_.type == Element::f32;
    const std::int64_t values = block.count * shape_.dim;
    if (!in_place) rows_.resize(static_cast<std::size_t>(values));
    float* x = in_place ? reinterpret_cast<float*>(out) : rows_.data();
    opened_.files.read_embeddings(
        block.first, block.count, {x, static_cast<std::size_t>(values)}, [&](std::int64_t first, std::int64_t count) {
          fingerprint_.add(Dataset::embeddings, first, count, x + (first - block.first) * shape_.dim,
                           static_cast<std::size_t>(shape_.dim) * sizeof(float));
        });
    if (out && !in_place) narrow(x, values, out);
  }

  void read_probabilities(const Block& block, const Target& target) {
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
      if (wanted_.residuals) write_residuals(rows, block, target);
      score_seconds_ += watch.lap();
    });
  }

  void write_residuals(const Distributions& rows, const Block& block, const Target& target) {
    const std::int64_t passes = std::max<std::int64_t>(shape_.passes, 1), width = passes * shape_.classes;
    row_.resize(static_cast<std::size_t>(width));
    for (std::int64_t i = 0; i < rows.count; ++i) {
      const std::int64_t in_block = rows.first + i - block.first, label = residual_class(rows.first + i, block);
      if (target.label) target.label[in_block] = static_cast<std::int32_t>(label);
      if (!target.a) continue;
      rows.part(i, 1, width).copy(width, row_.data());
      residual(row_.data(), passes, shape_.classes, label, target.a + in_block * shape_.classes);
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
  const RowFormat format_;
  std::vector<float>& scores_;  // of the own rows
  Fingerprint fingerprint_;
  std::optional<Scorer> scorer_;
  std::vector<double> room_, row_;
  std::vector<float> rows_;           // of the block, where they do not go to their target as they are
  std::vector<std::int64_t> labels_;  // of the block
  double score_seconds_ = 0;
};

class Loading {
 public:
  // room: for vectors that do not fit, which are only checked and hashed; absent: they fit.
  Loading(Backend& backend, const OpenedPool& opened, const Wanted& wanted, std::optional<std::int64_t> room,
          const Console* console)
      : backend_(backend),
        opened_(opened),
        shape_(opened.files.shape()),
        wanted_(wanted),
        format_(row_format(shape_, wanted)),
        room_(room),
        console_(console),
        workers_(std::max(1, wanted.threads)) {
    const std::int64_t own = opened.own.own();
    if (!room) fields_.x = Array<std::byte>(backend, own * format_.x_bytes());
    if (!room) fields_.a = Array<float>(backend, own * format_.classes);
    if (room && wanted.residuals_by_label && shape_.labels) fields_.label.emplace(own);
    if (wanted.score && wanted.best == 0) fields_.score.resize(static_cast<std::size_t>(own));
    readers_.reserve(static_cast<std::size_t>(workers_.threads()));
    for (int t = 0; t < workers_.threads(); ++t) readers_.emplace_back(opened, wanted, floor_, fields_.score);
  }

  void run() {
    const bool distributions = wanted_.residuals || wanted_.score;
    const std::int64_t width = distributions ? std::max<std::int64_t>(shape_.passes, 1) * shape_.classes : 0;
    const std::int64_t row_bytes = ((wanted_.embeddings ? shape_.dim : 0) + width) * 4 + 16;
    constexpr std::int64_t most = 4 << 20;
    const std::vector<Block> blocks =
        blocks_of(opened_.own, row_bytes, room_ ? std::min(most, *room_ / 4 / workers_.threads()) : most);
    const bool in_place = room_ || backend_.is_host_memory() || (format_.row_bytes() == 0);
    constexpr std::size_t kStagedBlocks = 16;
    const std::size_t group = in_place ? blocks.size() : kStagedBlocks;
    for (std::size_t first = 0; first < blocks.size(); first += group)
      read_group(std::span(blocks).subspan(first, std::min(group, blocks.size() - first)), in_place);
    if (wanted_.unit_rows && wanted_.embeddings && !room_)
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
  void read_group(std::span<const Block> blocks, bool in_place) {
    const std::int64_t start = blocks.front().at, rows = blocks.back().at + blocks.back().count - start;
    std::vector<std::byte> staged_x(in_place ? 0 : static_cast<std::size_t>(rows * format_.x_bytes()));
    std::vector<float> staged_a(in_place ? 0 : static_cast<std::size_t>(rows * format_.classes));
    Target all{staged_x.data(), staged_a.data()};
    if (in_place && !room_)
      all = {fields_.x.data() + start * format_.x_bytes(), fields_.a.data() + start * format_.classes};
    const auto count = static_cast<std::int64_t>(blocks.size());
    std::atomic<std::int64_t> done = start, faulty = count;
    std::mutex mutex;
    std::exception_ptr fault;
    workers_.share(count, [&](std::int64_t b, int thread) {
      if (b > faulty) return;
      const Block& block = blocks[static_cast<std::size_t>(b)];
      try {
        stop_if_asked();
        Target target;
        if (!room_)
          target = {all.x + (block.at - start) * format_.x_bytes(), all.a + (block.at - start) * format_.classes};
        if (fields_.label) target.label = fields_.label->data() + block.at;
        readers_[static_cast<std::size_t>(thread)].read(block, target);
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
    if (in_place) return;
    fields_.x.write(staged_x, start * format_.x_bytes());
    fields_.a.write(staged_a, start * format_.classes);
  }

  Backend& backend_;
  const OpenedPool& opened_;
  const PoolShape& shape_;
  const Wanted& wanted_;
  const RowFormat format_;
  const std::optional<std::int64_t> room_;
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
            const PoolRequest& request, const Console* console) {
  Stopwatch watch;
  const PoolShape& shape = opened.files.shape();
  const Memory memory = memory_for(comm, memory_need(shape, opened.own.own(), wanted), request);
  const auto room = std::make_shared<Room>(memory.room);
  const auto loading = comm.agree([&] {
    auto mine = std::make_unique<Loading>(backend, opened, wanted,
                                          memory.streams ? std::optional(memory.room) : std::nullopt, console);
    mine->run();
    return mine;
  });
  Columns columns;
  columns.rows.reserve(opened.roles.size());
  for (const Ownership::Run& run : opened.own.runs())
    for (std::int64_t i = 0; i < run.count; ++i) columns.rows.push_back(run.first + i);
  columns.role = opened.roles;
  if (wanted.score && wanted.best == 0) columns.score = std::move(loading->fields().score);
  columns.label = std::move(loading->fields().label);
  const RowFormat format = row_format(shape, wanted);
  const auto store = [&] {
    if (!memory.streams)
      return RowStore(backend, format, opened.own.own(), std::move(loading->fields().x),
                      std::move(loading->fields().a));
    return RowStore(backend, format,
                    {file_rows(opened.files, format, wanted.unit_rows), columns.rows,
                     columns.label.value_or(std::vector<std::int32_t>()), room});
  };
  if (memory.streams && console)
    console->info(
        fmt::format("the vectors of this pool do not fit --memory: up to {:.3f} GiB of each rank keep the rows that "
                    "are wanted most, the others are read again",
                    static_cast<double>(memory.room) / (1 << 30)));
  Pool pool(comm, backend, std::move(columns), store());
  const double score_seconds = loading->score_seconds();
  std::string fingerprint = loading->fingerprint().text(comm, shape);
  return {std::move(pool), std::move(fingerprint), watch.lap() - score_seconds, score_seconds, room, loading->best()};
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
    std::vector<std::int64_t> ascending;
    for (const auto& [row, place] : own) ascending.push_back(row);
    files.visit_probability_rows(ascending, room, [&](std::size_t k, const Distributions& one) {
      scored.push_back({static_cast<std::int64_t>(own[k].second), 0});
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
