#include "seine/row_store.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>

#include "seine/bytes.hpp"
#include "seine/error.hpp"
#include "seine/order.hpp"
#include "seine/ownership.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

constexpr std::int64_t kPartsOfRoom = 16;  // rows that are read, copied or worked on together take one at most

// The values at these positions; none where there are none.
template <class T>
std::vector<T> at(const std::vector<T>& values, std::span<const std::int64_t> positions) {
  std::vector<T> out;
  if (values.empty()) return out;
  out.reserve(positions.size());
  for (const std::int64_t i : positions) out.push_back(values[static_cast<std::size_t>(i)]);
  return out;
}

// Rows in backend memory, and which rows of a pool they are.
class Shelf {
 public:
  Shelf(Backend& backend, const RowFormat& format, std::int64_t capacity)
      : capacity_(capacity), rows_(backend, format, capacity), at_(backend, capacity) {}

  std::int64_t capacity() const { return capacity_; }
  const RowArrays& rows() const { return rows_; }
  RowArrays& rows() { return rows_; }
  const std::int64_t* write_positions(std::span<const std::int64_t> at) {
    at_.write(at);
    return at_.data();
  }
  Vectors vectors(std::int64_t count) const { return rows_.vectors(count); }

 private:
  std::int64_t capacity_;
  RowArrays rows_;
  Array<std::int64_t> at_;
};

// Rows that come and go: read by another thread, and on their way to the backend from there, while it works on others.
class Delivery {
 public:
  Delivery(Backend& backend, const RowFormat& format, std::int64_t capacity)
      : backend_(backend), format_(format), shelf_(backend, format, capacity) {
    if (backend.is_host_memory()) return;
    x_ = Staging<std::byte>(backend, capacity * format.x_bytes());
    a_ = Staging<float>(backend, capacity * format.classes);
  }

  std::vector<std::int64_t> positions;  // of the rows, ascending
  std::int64_t count() const { return static_cast<std::int64_t>(positions.size()); }

  // From any thread; the rows are under way when it returns.
  void read(const RowStore::Stream& stream) {
    if (positions.empty()) return;
    const bool in_place = backend_.is_host_memory();
    std::byte* const x = in_place ? rows().x() : x_.data();
    float* const a = in_place ? rows().a() : a_.data();
    stream.source->read(at(stream.rows, positions), at(stream.labels, positions), x, a);
    if (in_place) return;
    backend_.begin_copy_in(rows().x(), x, static_cast<std::size_t>(count() * format_.x_bytes()));
    if (format_.classes == 0) return;
    backend_.begin_copy_in(rows().a(), a, static_cast<std::size_t>(count() * format_.classes) * sizeof(float));
  }
  // After it. The rows have arrived when it returns.
  void await() {
    backend_.await_copies();
    if (format_.classes > 0) shelf_.rows().find_norms(0, count());
  }

  const RowArrays& rows() const { return shelf_.rows(); }
  Vectors vectors() const { return shelf_.vectors(count()); }
  const std::int64_t* write_positions() { return shelf_.write_positions(positions); }

 private:
  Backend& backend_;
  RowFormat format_;
  Shelf shelf_;
  Staging<std::byte> x_;  // none where the host may write to the memory of the backend
  Staging<float> a_;
};

}  // namespace

RowArrays::RowArrays(Backend& backend, const RowFormat& format, std::int64_t rows)
    : backend_(&backend), format_(format), x_(backend, rows * format.x_bytes()) {
  if (format.classes == 0) return;
  a_ = Array<float>(backend, rows * format.classes);
  x2_ = Array<double>(backend, rows);
  a2_ = Array<double>(backend, rows);
}

RowArrays::RowArrays(Backend& backend, const RowFormat& format, std::int64_t rows, Array<std::byte> x, Array<float> a)
    : backend_(&backend), format_(format), x_(std::move(x)), a_(std::move(a)) {
  if (format.classes == 0) return;
  x2_ = Array<double>(backend, rows);
  a2_ = Array<double>(backend, rows);
  find_norms(0, rows);
}

void RowArrays::write(std::int64_t first, std::int64_t count, const std::byte* x, const float* a) {
  x_.write({x, static_cast<std::size_t>(count * format_.x_bytes())}, first * format_.x_bytes());
  if (format_.classes == 0) return;
  a_.write({a, static_cast<std::size_t>(count * format_.classes)}, first * format_.classes);
  find_norms(first, count);
}

