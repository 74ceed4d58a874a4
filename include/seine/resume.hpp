// How a run that was stopped goes on by the same command to the same batch, to the bit: it keeps a Checkpoint up to
// date, writes it when it is time, and takes up what an earlier run left.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "seine/checkpoint.hpp"
#include "seine/checkpoint_files.hpp"
#include "seine/comm.hpp"
#include "seine/console.hpp"
#include "seine/request.hpp"
#include "seine/stop.hpp"

namespace seine {

// Keeps the checkpoint of one run, and stops it. Made before the pool is read.
class Resume {
 public:
  using Update = std::function<void(Progress&)>;

  // Collective. Listens to signals; takes what request.checkpoint holds. A damaged file falls back to the older one
  // beside it, with a warning; error 65 where both are, or where another request made them. A file that cannot be
  // written is a warning. `stop_after`: as if a signal came after so many steps; 0: never.
  Resume(const Comm& comm, const Request& request, const Console& console, std::int64_t stop_after = 0);

  // Collective, the same on all ranks. What the picks depend on beside the request; error 65 that names the key where
  // the checkpoint was made with another value.
  void expect(const std::string& key, const std::string& value);

  // Throws, on rank 0, where picks are not to be trusted any more. From now on nothing is saved before it was asked.
  void ask_before_saving(std::function<void()> check) { check_ = std::move(check); }

  // What is known of a selection; empty at first.
  const Progress& of(const Place& place) const;

  // Collective over `engine`. A step of a selection is over: all ranks stop here where a signal asks for it, else
  // `picks` brings the selection up to date. Where a checkpoint is due, `columns` adds what is known of single rows.
  void step(const Comm& engine, const Place& place, const Update& picks, const Update& columns);
  // Not collective.
  void change(const Place& place, const Update& update);
  bool is_time() const;  // for the next checkpoint, by the clock of this rank

  // Collective. Writes what all ranks know, where rank 0 finds that it is time.
  void save_if_due();
  // Collective, after Exit::stopped was thrown on all ranks: writes what they know, and throws the error that the
  // program ends with: 75, or 128 + signal where there is nothing to go on from.
  [[noreturn]] void stop();
  // Collective. Nobody stops any more.
  void close() { signals_->close(); }
  // Collective, before the batch is written: a checkpoint of a run with another output learns of this one, which may be
  // written again where the run dies before it has removed the checkpoint.
  void remember_output();
  // On rank 0, after success.
  void remove() { files_.remove(); }

 private:
  using Clock = std::chrono::steady_clock;

  void read(const Request& request);
  void announce() const;
  bool save();
  bool write(const std::string& bytes);
  Checkpoint gathered();

  const Comm& comm_;
  const Console& console_;
  const std::string path_;
  CheckpointFiles files_;  // of rank 0
  std::optional<StopSignals> signals_;
  std::function<void()> check_;
  Checkpoint known_;
  std::set<Place> changed_;  // by this rank, in this run, and not yet known to rank 0 for good
  Clock::time_point saved_at_ = Clock::now();
  double every_ = 0;         // seconds
  bool on_disk_ = false;     // something to go on from
  bool out_is_new_ = false;  // what is on the disk is of a run with another output
  std::int64_t steps_ = 0, stop_after_ = 0;
};

}  // namespace seine
