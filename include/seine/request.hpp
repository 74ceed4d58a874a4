// What is asked and what is answered, as plain structs. Every field is an option of `seine select` or `score` (README).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "seine/certificate.hpp"

namespace seine {

enum class Normalize { by_strategy, none, l2 };
enum class Reduce { exact, merge };
enum class CertificateMode { automatic, full, off };

// Dataset names in the pool files.
struct DatasetNames {
  std::string embeddings = "embeddings";  // `train` is accepted where the default name is absent
  std::string probabilities = "probabilities";
  std::string logits = "logits";
  std::string ids = "ids";
  std::string labels = "labels";  // "none": labels are ignored
  std::string classes = "classes";
  std::string costs = "costs";
  std::string groups = "groups";
};

// Where the pool is, which of its rows are what, and how this process may work on it.
struct PoolRequest {
  std::vector<std::string> pool;  // as given: files, globs or one .txt list
  DatasetNames names;
  std::vector<std::string> labelled, pending, exclude, candidates;  // id list files
  std::vector<std::string> labelled_pool;                           // pool files of labelled rows outside the pool
  bool strict_ids = false;
  std::string device = "auto";       // auto | cpu | cuda; tests also know "checked"
  int threads = 0;                   // 0: the CPUs this process may use, divided by the ranks on its node
  std::optional<double> memory_gib;  // per rank; absent: the limit or what is free, divided by the ranks on the node
  std::optional<double> device_gib;  // the same of a device of its own; absent: vectors are in the host's memory
  // Whether vectors are on a device of its own, as far as is known yet.
  bool on_device() const { return device == "cuda" || device_gib; }
  std::optional<std::int64_t> stream_room;  // bytes for vectors, whatever the memory: streams any pool, for tests
};

struct Request {
  PoolRequest pool;
  std::string strategy;
  std::map<std::string, std::string> set;  // parameters of the strategy
  std::int64_t batch = 0;
  Normalize normalize = Normalize::by_strategy;
  std::optional<std::string> score;  // acquisition score that steers a diversity strategy
  std::optional<double> keep;        // F: the pool is first reduced to ceil(F * batch) best candidates
  double score_power = 0;            // row weight = score^score_power
  Reduce reduce = Reduce::exact;
  int partitions = 64;
  int fan_in = 8;
  std::uint64_t seed = 0;
  CertificateMode certificate = CertificateMode::automatic;
  std::string out;
  bool force = false;               // `out` may replace whatever file is there
  std::string checkpoint;           // empty: none
  double checkpoint_seconds = 300;  // from one to the next
  bool restart = false;             // what `checkpoint` holds is discarded

  // JSON of everything that decides the batch; ranks, threads, device, memory, `out` and what follows it are not in it.
  std::string to_json() const;
};

struct ScoreRequest {
  PoolRequest pool;
  std::string strategy;  // a strategy that scores rows: entropy, least_confidence, margin, bald
  std::map<std::string, std::string> set;
  std::string out;  // folder, made if it is not there

  std::string to_json() const;
};

// How many of `most` rows a prefilter leaves: ceil(keep * batch), at most all.
std::int64_t prefiltered_rows(double keep, std::int64_t batch, std::int64_t most);

// Rows in order of selection, with the columns of the batch file (contract, section 3).
struct Selection {
  std::vector<std::int64_t> rows;
  std::vector<float> scores;  // NaN where there is none
  std::vector<double> gains;

  void add(std::int64_t row, float score, double gain);
};

// Seconds of each phase, and where the run happened.
struct Timing {
  double read = 0, select = 0, certificate = 0, write = 0;
  int ranks = 1, threads = 1;
  std::string device;
  // Of rows x picks: how many pairs met; 0: the strategy compares none. Facility location: inner products that were
  // computed for each pair of rows, which can be more than one. What a GPU multiplies only to rule pairs out is not
  // counted.
  double share = 0;
  std::int64_t memory = 0;  // bytes: the most that a rank had in memory
};

}  // namespace seine
