// The vectors of a pool's own rows, wherever they are: all of them in the memory of the backend, or the most wanted of
// them there and the others in the pool's files.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "seine/backend.hpp"

namespace seine {

struct RowFormat {
  Element type = Element::f32;
  std::int64_t dim = 0;
  std::int64_t classes = 0;  // of the residuals; 0: none

  std::int64_t x_bytes() const { return dim * static_cast<std::int64_t>(element_bytes(type)); }
  std::int64_t row_bytes() const { return x_bytes() + classes * static_cast<std::int64_t>(sizeof(float)); }
};

// Vectors of rows of one format in backend memory, with the norms that outer products need.
class RowArrays {
 public:
  RowArrays() = default;
  RowArrays(Backend& backend, const RowFormat& format, std::int64_t rows);  // to be written
  RowArrays(Backend& backend, const RowFormat& format, std::int64_t rows, Array<std::byte> x, Array<float> a);

  void write(std::int64_t first, std::int64_t count, const std::byte* x, const float* a);  // from the host
  // Rows of another such array, in backend memory, to these slots of this one.
  void take(const RowArrays& from, std::span<const std::int64_t> positions, std::span<const std::int64_t> slots);
  Vectors vectors(std::int64_t count) const;  // the first ones
  void make_unit(std::int64_t count);

  // To be written in another way, whereupon the norms are to be found.
  std::byte* x() const { return x_.data(); }
  float* a() const { return a_.data(); }
  void find_norms(std::int64_t first, std::int64_t count);

 private:
  Backend* backend_ = nullptr;
  RowFormat format_;
  Array<std::byte> x_;
  Array<float> a_;
  Array<double> x2_, a2_;  // only with residuals
};

// Where the vectors of rows can be read again.
class RowSource {
 public:
  virtual ~RowSource() = default;
  // Rows by global number, ascending; x and a are on the host. `labels`: the class that a residual is taken of, where
  // it is not negative; empty: the predicted one everywhere. Calls may come from another thread, one at a time. Errors
  // 65 and 74 where the files have changed since they were checked.
  virtual void read(std::span<const std::int64_t> rows, std::span<const std::int32_t> labels, std::byte* x,
                    float* a) const = 0;
  // The same rows, divided by their 2-norms.
  virtual std::shared_ptr<const RowSource> unit() const = 0;
  // The same for these rows, ascending, where it is worth putting them elsewhere before they are read again and again;
  // null: it is not. Error 73 where there is no room for them.
  virtual std::shared_ptr<const RowSource> among(std::span<const std::int64_t> /*rows*/,
                                                 std::span<const std::int32_t> /*labels*/) const {
    return nullptr;
  }
};

// What one process may still take for vectors; shared by all of its stores.
class Room {
 public:
  explicit Room(std::int64_t bytes) : left_(bytes) {}
  std::int64_t left() const { return left_; }
  void take(std::int64_t bytes) { left_ -= bytes; }  // for good

  // A part of it, given back when it ends.
  class Part {
   public:
    Part() = default;
    Part(std::shared_ptr<Room> room, std::int64_t bytes) : room_(std::move(room)), bytes_(bytes) {
      room_->left_ -= bytes_;
    }
    Part(Part&& other) noexcept { *this = std::move(other); }
    Part& operator=(Part&& other) noexcept {
      std::swap(room_, other.room_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Part() {
      if (room_) room_->left_ += bytes_;
    }

   private:
    std::shared_ptr<Room> room_;
    std::int64_t bytes_ = 0;
  };

 private:
  std::int64_t left_;
};

class RowStore {
 public:
  // How the room for rows that are read again is shared out. Whatever it is, the fewest rows are kept and fetched.
  static constexpr std::int64_t kRowsAtOnce = 1024, kFewestRows = 64, kMostPieceRows = 4096;
  static std::int64_t piece_bytes(std::int64_t room);  // read, copied and worked on together
  static std::int64_t kept_bytes(const RowFormat& format) { return format.row_bytes() + 32; }  // of a row that stays
  static std::int64_t rows_that_fit(const RowFormat& format, std::int64_t room);               // and stay
  // Beside them, of every row: its number and its slot; its key, and its position where it is wanted.
  static constexpr std::int64_t kBytesPerRow = 8 + 4 + 8 + 8;
  // What comes and goes: the piece that is worked on, and the next one.
  static constexpr std::int64_t kPieces = 2;

  // What is read again, from where, and the memory to keep the most wanted rows in.
  struct Stream {
    std::shared_ptr<const RowSource> source;
    std::vector<std::int64_t> rows;    // global numbers, ascending
    std::vector<std::int32_t> labels;  // of each row, or empty; see RowSource
    std::shared_ptr<Room> room;
  };

  // All rows in memory: x [rows, dim] of the format's type, a [rows, classes]; both may be absent.
  RowStore(Backend& backend, const RowFormat& format, std::int64_t rows, Array<std::byte> x, Array<float> a);
  RowStore(Backend& backend, const RowFormat& format, Stream stream);
  RowStore(RowStore&&) noexcept;
  RowStore& operator=(RowStore&&) noexcept;
  ~RowStore();

  const RowFormat& format() const { return format_; }
  std::int64_t rows() const { return rows_; }
  bool resident() const { return !streamed_; }
  // How many rows to ask for together, up to `most` (but 64 always): a few times so many fit beside what is kept.
  std::int64_t at_once(std::int64_t most) const;
  Vectors vectors() const;  // of all rows, in backend memory; only where they are resident

  // All rows in order, piece by piece; a piece ends where a tile of 256 global rows ends.
  using Piece = std::function<void(std::int64_t first, const Vectors& vectors)>;
  void visit_all(const Piece& work) const;
  // At least the rows at these positions, ascending, in pieces: vector i is that of row at[i], or i where `at` is null.
  // `urgency` of all rows decides which stay in memory.
  using Scattered = std::function<void(const Vectors& vectors, const std::int64_t* at)>;
  void visit(std::span<const std::int64_t> positions, std::span<const double> urgency, const Scattered& work) const;
  // Rows at these positions, packed, to the host; x or a may be null.
  void gather(std::span<const std::int64_t> positions, std::byte* x, float* a) const;

  // Rows at these positions, ascending, as a store of their own; in memory, or streamed like this one.
  RowStore chosen(std::span<const std::int64_t> positions, bool in_memory) const;
  bool has_room_for(std::int64_t rows) const;  // in memory, beside what is there
  void make_unit();  // divides x by its 2-norm; a zero row stays zero. float32 without residuals
  // How rows of another pool are read; absent where this store is resident. `source`: from where; null: as here.
  std::optional<Stream> stream_of(std::vector<std::int64_t> rows, std::vector<std::int32_t> labels,
                                  std::shared_ptr<const RowSource> source = nullptr) const;
  // RowSource::among of where this store reads; null where it is resident.
  std::shared_ptr<const RowSource> source_among(std::span<const std::int64_t> rows,
                                                std::span<const std::int32_t> labels) const;

 private:
  struct Streamed;
  RowStore gathered(std::span<const std::int64_t> positions) const;  // in memory

  Backend* backend_;
  RowFormat format_;
  std::int64_t rows_;
  RowArrays all_;     // where they are resident
  Room::Part taken_;  // of resident rows of a streamed pool
  std::unique_ptr<Streamed> streamed_;
};

}  // namespace seine
