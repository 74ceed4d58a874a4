// Every MPI call of the project. A communicator of one rank makes none of them.
#include "seine/comm.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <new>
#include <numeric>
#include <system_error>
#include <utility>

#include "seine/stop.hpp"

namespace seine {
namespace {

constexpr std::size_t kChunk = std::size_t{1} << 30;      // bytes per message: MPI counts are int
constexpr std::size_t kFewValues = 512;                   // that are copied to make room for one more
constexpr std::uint64_t kStops = std::uint64_t{1} << 63;  // in a number of bytes: the rank wants to stop
constexpr int kExchangeTag = 1, kNoticeTag = 2;

void check(int status, const char* call) {
  if (status == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(status, text, &length);
  throw Error(Exit::system,
              fmt::format("{} failed: {}", call, std::string_view(text, static_cast<std::size_t>(length))));
}

bool is_running() {
  int initialised = 0, finalised = 0;
  MPI_Initialized(&initialised);
  MPI_Finalized(&finalised);
  return initialised && !finalised;
}

// Calls `move(offset, count)` for pieces whose byte count fits an int.
template <class Move>
void in_chunks(std::size_t bytes, Move&& move) {
  for (std::size_t at = 0; at < bytes; at += kChunk) move(at, static_cast<int>(std::min(kChunk, bytes - at)));
}

// Waits for a collective call to end; meanwhile a signal that comes is told to the ranks that others wait for.
void wait(MPI_Request request, const char* call) {
  for (int done = 0; !done;) {
    check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), call);
    if (!done) stop_signal();
  }
}

template <class T>
void all_reduce(std::span<T> values, MPI_Datatype type, MPI_Op operation, MPI_Comm comm) {
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()), type, operation, comm, &request),
        "MPI_Iallreduce");
  wait(request, "MPI_Iallreduce");
}

bool any_stops(std::span<const std::uint64_t> sizes) {
  return std::any_of(sizes.begin(), sizes.end(), [](std::uint64_t size) { return (size & kStops) != 0; });
}

}  // namespace

// MPI_COMM_NULL: this process alone.
Comm::Comm(MPI_Comm owned) : comm_(owned) {
  if (comm_ == MPI_COMM_NULL) return;
  check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
}