void RowArrays::take(const RowArrays& from, std::span<const std::int64_t> positions,
                     std::span<const std::int64_t> slots) {
  const auto take = [&](const auto& mine, const auto& theirs, std::int64_t item_bytes) {
    if (item_bytes > 0)
      backend_->scatter(theirs.data(), static_cast<std::size_t>(item_bytes), positions, mine.data(), slots);
  };
  take(x_, from.x_, format_.x_bytes());
  if (format_.classes == 0) return;
  take(a_, from.a_, format_.row_bytes() - format_.x_bytes());
  take(x2_, from.x2_, sizeof(double));
  take(a2_, from.a2_, sizeof(double));
}

Vectors RowArrays::vectors(std::int64_t count) const {
  return {count,
          {x_.data(), format_.type, format_.dim},
          {a_.data(), Element::f32, format_.classes},
          x2_.data(),
          a2_.data()};
}

void RowArrays::make_unit(std::int64_t count) {
  require(format_.type == Element::f32 && format_.classes == 0, "only float32 rows are divided by their norm");
  backend_->unit_rows(reinterpret_cast<float*>(x_.data()), count, format_.dim);
}

void RowArrays::find_norms(std::int64_t first, std::int64_t count) {
  const Vectors all = vectors(count);
  backend_->squared_norms(all.x.from(first), count, x2_.data() + first);
  backend_->squared_norms(all.a.from(first), count, a2_.data() + first);
}

std::int64_t RowStore::piece_bytes(std::int64_t room) {
  constexpr std::int64_t most = 8 * kMiB;
  return std::min(most, room / kPartsOfRoom);
}

std::int64_t RowStore::rows_that_fit(const RowFormat& format, std::int64_t room) {
  return room / 2 / kept_bytes(format);
}

// The rows that are read again, and those of them that stay in memory meanwhile.
struct RowStore::Streamed {
  Streamed(Backend& to, const RowFormat& of, Stream from)
      : backend(to),
        format(of),
        stream(std::move(from)),
        piece_rows(std::clamp(piece_bytes(stream.room->left()) / std::max<std::int64_t>(format.row_bytes(), 1),
                              kFewestRows, kMostPieceRows)) {}

  // Reads pieces ahead: while `work` has one, the next is on its way, to the host and from there to the backend.
  template <class Next, class Work>
  void read_ahead(const Next& next, const Work& work) {
    while (static_cast<std::int64_t>(pieces.size()) < kPieces)
      pieces.push_back(std::make_unique<Delivery>(backend, format, std::max(piece_rows, Ownership::kTileRows)));
    const auto begin = [&](Delivery& into) {
      into.positions = next();
      return std::async(std::launch::async, [this, &into] { into.read(stream); });
    };
    backend.await_copies();  // of a visit that ended early
    std::future<void> coming = begin(*pieces[0]);
    for (std::size_t k = 0;; k = 1 - k) {
      coming.get();
      Delivery& here = *pieces[k];
      if (here.positions.empty() || stop_signal() != 0) return;
      coming = begin(*pieces[1 - k]);
      here.await();
      work(here);
    }
  }

  // Memory for the rows that stay: half of what is left, taken when it is first asked for.
  void make_shelf() {
    if (shelf) return;
    const auto rows = static_cast<std::int64_t>(stream.rows.size());
    const std::int64_t capacity = std::min(rows, std::max(kFewestRows, rows_that_fit(format, stream.room->left())));
    taken = Room::Part(stream.room, capacity * kept_bytes(format));
    shelf.emplace(backend, format, capacity);
    slot_of.assign(stream.rows.size(), kNoSlot);
  }

  // Which urgency a row must have to stay: about the capacity-th largest.
  double threshold(std::span<const double> urgency) const {
    const std::size_t stride = std::max<std::size_t>(1, urgency.size() / 65536);
    std::vector<double> some;
    for (std::size_t i = 0; i < urgency.size(); i += stride) some.push_back(urgency[i]);
    const std::size_t place = static_cast<std::size_t>(shelf->capacity()) / stride;
    if (place >= some.size()) return -HUGE_VAL;
    std::nth_element(some.begin(), some.begin() + static_cast<std::ptrdiff_t>(place), some.end(), std::greater<>());
    return some[place];
  }

  // Rows of a piece that belong on the shelf, onto it.
  void keep(const Delivery& piece, std::span<const double> urgency, double least, std::vector<std::int32_t>& open) {
    std::vector<std::int64_t> kept, slots;  // where they are in the piece, and where they go
    for (std::size_t i = 0; i < piece.positions.size(); ++i) {
      const auto position = static_cast<std::size_t>(piece.positions[i]);
      if (!(urgency[position] >= least)) continue;
      std::int32_t slot = kNoSlot;
      if (static_cast<std::int64_t>(row_in.size()) < shelf->capacity()) {
        slot = static_cast<std::int32_t>(row_in.size());
        row_in.push_back(0);
      } else if (!open.empty()) {
        slot = open.back();
        open.pop_back();
        slot_of[static_cast<std::size_t>(row_in[static_cast<std::size_t>(slot)])] = kNoSlot;
      } else {
        break;
      }
      row_in[static_cast<std::size_t>(slot)] = piece.positions[i];
      slot_of[position] = slot;
      kept.push_back(static_cast<std::int64_t>(i));
      slots.push_back(slot);
    }
    shelf->rows().take(piece.rows(), kept, slots);
  }

