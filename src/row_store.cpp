#include "seine/row_store.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <future>

#include "seine/error.hpp"
#include "seine/order.hpp"
#include "seine/ownership.hpp"
#include "seine/stop.hpp"

namespace seine {
namespace {

// The values at these positions; none where there are none.
template <class T>
std::vector<T> at(const std::vector<T>& values, std::span<const std::int64_t> positions) {
  std::vector<T> out;
  if (values.empty()) return out;
  out.reserve(positions.size());
  for (const std::int64_t i : positions) out.push_back(values[static_cast<std::size_t>(i)]);
  return out;
}

// Rows in backend memory that are written one stretch after the other: a piece on its way, or those that stay.
class Shelf {
 public:
  Shelf(Backend& backend, const RowFormat& format, std::int64_t capacity)
      : capacity_(capacity), rows_(backend, format, capacity), at_(backend, capacity) {}

  std::int64_t capacity() const { return capacity_; }
  void write(std::int64_t slot, std::int64_t count, const std::byte* x, const float* a) {
    rows_.write(slot, count, x, a);
  }
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

// Rows on the host, as they were read.
struct Staged {
  std::vector<std::int64_t> positions;
  std::vector<std::byte> x;
  std::vector<float> a;
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
  constexpr std::int64_t most = std::int64_t{8} << 20;
  return std::min(most, room / 16);
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

  // Reads pieces ahead: while `work` has one, the next is on its way.
  template <class Next, class Work>
  void read_ahead(const Next& next, const Work& work) {
    if (!piece) piece.emplace(backend, format, std::max(piece_rows, Ownership::kTileRows));
    Staged staged[2];
    const auto begin = [&](Staged& into) {
      into.positions = next();
      return std::async(std::launch::async, [this, &into] { read(into); });
    };
    std::future<void> coming = begin(staged[0]);
    for (int k = 0;; k = 1 - k) {
      coming.get();
      if (staged[k].positions.empty() || stop_signal() != 0) return;
      coming = begin(staged[1 - k]);
      const Staged& here = staged[k];
      const auto count = static_cast<std::int64_t>(here.positions.size());
      piece->write(0, count, here.x.data(), here.a.data());
      work(here, piece->vectors(count));
    }
  }

  void read(Staged& staged) const {
    const std::vector<std::int64_t> numbers = at(stream.rows, staged.positions);
    const std::vector<std::int32_t> labels = at(stream.labels, staged.positions);
    staged.x.resize(numbers.size() * static_cast<std::size_t>(format.x_bytes()));
    staged.a.resize(numbers.size() * static_cast<std::size_t>(format.classes));
    if (!numbers.empty()) stream.source->read(numbers, labels, staged.x.data(), staged.a.data());
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
  void keep(const Staged& staged, std::span<const double> urgency, double least, std::vector<std::int32_t>& open) {
    for (std::size_t i = 0; i < staged.positions.size(); ++i) {
      const auto position = static_cast<std::size_t>(staged.positions[i]);
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
        return;
      }
      row_in[static_cast<std::size_t>(slot)] = staged.positions[i];
      slot_of[position] = slot;
      shelf->write(slot, 1, staged.x.data() + i * static_cast<std::size_t>(format.x_bytes()),
                   staged.a.data() + i * static_cast<std::size_t>(format.classes));
    }
  }

  static constexpr std::int32_t kNoSlot = -1;

  Backend& backend;
  RowFormat format;
  Stream stream;
  std::int64_t piece_rows;
  Room::Part taken;
  std::optional<Shelf> shelf, piece;
  std::vector<std::int32_t> slot_of;  // of each row; kNoSlot: only in the files
  std::vector<std::int64_t> row_in;   // position of the row in each used slot
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
  const std::int64_t fitting = streamed_->stream.room->left() / 16 / std::max<std::int64_t>(format_.row_bytes(), 1);
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
  streamed_->read_ahead(next, [&](const Staged& staged, const Vectors& v) { work(staged.positions.front(), v); });
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
  streamed.read_ahead(next, [&](const Staged& staged, const Vectors& v) {
    work(v, streamed.piece->write_positions(staged.positions));
    streamed.keep(staged, urgency, least, open);
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
  Staged staged;
  const auto deal = [&](const std::vector<std::size_t>& places) {
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (x) std::memcpy(x + places[i] * x_bytes, staged.x.data() + i * x_bytes, x_bytes);
      if (a && classes > 0)
        std::memcpy(a + places[i] * classes, staged.a.data() + i * classes, classes * sizeof(float));
    }
  };
  if (!kept.empty()) {
    const Vectors shelf = streamed.shelf->vectors(streamed.shelf->capacity());
    staged.x.resize(kept.size() * x_bytes);
    staged.a.resize(kept.size() * classes);
    backend_->gather(shelf.x.data, x_bytes, slots, staged.x.data());
    if (classes > 0) backend_->gather(shelf.a.data, classes * sizeof(float), slots, staged.a.data());
    deal(kept);
  }
  std::sort(missing.begin(), missing.end(), [&](std::size_t i, std::size_t j) { return positions[i] < positions[j]; });
  for (const std::size_t i : missing) staged.positions.push_back(positions[i]);
  streamed.read(staged);
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