Comm Comm::world() {
  MPI_Comm copy = MPI_COMM_NULL;
  check(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup");
  return Comm(copy);
}

Comm Comm::self() {
  return Comm(MPI_COMM_NULL);
}

Comm::Comm(Comm&& other) noexcept
    : comm_(std::exchange(other.comm_, MPI_COMM_NULL)),
      rank_(std::exchange(other.rank_, 0)),
      size_(std::exchange(other.size_, 1)) {}

Comm& Comm::operator=(Comm&& other) noexcept {
  std::swap(comm_, other.comm_);
  std::swap(rank_, other.rank_);
  std::swap(size_, other.size_);
  return *this;
}

Comm::~Comm() {
  if (comm_ != MPI_COMM_NULL && is_running()) MPI_Comm_free(&comm_);
}

Comm Comm::split(int colour) const {
  if (size_ == 1) return self();
  MPI_Comm part = MPI_COMM_NULL;
  check(MPI_Comm_split(comm_, colour, rank_, &part), "MPI_Comm_split");
  return Comm(part);
}

void Comm::heed() const {
  int signal = stop_signal();
  if (size_ > 1) all_reduce(std::span(&signal, 1), MPI_INT, MPI_MAX, comm_);
  if (signal != 0) stop();
}

// All ranks are here.
void Comm::stop() const {
  int signal = stop_signal();
  if (size_ == 1) throw Error(Exit::stopped, stopped_by(signal));
  check(MPI_Allreduce(MPI_IN_PLACE, &signal, 1, MPI_INT, MPI_MAX, comm_), "MPI_Allreduce");
  note_stop(signal);
  throw AgreedError(Error(Exit::stopped, stopped_by(signal)), size_);
}

void Comm::barrier() const {
  if (size_ > 1) check(MPI_Barrier(comm_), "MPI_Barrier");
}

void Comm::broadcast(std::string& text, int from) const {
  if (size_ == 1) return;
  text.resize(broadcast(text.size(), from));
  broadcast(std::span<char>(text), from);
}

template <class T>
void Comm::reduce(std::span<T> values, MPI_Datatype type, MPI_Op operation) const {
  if (is_self()) return;
  if (size_ == 1 || values.size() > kFewValues) heed();
  if (size_ == 1) return;
  if (values.size() > kFewValues) {
    in_chunks(values.size_bytes(), [&](std::size_t at, int bytes) {
      check(MPI_Allreduce(MPI_IN_PLACE, values.data() + at / sizeof(T), bytes / static_cast<int>(sizeof(T)), type,
                          operation, comm_),
            "MPI_Allreduce");
    });
    return;
  }
  std::vector<T> with_signal(values.begin(), values.end());
  with_signal.push_back(static_cast<T>(stop_signal()));
  all_reduce(std::span(with_signal), type, operation, comm_);
  if (with_signal.back() != 0) stop();
  std::copy_n(with_signal.begin(), values.size(), values.begin());
}

void Comm::sum(std::span<std::int64_t> values) const {
  reduce(values, MPI_INT64_T, MPI_SUM);
}

void Comm::max(std::span<double> values) const {
  reduce(values, MPI_DOUBLE, MPI_MAX);
}

std::int64_t Comm::sum(std::int64_t value) const {
  sum(std::span(&value, 1));
  return value;
}

double Comm::max(double value) const {
  max(std::span(&value, 1));
  return value;
}

std::vector<std::string> Comm::gather(std::span<const std::string> mine) const {
  std::vector<std::int64_t> sizes;
  std::string text;
  for (const std::string& one : mine) {
    sizes.push_back(static_cast<std::int64_t>(one.size()));
    text += one;
  }
  const std::vector<std::int64_t> all_sizes = gather(std::span<const std::int64_t>(sizes));
  const std::vector<char> all_text = gather(std::span<const char>(text));
  std::vector<std::string> all;
  const char* at = all_text.data();
  for (std::int64_t size : all_sizes) {
    all.emplace_back(at, static_cast<std::size_t>(size));
    at += size;
  }
  return all;
}

void Comm::broadcast_bytes(std::span<std::byte> bytes, int from) const {
  if (size_ == 1) return;
  in_chunks(bytes.size(), [&](std::size_t at, int count) {
    check(MPI_Bcast(bytes.data() + at, count, MPI_BYTE, from, comm_), "MPI_Bcast");
  });
}

std::vector<std::byte> Comm::gather_bytes(std::span<const std::byte> mine) const {
  if (size_ == 1) {
    if (!is_self()) heed();
    return {mine.begin(), mine.end()};
  }
  const auto ranks = static_cast<std::size_t>(size_);
  std::vector<std::uint64_t> sizes(ranks);
  const std::uint64_t own = mine.size() | (stop_signal() ? kStops : 0);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Iallgather(&own, 1, MPI_UINT64_T, sizes.data(), 1, MPI_UINT64_T, comm_, &request), "MPI_Iallgather");
  wait(request, "MPI_Iallgather");
  if (any_stops(sizes)) stop();
  std::vector<std::size_t> first(ranks + 1, 0);
  std::partial_sum(sizes.begin(), sizes.end(), first.begin() + 1);
  std::vector<std::byte> all(first.back());

  if (all.size() <= kChunk) {
    const std::vector<int> counts(sizes.begin(), sizes.end()), places(first.begin(), first.end() - 1);
    check(MPI_Allgatherv(mine.data(), static_cast<int>(mine.size()), MPI_BYTE, all.data(), counts.data(), places.data(),
                         MPI_BYTE, comm_),
          "MPI_Allgatherv");
    return all;
  }
  std::copy(mine.begin(), mine.end(), all.data() + first[static_cast<std::size_t>(rank_)]);
  for (std::size_t r = 0; r < ranks; ++r)
    broadcast_bytes(std::span(all).subspan(first[r], sizes[r]), static_cast<int>(r));
  return all;
}

