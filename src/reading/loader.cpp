#include "reading/loader.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <memory>
#include <mutex>
#include <utility>

#include <fmt/format.h>

#include "host_rows.hpp"
#include "process_memory.hpp"
#include "reading/file_rows.hpp"
#include "reading/fingerprint.hpp"
#include "scores/scorer.hpp"
#include "seine/bytes.hpp"
#include "seine/error.hpp"
#include "seine/stop.hpp"
#include "stopwatch.hpp"
#include "workers.hpp"

namespace seine {
namespace {

// The fields of the own rows while they are filled block by block.
struct Fields {
  Array<std::byte> x;
  Array<float> a;
  std::vector<float> score;
  std::optional<std::vector<std::int32_t>> label;  // of residuals that are read again
};

// Consecutive own rows, whole tiles; `at` is the position of the first among the own rows.
struct Block {
  std::int64_t first, count, at;
};

std::vector<Block> blocks_of(const Ownership& own, const PoolShape& shape, const Wanted& wanted) {
  constexpr std::int64_t tile = Ownership::kTileRows;
  const std::int64_t rows = bytes_of_block(shape, wanted) / bytes_of_row_read(shape, wanted) / tile * tile;
  std::vector<Block> blocks;
  std::int64_t at = 0;
  for (const Ownership::Run& run : own.runs())
    for (std::int64_t i = 0; i < run.count; i += rows) {
      blocks.push_back({run.first + i, std::min(rows, run.count - i), at});
      at += blocks.back().count;
    }
  return blocks;
}

// Where the vectors of a block go: into the fields, or where they are copied from, to the device or a temporary file;
// null where they are only checked and hashed.
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
  // streams: vectors do not stay; they are checked, hashed, and written to `spilled` where there is one.
  Loading(Backend& backend, const OpenedPool& opened, const Wanted& wanted, bool streams, const SpilledRows* spilled,
          const Console* console)
      : backend_(backend),
        opened_(opened),
        shape_(opened.files.shape()),
        wanted_(wanted),
        format_(row_format(shape_, wanted)),
        streams_(streams),
        spilled_(spilled),
        console_(console),
        workers_(std::max(1, wanted.threads)) {
    const std::int64_t own = opened.own.own();
    if (!streams) fields_.x = Array<std::byte>(backend, own * format_.x_bytes());
    if (!streams) fields_.a = Array<float>(backend, own * format_.classes);
    if (streams && wanted.residuals_by_label && shape_.labels) fields_.label.emplace(own);
    if (wanted.score && wanted.best == 0) fields_.score.resize(static_cast<std::size_t>(own));
    readers_.reserve(static_cast<std::size_t>(workers_.threads()));
    for (int t = 0; t < workers_.threads(); ++t) readers_.emplace_back(opened, wanted, floor_, fields_.score);
  }