  static constexpr std::int32_t kNoSlot = -1;

  Backend& backend;
  RowFormat format;
  Stream stream;
  std::int64_t piece_rows;
  Room::Part taken;
  std::optional<Shelf> shelf;
  std::vector<std::unique_ptr<Delivery>> pieces;  // none before rows are read again
  std::vector<std::int32_t> slot_of;              // of each row; kNoSlot: only in the files
  std::vector<std::int64_t> row_in;               // position of the row in each used slot
};

RowStore::RowStore(Backend& backend, const RowFormat& format, std::int64_t rows, Array<std::byte> x, Array<float> a)
    : backend_(&backend), format_(format), rows_(rows), all_(backend, format, rows, std::move(x), std::move(a)) {}

RowStore::RowStore(Backend& backend, const RowFormat& format, Stream stream)
    : backend_(&backend),
      format_(format),
      rows_(static_cast<std::int64_t>(stream.rows.size())),
      streamed_(std::make_unique<Streamed>(backend, format, std::move(stream))) {}

RowStore::RowStore(RowStore&&) noexcept = default;
RowStore& RowStore::operator=(RowStore&&) noexcept = default;
RowStore::~RowStore() = default;

std::int64_t RowStore::at_once(std::int64_t most) const {
  if (resident()) return most;
  const std::int64_t fitting =
      streamed_->stream.room->left() / kPartsOfRoom / std::max<std::int64_t>(format_.row_bytes(), 1);
  return std::clamp(fitting, kFewestRows, std::max(most, kFewestRows));
}

Vectors RowStore::vectors() const {
  require(resident(), "vectors of all rows are at hand where these are resident");
  return all_.vectors(rows_);
}

void RowStore::visit_all(const Piece& work) const {
  if (rows_ == 0) return;
  if (resident()) return work(0, vectors());
  const std::vector<std::int64_t>& rows = streamed_->stream.rows;
  std::int64_t at = 0;
  const auto next = [&] {
    // As many whole tiles as fit; one tile is at most what a piece can hold.
    const auto tile = [&](std::int64_t i) { return rows[static_cast<std::size_t>(i)] / Ownership::kTileRows; };
    std::vector<std::int64_t> positions;
    for (std::int64_t i = at; i < rows_;) {
      std::int64_t end = i + 1;
      while (end < rows_ && tile(end) == tile(i)) ++end;
      if (!positions.empty() && static_cast<std::int64_t>(positions.size()) + end - i > streamed_->piece_rows) break;
      for (; i < end; ++i) positions.push_back(i);
    }
    at += static_cast<std::int64_t>(positions.size());
    return positions;
  };
  streamed_->read_ahead(next, [&](const Delivery& piece) { work(piece.positions.front(), piece.vectors()); });
}

void RowStore::visit(std::span<const std::int64_t> positions, std::span<const double> urgency,
                     const Scattered& work) const {
  if (positions.empty()) return;
  if (resident()) return work(vectors(), nullptr);
  Streamed& streamed = *streamed_;
  streamed.make_shelf();
  // Of now: rows that come may take the slots of others. One bit for each, as they may be all rows.
  std::vector<bool> is_missing;
  is_missing.reserve(positions.size());
  for (const std::int64_t position : positions)
    is_missing.push_back(streamed.slot_of[static_cast<std::size_t>(position)] == Streamed::kNoSlot);
  const auto missing = std::count(is_missing.begin(), is_missing.end(), true);
  if (missing < static_cast<std::ptrdiff_t>(positions.size()))
    work(streamed.shelf->vectors(static_cast<std::int64_t>(streamed.row_in.size())),
         streamed.shelf->write_positions(streamed.row_in));
  if (missing == 0) return;

  const double least = streamed.threshold(urgency);
  std::vector<std::int32_t> open;
  for (std::size_t slot = 0; slot < streamed.row_in.size(); ++slot)
    if (urgency[static_cast<std::size_t>(streamed.row_in[slot])] < least)
      open.push_back(static_cast<std::int32_t>(slot));
  std::size_t at = 0;
  const auto next = [&] {
    std::vector<std::int64_t> piece;
    for (; at < positions.size() && static_cast<std::int64_t>(piece.size()) < streamed.piece_rows; ++at)
      if (is_missing[at]) piece.push_back(positions[at]);
    return piece;
  };
  streamed.read_ahead(next, [&](Delivery& piece) {
    work(piece.vectors(), piece.write_positions());
    streamed.keep(piece, urgency, least, open);
  });
}