std::vector<std::vector<std::byte>> Comm::exchange_bytes(const std::vector<std::span<const std::byte>>& to) const {
  require(to.size() == static_cast<std::size_t>(size_), "one part for each rank");
  if (size_ == 1) {
    if (!is_self()) heed();
    return {{to[0].begin(), to[0].end()}};
  }
  const auto ranks = static_cast<std::size_t>(size_);
  std::vector<std::uint64_t> outgoing(ranks), incoming(ranks);
  const std::uint64_t stops = stop_signal() ? kStops : 0;
  for (std::size_t r = 0; r < ranks; ++r) outgoing[r] = to[r].size() | stops;
  MPI_Request sizes = MPI_REQUEST_NULL;
  check(MPI_Ialltoall(outgoing.data(), 1, MPI_UINT64_T, incoming.data(), 1, MPI_UINT64_T, comm_, &sizes),
        "MPI_Ialltoall");
  wait(sizes, "MPI_Ialltoall");
  if (any_stops(incoming)) stop();

  std::vector<std::vector<std::byte>> in(ranks);
  for (std::size_t r = 0; r < ranks; ++r) in[r].resize(incoming[r]);
  const auto me = static_cast<std::size_t>(rank_);
  std::copy(to[me].begin(), to[me].end(), in[me].begin());

  // Messages between two ranks do not overtake each other, so the chunks of one part need no numbers.
  std::vector<MPI_Request> requests;
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == me) continue;
    const int peer = static_cast<int>(r);
    in_chunks(in[r].size(), [&](std::size_t at, int count) {
      check(MPI_Irecv(in[r].data() + at, count, MPI_BYTE, peer, kExchangeTag, comm_, &requests.emplace_back()),
            "MPI_Irecv");
    });
  }
  for (std::size_t r = 0; r < ranks; ++r) {
    if (r == me) continue;
    const int peer = static_cast<int>(r);
    in_chunks(to[r].size(), [&](std::size_t at, int count) {
      check(MPI_Isend(to[r].data() + at, count, MPI_BYTE, peer, kExchangeTag, comm_, &requests.emplace_back()),
            "MPI_Isend");
    });
  }
  check(MPI_Waitall(static_cast<int>(requests.size()), requests.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
  return in;
}

void Comm::agree_on(const std::optional<Error>& mine) const {
  if (size_ == 1) {
    if (mine) throw *mine;
    if (!is_self()) heed();
    return;
  }
  // Faults before signals, and of several the lowest rank's.
  const bool fails = mine && mine->code() != Exit::stopped, stops = mine || stop_signal() != 0;
  int failing = fails ? rank_ : stops ? size_ : size_ + 1;
  all_reduce(std::span(&failing, 1), MPI_INT, MPI_MIN, comm_);
  if (failing > size_) return;
  if (failing == size_) stop();
  const Exit code = broadcast(mine ? mine->code() : Exit::bug, failing);
  std::string text = mine ? mine->what() : "";
  broadcast(text, failing);
  throw AgreedError(Error(code, text), size_);
}

Notice::~Notice() {
  for (MPI_Request& request : sent_)
    if (is_running() && request != MPI_REQUEST_NULL) MPI_Request_free(&request);
}

void Notice::post(int word) {
  word_ = word;
  for (int rank = 0; rank < comm_.size(); ++rank)
    if (rank != comm_.rank())
      check(MPI_Isend(&word_, 1, MPI_INT, rank, kNoticeTag, comm_.comm_, &sent_.emplace_back()), "MPI_Isend");
}

int Notice::seen() {
  if (comm_.size() == 1) return 0;
  int is_there = 0, word = 0;
  MPI_Status status;
  check(MPI_Iprobe(MPI_ANY_SOURCE, kNoticeTag, comm_.comm_, &is_there, &status), "MPI_Iprobe");
  if (!is_there) return 0;
  check(MPI_Recv(&word, 1, MPI_INT, status.MPI_SOURCE, kNoticeTag, comm_.comm_, MPI_STATUS_IGNORE), "MPI_Recv");
  ++seen_;
  return word;
}

void Notice::settle() {
  if (comm_.size() == 1) return;
  const std::int64_t posted = sent_.empty() ? 0 : 1, others = comm_.sum(posted) - posted;
  while (seen_ < others) seen();
  check(MPI_Waitall(static_cast<int>(sent_.size()), sent_.data(), MPI_STATUSES_IGNORE), "MPI_Waitall");
  sent_.clear();
}

namespace {

// Whether a launcher has started this process, and not a user or a script.
bool is_launched() {
  return std::ranges::any_of(std::initializer_list<const char*>{"PMIX_NAMESPACE", "PMI_RANK", "OMPI_COMM_WORLD_RANK"},
                             [](const char* name) { return std::getenv(name) != nullptr; });
}

}  // namespace

MpiSession::MpiSession(int* argc, char*** argv) {
  int initialised = 0;
  MPI_Initialized(&initialised);
  if (initialised) return;
  if (!is_launched()) {
    // Open MPI would start a daemon that could start more of us, and make folders that all who are alone on a machine
    // share: one takes away what another has just made.
    setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
    setenv("OMPI_MCA_orte_create_session_dirs", "0", 0);
  }
  int provided = MPI_THREAD_SINGLE;
  check(MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  if (provided < MPI_THREAD_FUNNELED)
    throw Error(Exit::system, "this MPI library does not allow threads (MPI_THREAD_FUNNELED)");
}

MpiSession::~MpiSession() {
  if (is_running()) MPI_Finalize();
}

void abort_all(Exit code) {
  if (is_running()) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::_Exit(static_cast<int>(code));
}

Error current_error() {
  try {
    throw;
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(Exit::system, "out of memory");
  } catch (const std::system_error& error) {
    // Threads that cannot be started are a limit of the system, not of a file.
    const bool is_limit =
        error.code() == std::errc::resource_unavailable_try_again || error.code() == std::errc::not_enough_memory;
    return Error(is_limit ? Exit::system : Exit::io, error.what());
  } catch (const std::exception& error) {
    return Error(Exit::bug, fmt::format("internal error: {}; this is a bug in seine", error.what()));
  } catch (...) {
    return Error(Exit::bug, "internal error: an unknown exception; this is a bug in seine");
  }
}

}  // namespace seine
