// A few threads that share loops, and what they sum. Which thread runs which part decides nothing but time.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "seine/error.hpp"

namespace seine {

class Workers {
 public:
  // The caller is one of the `threads`.
  explicit Workers(int threads) {
    try {
      helpers_.reserve(static_cast<std::size_t>(threads));
      for (int t = 1; t < threads; ++t) helpers_.emplace_back([this, t] { serve(t); });
    } catch (const std::exception& error) {
      close();
      throw Error(Exit::system, "cannot start " + std::to_string(threads) + " threads: " + error.what());
    }
  }
  ~Workers() { close(); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  int threads() const { return static_cast<int>(helpers_.size()) + 1; }

  // Calls part(i, thread) for every i in [0, count), each once, in any order. Rethrows the first exception.
  void share(std::int64_t count, const std::function<void(std::int64_t, int)>& part) {
    if (helpers_.empty() || count <= 1) {
      for (std::int64_t i = 0; i < count; ++i) part(i, 0);
      return;
    }
    {
      const std::lock_guard lock(mutex_);
      part_ = &part;
      count_ = count;
      next_ = 0;
      busy_ = static_cast<int>(helpers_.size());
      failure_ = nullptr;
      ++generation_;
    }
    wake_.notify_all();
    run(0);
    std::unique_lock lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  void close() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    wake_.notify_all();
    for (std::thread& helper : helpers_) helper.join();
  }

  void run(int thread) {
    try {
      for (std::int64_t i = next_++; i < count_; i = next_++) (*part_)(i, thread);
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_ = count_;
    }
  }

  void serve(int thread) {
    std::uint64_t seen = 0;
    while (true) {
      {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [&] { return closing_ || generation_ != seen; });
        if (closing_) return;
        seen = generation_;
      }
      run(thread);
      const std::lock_guard lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  std::vector<std::thread> helpers_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  const std::function<void(std::int64_t, int)>* part_ = nullptr;
  std::int64_t count_ = 0;
  std::atomic<std::int64_t> next_ = 0;
  int busy_ = 0;
  std::uint64_t generation_ = 0;
  bool closing_ = false;
  std::exception_ptr failure_;
};

// Integers below 2^53 that several threads add to, as float64.
class SumsOfThreads {
 public:
  SumsOfThreads(int threads, std::int64_t count)
      : count_(static_cast<std::size_t>(count)),
        sums_(static_cast<std::size_t>(threads), std::vector<double>(count_)) {}
  double* of(int thread) { return sums_[static_cast<std::size_t>(thread)].data(); }
  void add_to(std::int64_t* out) const {
    for (std::size_t i = 0; i < count_; ++i) {
      double sum = 0;
      for (const std::vector<double>& part : sums_) sum += part[i];
      out[i] += static_cast<std::int64_t>(sum);
    }
  }

 private:
  std::size_t count_;
  std::vector<std::vector<double>> sums_;
};

}  // namespace seine
