// Stands in for the header of the toolkit where kernels of src/backend/cuda are compiled for the host: what of CUDA C++
// they use, with the meaning that it has on a device. The threads of a block take turns: each runs until it waits for
// those of its warp or its block.
#pragma once

#include <immintrin.h>
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <stdexcept>
#include <vector>

#define __global__
#define __device__
#define __shared__ static  // one block runs at a time
#define __launch_bounds__(threads)

struct Three {
  unsigned x = 1, y = 1, z = 1;
};
inline Three threadIdx, blockIdx, blockDim, gridDim;  // of the thread whose turn it is

namespace seine::test {

class DeviceBlock {
 public:
  // Runs a kernel by that many threads. std::logic_error where they wait for each other for ever.
  void run(const Three& threads, const std::function<void()>& kernel) {
    blockDim = threads;
    const unsigned count = threads.x * threads.y;
    kernel_ = &kernel;
    current_block = this;
    threads_.resize(count);
    warps_.assign((count + kWarpThreads - 1) / kWarpThreads, Meeting<kWarpThreads>{});
    all_ = {};
    for (unsigned t = 0; t < count; ++t) begin(t);
    for (unsigned left = count; left > 0;) {
      const std::uint64_t before = progress_;
      for (unsigned t = 0; t < count; ++t)
        if (!threads_[t].is_done) left -= turn(t);
      if (progress_ == before) throw std::logic_error("the threads of a block wait for each other for ever");
    }
  }

  // What the threads of a warp give; when all of them have.
  const std::uint64_t* meet_warp(std::uint64_t mine) {
    Meeting<kWarpThreads>& warp = warps_[current_ / kWarpThreads];
    const std::uint64_t time = warp.time;
    auto& given = warp.given[time % 2];
    given[current_ % kWarpThreads] = mine;
    wait(warp, kWarpThreads);
    return given.data();
  }
  void meet_block() { wait(all_, static_cast<unsigned>(threads_.size())); }
  unsigned lane() const { return current_ % kWarpThreads; }

  static inline DeviceBlock* current_block = nullptr;

 private:
  static constexpr unsigned kWarpThreads = 32;
  static constexpr std::size_t kStackBytes = 1 << 16;

  struct Thread {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    Three index;
    bool is_done = false;
  };
  template <unsigned kMost>
  struct Meeting {
    std::array<std::array<std::uint64_t, kMost>, 2> given;  // at this time, and at the one before or after
    std::uint64_t time = 0;
    unsigned arrived = 0;
  };

  void begin(unsigned t) {
    Thread& thread = threads_[t];
    if (!thread.stack) thread.stack = std::make_unique<char[]>(kStackBytes);
    thread.index = {t % blockDim.x, t / blockDim.x, 0};
    thread.is_done = false;
    getcontext(&thread.context);
    thread.context.uc_stack.ss_sp = thread.stack.get();
    thread.context.uc_stack.ss_size = kStackBytes;
    thread.context.uc_link = &scheduler_;
    makecontext(&thread.context, &DeviceBlock::enter, 0);
  }
  static void enter() {
    DeviceBlock& block = *current_block;
    (*block.kernel_)();
    block.threads_[block.current_].is_done = true;
    ++block.progress_;
  }
  // Whether the thread is done after it.
  bool turn(unsigned t) {
    current_ = t;
    threadIdx = threads_[t].index;
    swapcontext(&scheduler_, &threads_[t].context);
    return threads_[t].is_done;
  }
  template <class Where>
  void wait(Where& where, unsigned of) {
    const std::uint64_t time = where.time;
    if (++where.arrived == of) {
      where.arrived = 0;
      ++where.time;
      ++progress_;
      return;
    }
    while (where.time == time) swapcontext(&threads_[current_].context, &scheduler_);
  }

  const std::function<void()>* kernel_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<Meeting<kWarpThreads>> warps_;
  Meeting<1> all_;
  ucontext_t scheduler_;
  unsigned current_ = 0;
  std::uint64_t progress_ = 0;
};

template <class T>
std::uint64_t to_slot(T value) {
  static_assert(sizeof(T) <= sizeof(std::uint64_t));
  std::uint64_t slot = 0;
  std::memcpy(&slot, &value, sizeof value);
  return slot;
}
template <class T>
T from_lane(T mine, unsigned lane) {
  const std::uint64_t slot = DeviceBlock::current_block->meet_warp(to_slot(mine))[lane];
  std::memcpy(&mine, &slot, sizeof mine);
  return mine;
}

}  // namespace seine::test

template <class T>
T __shfl_sync(unsigned, T mine, int lane, int width = 32) {
  const unsigned own = seine::test::DeviceBlock::current_block->lane(), of = static_cast<unsigned>(width);
  return seine::test::from_lane(mine, own / of * of + static_cast<unsigned>(lane) % of);
}
template <class T>
T __shfl_xor_sync(unsigned, T mine, int other) {
  return seine::test::from_lane(mine, seine::test::DeviceBlock::current_block->lane() ^ static_cast<unsigned>(other));
}
inline bool __any_sync(unsigned, bool mine) {
  const std::uint64_t* given = seine::test::DeviceBlock::current_block->meet_warp(mine);
  bool any = false;
  for (int lane = 0; lane < 32; ++lane) any |= given[lane] != 0;
  return any;
}
inline unsigned __ballot_sync(unsigned, bool mine) {
  const std::uint64_t* given = seine::test::DeviceBlock::current_block->meet_warp(mine);
  unsigned lanes = 0;
  for (unsigned lane = 0; lane < 32; ++lane) lanes |= (given[lane] != 0 ? 1u : 0u) << lane;
  return lanes;
}
inline int __ffs(int bits) {
  return __builtin_ffs(bits);
}
inline void __syncthreads() {
  seine::test::DeviceBlock::current_block->meet_block();
}
inline unsigned long long atomicAdd(unsigned long long* to, unsigned long long more) {
  const unsigned long long before = *to;
  *to += more;
  return before;
}
inline unsigned long long atomicMax(unsigned long long* to, unsigned long long other) {
  const unsigned long long before = *to;
  if (other > before) *to = other;
  return before;
}

struct __half {
  std::uint16_t bits;
};
inline float __half2float(__half value) {
  return _cvtsh_ss(value.bits);
}