  void run() {
    const std::vector<Block> blocks = blocks_of(opened_.own, shape_, wanted_);
    if (streams_ || backend_.is_host_memory() || format_.row_bytes() == 0)
      read_group(blocks, {fields_.x.data(), fields_.a.data()});
    else
      read_and_copy(blocks);
    if (wanted_.unit_rows && wanted_.embeddings && !streams_)
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
  // While one group of blocks is read, the one before is on its way to the device.
  void read_and_copy(std::span<const Block> blocks) {
    std::int64_t most = 0;
    for (const Block& block : blocks) most = std::max(most, block.count);
    std::vector<Staging<std::byte>> x;
    std::vector<Staging<float>> a;
    for (int i = 0; i < 2; ++i) {
      x.emplace_back(backend_, kStagedBlocks * most * format_.x_bytes());
      a.emplace_back(backend_, kStagedBlocks * most * format_.classes);
    }
    for (std::size_t first = 0, k = 0; first < blocks.size(); first += kStagedBlocks, k = 1 - k) {
      const auto group = blocks.subspan(first, std::min<std::size_t>(kStagedBlocks, blocks.size() - first));
      const std::int64_t start = group.front().at, rows = group.back().at + group.back().count - start;
      read_group(group, {x[k].data(), a[k].data()});
      backend_.await_copies();  // of the group before: its memory is the next one's
      const auto send = [&](auto& to, const auto& staged, std::int64_t width) {
        backend_.begin_copy_in(to.data() + start * width, staged.data(),
                               static_cast<std::size_t>(rows * width) * sizeof(*staged.data()));
      };
      send(fields_.x, x[k], format_.x_bytes());
      send(fields_.a, a[k], format_.classes);
    }
    backend_.await_copies();
  }

  // The blocks, one behind the other, to where the first begins. Of several faults, that of the first block counts,
  // whichever thread finds it.
  void read_group(std::span<const Block> blocks, const Target& to) {
    if (blocks.empty()) return;
    const std::int64_t start = blocks.front().at, count = static_cast<std::int64_t>(blocks.size());
    std::atomic<std::int64_t> done = start, faulty = count;
    std::mutex mutex;
    std::exception_ptr fault;
    workers_.share(count, [&](std::int64_t b, int thread) {
      if (b > faulty) return;
      const Block& block = blocks[static_cast<std::size_t>(b)];
      try {
        stop_if_asked();
        Target target;
        if (!streams_)
          target = {to.x + (block.at - start) * format_.x_bytes(), to.a + (block.at - start) * format_.classes};
        if (fields_.label) target.label = fields_.label->data() + block.at;
        read_block(block, target, static_cast<std::size_t>(thread));
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
  }

  void read_block(const Block& block, Target target, std::size_t thread) {
    if (!spilled_) return readers_[thread].read(block, target);
    std::vector<std::byte> x(static_cast<std::size_t>(block.count * format_.x_bytes()));
    std::vector<float> a(static_cast<std::size_t>(block.count * format_.classes));
    target.x = x.data();
    target.a = a.data();
    readers_[thread].read(block, target);
    spilled_->write(block.at, block.count, x.data(), a.data());
  }

  Backend& backend_;
  const OpenedPool& opened_;
  const PoolShape& shape_;
  const Wanted& wanted_;
  const RowFormat format_;
  const bool streams_;
  const SpilledRows* const spilled_;
  const Console* console_;
  Fields fields_;
  std::atomic<double> floor_ = kNoCandidate.value;
  Workers workers_;
  std::vector<Reader> readers_;  // one per thread
};

// Whether single rows of what is streamed are as quick to read as others.
bool reads_rows_alone(const PoolFiles& files, const Wanted& wanted) {
  return (!wanted.embeddings || files.reads_rows_alone(Dataset::embeddings)) &&
         (!wanted.residuals || files.reads_rows_alone(Dataset::probabilities));
}

// Where streamed rows go on the way, so that no chunk is inflated again; null: nowhere.
std::shared_ptr<const SpilledRows> spill_for(const OpenedPool& opened, const Wanted& wanted, const Console* console) {
  if (reads_rows_alone(opened.files, wanted)) return nullptr;
  try {
    return std::make_shared<SpilledRows>(row_format(opened.files.shape(), wanted), opened.own.own());
  } catch (const Error& error) {
    if (console) console->warn(fmt::format("{}; rows are read again from their chunks, which is slow", error.what()));
    return nullptr;
  }
}

// Collective. From now on chunks take what was not counted: nothing, or, where single rows are read out of them, a part
// of the room.
void settle_chunks(const Comm& comm, bool reads_chunks, const PoolFiles& files, const Memory& memory) {
  comm.agree([&] {
    const std::shared_ptr<Room>& room = memory.host;
    const Chunks& chunks = files.shape().chunks;
    if (!reads_chunks) return files.keep_chunks(chunks.fewest);
    if (memory.limited && room->left() < chunks.least())
      throw Error(Exit::system,
                  fmt::format("a rank needs {:.3f} GiB more for the chunks of the pool, or a $TMPDIR with "
                              "room for its rows",
                              in_gib(chunks.least() - room->left())));
    const std::int64_t kept = std::clamp(room->left() / 4 - chunks.inflating, chunks.fewest, chunks.all);
    files.keep_chunks(kept);
    room->take(chunks.inflating + kept);
  });
}

}  // namespace

Memory memory_for(const Comm& comm, const MemoryNeed& need, const PoolRequest& request) {
  const auto alike = [](std::int64_t bytes, bool streams) {
    const auto room = std::make_shared<Room>(bytes);
    return Memory{room, room, streams};
  };
  if (request.stream_room) return alike(*request.stream_room, true);
  if (!request.memory_gib) return alike(kGiB, false);
  const double host_left = *request.memory_gib * kGiB - static_cast<double>(resident_bytes());
  const bool on_gpu = request.device_gib.has_value();
  const MemoryNeed of_host = on_gpu ? on_host(need) : need, of_vectors = on_gpu ? on_device(need) : need;
  const double left = on_gpu ? *request.device_gib * kGiB : host_left;
  const bool streams = comm.max(fits(of_vectors, left) && fits(of_host, host_left) ? 0 : 1) > 0;
  const auto agreed_room = [&](const MemoryNeed& part, double part_left, const auto& refusal) {
    const double own_room = room_of(part, streams, part_left);
    const double room = -comm.max(-own_room);
    comm.agree([&] {
      if (own_room < 0) throw Error(Exit::system, refusal(own_room));
    });
    return std::make_shared<Room>(static_cast<std::int64_t>(std::clamp(room, 0.0, 0x1p62)));
  };
  // What the process has in memory already differs a little from run to run.
  constexpr double kMargin = 2 * kMiB;
  const auto enough = [](double given, double own_room) {
    return std::ceil((given + (kMargin - own_room) / kGiB) * 1000) / 1000;
  };
  const std::shared_ptr<Room> host = agreed_room(of_host, host_left, [&](double own_room) {
    return too_little_memory(enough(*request.memory_gib, own_room), *request.memory_gib) +
           ": use more ranks or more memory";
  });
  if (!on_gpu) return {host, host, streams, true};
  const std::shared_ptr<Room> device = agreed_room(of_vectors, left, [&](double own_room) {
    return too_little_of_gpu(enough(*request.device_gib, own_room), *request.device_gib) +
           ": use more GPUs, or --device cpu";
  });
  return {device, host, streams, true};
}

Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted,
            const PoolRequest& request, const Console* console) {
  const MemoryNeed need = memory_need(opened.files.shape(), opened.own.own(), wanted);
  return load(comm, backend, opened, wanted, memory_for(comm, need, request), console);
}

Loaded load(const Comm& comm, Backend& backend, const OpenedPool& opened, const Wanted& wanted, const Memory& memory,
            const Console* console) {
  Stopwatch watch;
  const PoolShape& shape = opened.files.shape();
  const std::shared_ptr<Room>& room = memory.room;
  const std::shared_ptr<const SpilledRows> spilled = memory.streams ? spill_for(opened, wanted, console) : nullptr;
  // Nothing else has taken of the room yet, and chunks take part of it only until they are read.
  opened.files.keep_chunks(shape.chunks.fewest + memory.host->left() / 2);
  const auto loading = comm.agree([&] {
    auto mine = std::make_unique<Loading>(backend, opened, wanted, memory.streams, spilled.get(), console);
    mine->run();
    return mine;
  });
  settle_chunks(comm, memory.streams && !spilled && !reads_rows_alone(opened.files, wanted), opened.files, memory);
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
    auto source = file_rows(opened.files, format, wanted.unit_rows && !spilled);
    if (spilled) source = spilled_rows(spilled, opened.own, std::move(source), wanted.unit_rows);
    return RowStore(backend, format,
                    {std::move(source), columns.rows, columns.label.value_or(std::vector<std::int32_t>()), room});
  };
  if (memory.streams && console)
    console->info(
        fmt::format("the vectors of this pool do not fit {}: up to {:.3f} GiB of each rank keep the rows that "
                    "are wanted most, the others are read again",
                    memory.host == room ? "--memory" : "the GPU", in_gib(room->left())));
  Pool pool(comm, backend, std::move(columns), store());
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