void RowStore::gather(std::span<const std::int64_t> positions, std::byte* x, float* a) const {
  const auto x_bytes = static_cast<std::size_t>(format_.x_bytes()), classes = static_cast<std::size_t>(format_.classes);
  if (positions.empty()) return;
  if (resident()) {
    const Vectors all = vectors();
    if (x && x_bytes > 0) backend_->gather(all.x.data, x_bytes, positions, x);
    if (a && classes > 0) backend_->gather(all.a.data, classes * sizeof(float), positions, a);
    return;
  }
  const Streamed& streamed = *streamed_;
  std::vector<std::int64_t> slots;
  std::vector<std::size_t> kept, missing;  // places in `positions`
  for (std::size_t i = 0; i < positions.size(); ++i) {
    const std::int32_t slot =
        streamed.shelf ? streamed.slot_of[static_cast<std::size_t>(positions[i])] : Streamed::kNoSlot;
    (slot == Streamed::kNoSlot ? missing : kept).push_back(i);
    if (slot != Streamed::kNoSlot) slots.push_back(slot);
  }
  std::vector<std::byte> some_x;
  std::vector<float> some_a;
  const auto make_room = [&](std::size_t count) {
    some_x.resize(count * x_bytes);
    some_a.resize(count * classes);
  };
  const auto deal = [&](const std::vector<std::size_t>& places) {
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (x) std::memcpy(x + places[i] * x_bytes, some_x.data() + i * x_bytes, x_bytes);
      if (a && classes > 0) std::memcpy(a + places[i] * classes, some_a.data() + i * classes, classes * sizeof(float));
    }
  };
  if (!kept.empty()) {
    const Vectors shelf = streamed.shelf->vectors(streamed.shelf->capacity());
    make_room(kept.size());
    backend_->gather(shelf.x.data, x_bytes, slots, some_x.data());
    if (classes > 0) backend_->gather(shelf.a.data, classes * sizeof(float), slots, some_a.data());
    deal(kept);
  }
  if (missing.empty()) return;
  std::sort(missing.begin(), missing.end(), [&](std::size_t i, std::size_t j) { return positions[i] < positions[j]; });
  std::vector<std::int64_t> of_missing;
  for (const std::size_t i : missing) of_missing.push_back(positions[i]);
  make_room(missing.size());
  const Stream& stream = streamed.stream;
  stream.source->read(at(stream.rows, of_missing), at(stream.labels, of_missing), some_x.data(), some_a.data());
  deal(missing);
}

bool RowStore::has_room_for(std::int64_t rows) const {
  return resident() || rows * format_.row_bytes() <= streamed_->stream.room->left() / 2;
}

RowStore RowStore::chosen(std::span<const std::int64_t> positions, bool in_memory) const {
  if (resident()) return gathered(positions);
  const Stream& stream = streamed_->stream;
  if (!in_memory)
    return RowStore(*backend_, format_, *stream_of(at(stream.rows, positions), at(stream.labels, positions)));
  Room::Part taken(stream.room, static_cast<std::int64_t>(positions.size()) * format_.row_bytes());
  RowStore store = gathered(positions);
  store.taken_ = std::move(taken);
  return store;
}

RowStore RowStore::gathered(std::span<const std::int64_t> positions) const {
  std::vector<std::byte> x(positions.size() * static_cast<std::size_t>(format_.x_bytes()));
  std::vector<float> a(positions.size() * static_cast<std::size_t>(format_.classes));
  gather(positions, x.data(), a.data());
  return RowStore(*backend_, format_, static_cast<std::int64_t>(positions.size()),
                  Array<std::byte>(*backend_, std::span<const std::byte>(x)),
                  Array<float>(*backend_, std::span<const float>(a)));
}

void RowStore::make_unit() {
  if (resident()) return all_.make_unit(rows_);
  Stream stream = std::move(streamed_->stream);
  stream.source = stream.source->unit();
  *this = RowStore(*backend_, format_, std::move(stream));
}

std::optional<RowStore::Stream> RowStore::stream_of(std::vector<std::int64_t> rows, std::vector<std::int32_t> labels,
                                                    std::shared_ptr<const RowSource> source) const {
  if (resident()) return std::nullopt;
  if (!source) source = streamed_->stream.source;
  return Stream{std::move(source), std::move(rows), std::move(labels), streamed_->stream.room};
}

std::shared_ptr<const RowSource> RowStore::source_among(std::span<const std::int64_t> rows,
                                                        std::span<const std::int32_t> labels) const {
  return resident() ? nullptr : streamed_->stream.source->among(rows, labels);
}

}  // namespace seine
