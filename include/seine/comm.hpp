// Owns a communicator. Every MPI call of the project is in comm.cpp. Move-only: a copy would hide a collective call.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "seine/error.hpp"

namespace seine {

template <class T>
concept Plain = std::is_trivially_copyable_v<T>;

class Comm {
 public:
  static Comm world();  // collective over all processes; errors return instead of aborting
  static Comm self();   // this process alone

  Comm(Comm&&) noexcept;
  Comm& operator=(Comm&&) noexcept;
  ~Comm();

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool is_root() const { return rank_ == 0; }
  Comm split(int colour) const;  // collective

  // All of the following are collective. Those that hear from every rank (gather, exchange, sum, max, agree, heed)
  // throw Exit::stopped on all of them where a signal asks for it (stop.hpp). A communicator of `self` does so in heed
  // only.
  void heed() const;
  void barrier() const;
  template <Plain T>
  void broadcast(std::span<T> values, int from = 0) const {
    broadcast_bytes(std::as_writable_bytes(values), from);
  }
  void broadcast(std::string& text, int from = 0) const;
  template <Plain T>
  T broadcast(T value, int from = 0) const {
    broadcast(std::span<T>(&value, 1), from);
    return value;
  }
  // Everybody's values, in rank order, on every rank.
  template <Plain T>
  std::vector<T> gather(std::span<const T> mine) const;
  std::vector<std::string> gather(std::span<const std::string> mine) const;
  // to[r] goes to rank r; what came from each rank, in rank order.
  template <Plain T>
  std::vector<std::vector<T>> exchange(const std::vector<std::vector<T>>& to) const;
  void sum(std::span<std::int64_t> values) const;  // integers only: no float is ever added between ranks
  void max(std::span<double> values) const;
  std::int64_t sum(std::int64_t value) const;
  double max(double value) const;

  // Runs `work` here, which must not communicate. If it threw on any rank, every rank throws the error of the lowest
  // failing rank; otherwise returns what `work` returned. std::bad_alloc becomes exit code 71, anything else that is
  // not an Error becomes 70.
  template <class Work>
  auto agree(Work&& work) const;

 private:
  explicit Comm(MPI_Comm owned);
  void broadcast_bytes(std::span<std::byte> bytes, int from) const;
  std::vector<std::byte> gather_bytes(std::span<const std::byte> mine) const;
  std::vector<std::vector<std::byte>> exchange_bytes(const std::vector<std::span<const std::byte>>& to) const;
  void agree_on(const std::optional<Error>& mine) const;
  template <class T>
  void reduce(std::span<T> values, MPI_Datatype type, MPI_Op operation) const;
  bool is_self() const { return comm_ == MPI_COMM_NULL; }
  [[noreturn]] void stop() const;
  friend class Notice;

  MPI_Comm comm_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
};

// A word that any rank sends to all others, who need not wait for it. Each rank sends one at most.
class Notice {
 public:
  explicit Notice(const Comm& comm) : comm_(comm.split(0)) {}  // collective
  ~Notice();
  Notice(const Notice&) = delete;
  Notice& operator=(const Notice&) = delete;
  void post(int word);
  int seen();     // a word of another rank, once; 0: none is there
  void settle();  // collective: everything that was posted has been received

 private:
  Comm comm_;
  int word_ = 0, seen_ = 0;
  std::vector<MPI_Request> sent_;
};

// MPI for the life of the process: initialises on construction, finalises on destruction.
class MpiSession {
 public:
  MpiSession(int* argc, char*** argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
};

// Ends every process of the job with this exit code; the last resort of main.
[[noreturn]] void abort_all(Exit code);

// The current exception as an Error; call inside a catch block.
Error current_error();

template <Plain T>
std::vector<T> Comm::gather(std::span<const T> mine) const {
  const std::vector<std::byte> bytes = gather_bytes(std::as_bytes(mine));
  std::vector<T> all(bytes.size() / sizeof(T));
  if (!bytes.empty()) __builtin_memcpy(all.data(), bytes.data(), bytes.size());
  return all;
}

template <Plain T>
std::vector<std::vector<T>> Comm::exchange(const std::vector<std::vector<T>>& to) const {
  std::vector<std::span<const std::byte>> out;
  for (const auto& values : to) out.push_back(std::as_bytes(std::span(values)));
  std::vector<std::vector<T>> in;
  for (const std::vector<std::byte>& bytes : exchange_bytes(out)) {
    auto& values = in.emplace_back(bytes.size() / sizeof(T));
    if (!bytes.empty()) __builtin_memcpy(values.data(), bytes.data(), bytes.size());
  }
  return in;
}

template <class Work>
auto Comm::agree(Work&& work) const {
  std::optional<Error> failure;
  if constexpr (std::is_void_v<std::invoke_result_t<Work>>) {
    try {
      work();
    } catch (...) {
      failure = current_error();
    }
    agree_on(failure);
  } else {
    std::optional<std::invoke_result_t<Work>> result;
    try {
      result.emplace(work());
    } catch (...) {
      failure = current_error();
    }
    agree_on(failure);
    return std::move(*result);
  }
}

}  // namespace seine
