#include "seine/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "engines/merge.hpp"
#include "memory_need.hpp"
#include "process_memory.hpp"
#include "seine/bytes.hpp"
#include "seine/certificate.hpp"
#include "seine/ownership.hpp"
#include "seine/pick.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

double stored_bytes(const std::string& type) {
  return type == "float16" ? 2 : type == "float64" ? 8 : 4;
}

// Seconds of work that threads share, and of work that one does alone, of one rank.
struct Effort {
  Range shared, alone;

  Effort operator+(const Effort& other) const { return {shared + other.shared, alone + other.alone}; }
  Effort& operator+=(const Effort& other) { return *this = *this + other; }
  Range seconds(int threads) const { return shared * (1.0 / threads) + alone; }
  Range processor_seconds() const { return shared + alone; }
};

Effort shared(const Range& seconds) {
  return {seconds, {}};
}
Effort shared(double seconds) {
  return {Range::exactly(seconds), {}};
}
Effort alone(const Range& seconds) {
  return {{}, seconds};
}
Effort alone(double seconds) {
  return {{}, Range::exactly(seconds)};
}

class Planner {
 public:
  Planner(const PoolShape& pool, const Request& request, int ranks, const Machine& machine, const PoolShape* labelled)
      : pool_(pool),
        labelled_(labelled),
        request_(request),
        machine_(machine),
        entry_(strategy(request.strategy)),
        wanted_(wanted_by(request, entry_, pool)),
        format_(row_format(pool, wanted_)),
        ranks_(ranks),
        own_rows_(Ownership::largest_share(pool.rows, ranks)),
        rows_(static_cast<double>(pool.rows)),
        own_(static_cast<double>(own_rows_)),
        picks_(static_cast<double>(std::min(request.batch, pool.rows))) {}

  Plan run() {
    plan_.ranks = ranks_;
    plan_.threads = wanted_.threads;
    plan_.rows_per_rank = own_rows_;
    memory();
    if (on_gpu()) memory_of_gpu();
    refuse_too_little_memory();
    if (!plan_.possible) return plan_;
    plan_.start = kLaunching * (machine_.start * (1 + kPerDoubling * std::log2(ranks_)));
    plan_.write = kWriting + Range::exactly(picks_ * kWrittenPick);
    const Effort read = reading(), select = selecting(), certificate = certifying();
    plan_.read = read.seconds(plan_.threads);
    // From disks instead of memory, all processes at once.
    plan_.read.high += first_bytes() / ranks_ * machine_.stored_byte * kCrowded;
    plan_.select = select.seconds(plan_.threads);
    plan_.select.high += (plan_.bytes_read.high - first_bytes()) / ranks_ * machine_.stored_byte;
    plan_.certificate = certificate.seconds(plan_.threads);
    plan_.processor_seconds =
        (read + select + certificate).processor_seconds() * ranks_ + Range::exactly(kStartingProcessor * ranks_);
    return plan_;
  }

 private:
  // --- What was measured once, on the machine where the built-in constants were, and matters too little for a constant
  // of a machine. Seconds, or shares.
  static constexpr double kStartingProcessor = 0.08;  // of a rank before it opens a pool
  static constexpr Range kLaunching{0.5, 1, 2.5};     // launchers differ, and so do nodes that wake up
  static constexpr double kPerDoubling = 0.1;         // of the start, per doubling of the ranks
  static constexpr Range kWriting{0.005, 0.02, 0.5};  // a small file, synced: at once, or a busy disk
  static constexpr double kWrittenPick = 2e-7;        // its id, row, score and gain
  static constexpr double kCrowded = 1.5;             // a disk that several ranks read at once
  static constexpr double kRowWithoutId = 1.0 / 8;    // of a row with one: roles and counts are left
  static constexpr double kNormValue = 5e-10;         // of an embedding, for the norms of outer products
  static constexpr double kMovedByte = 4e-10;         // of a row that a merge copies
  static constexpr double kInflatedByte = 6.5e-9;     // of compressed chunks, by one thread
  static constexpr double kScoredAlone = 4e-6;        // a row whose score is computed by itself: a call of the scorer
  static constexpr double kWaves = 3;                 // of a round, until enough of the best are exact
  static constexpr double kMostSifted = 65536;        // rows among which the n-th best bound is looked for
  static constexpr double kOuterRows = 2;             // two norms and two products of each row, not one
  // A bound on scores is of use when it has seen about so many rows: those that may be among the best meanwhile.
  static constexpr double kScoredPerPick = 8, kScoredAtFirst = 1024;
  // Passes through all rows that a streamed selection cannot avoid: for norms or the first keys, and for the first
  // pick.
  static constexpr double kPasses = 2;
  // Rows that a streamed round reads, as a multiple of those that meet a pick in it: a piece of rows is read for some.
  static constexpr Range kReadPerMet{1, 2, 4};
  // What measurements differed by, beside what is known not to be known: caches, clocks, the data.
  static constexpr Range kError{0.6, 1, 1.6};

  static Effort uncertain(const Effort& effort) {
    const auto wider = [](const Range& range) {
      return Range{range.low * kError.low, range.likely, range.high * kError.high};
    };
    return {wider(effort.shared), wider(effort.alone)};
  }

  // --- memory ---

  bool on_gpu() const { return request_.pool.on_device(); }
  MemoryNeed whole_need_on(int ranks) const {
    const MemoryNeed need = memory_need(pool_, Ownership::largest_share(pool_.rows, ranks), wanted_);
    if (!labelled_) return need;
    return with_labelled_pool(need, *labelled_, Ownership::largest_share(labelled_->rows, ranks), wanted_);
  }
  MemoryNeed need_on(int ranks) const {  // of the host
    const MemoryNeed need = whole_need_on(ranks);
    return on_gpu() ? on_host(need) : need;
  }
  std::int64_t process_on(int ranks) const {
    constexpr std::int64_t kDriver = 512 * kMiB;  // of a GPU, about: it differs
    return process_bytes(ranks, plan_.threads) + (on_gpu() ? kDriver : 0);
  }
  // Before a row is loaded: the process, the roles of the rows while they are looked for in two lists, and what reading
  // text leaves behind.
  std::int64_t in_use_on(int ranks) const {
    constexpr std::int64_t kRoles = 2, kText = 2 * kMiB;
    return process_on(ranks) + kRoles * Ownership::largest_share(pool_.rows, ranks) + (pool_.text_ids ? kText : 0);
  }

  void memory() {
    const MemoryNeed need = need_on(ranks_);
    const std::int64_t process = process_on(ranks_), in_use = in_use_on(ranks_);
    plan_.least_bytes = in_use + std::max(need.opening, need.least());
    plan_.resident_bytes = std::max(plan_.least_bytes, process + std::max(need.opening, need.most()));
    if (!request_.pool.memory_gib) {
      room_ = room_for_lists(need);
      plan_.memory_bytes = plan_.resident_bytes + (on_gpu() ? 0 : static_cast<std::int64_t>(room_));
      return;
    }
    const double given = *request_.pool.memory_gib * kGiB;
    const double left = given - static_cast<double>(in_use);
    plan_.resident = fits(need, left);
    room_ = room_of(need, !plan_.resident, left);
    plan_.memory_bytes = plan_.resident_bytes + lists(room_);
    if (!plan_.resident)
      plan_.memory_bytes =
          process + std::max(need.opening, need.streamed() + streaming_bytes(entry_, format_, own_rows_, room_)) +
          lists(room_);
  }

  void refuse_too_little_memory() {
    if (!request_.pool.memory_gib || static_cast<double>(plan_.least_bytes) <= *request_.pool.memory_gib * kGiB) return;
    plan_.possible = false;
    plan_.obstacle = fmt::format("{}: use {}", too_little_memory(in_gib(plan_.least_bytes), *request_.pool.memory_gib),
                                 what_would_do(*request_.pool.memory_gib * kGiB));
  }

  // --memory bounds what is used of it, too.
  void memory_of_gpu() {
    const MemoryNeed need = on_device(whole_need_on(ranks_));
    const PoolRequest& pool = request_.pool;
    const double given = std::min(pool.memory_gib.value_or(HUGE_VAL), pool.device_gib.value_or(HUGE_VAL));
    plan_.resident = plan_.resident && fits(need, given * kGiB);
    room_ = given < HUGE_VAL ? room_of(need, !plan_.resident, given * kGiB) : room_for_lists(need);
    plan_.device_resident_bytes = need.most();
    plan_.device_least_bytes = need.least();
    plan_.device_bytes =
        plan_.resident ? need.most() : need.streamed() + streaming_bytes(entry_, format_, own_rows_, room_);
    plan_.device_bytes += lists_of(room_);
    if (!plan_.resident) stream_from_host();
    if (static_cast<double>(need.least()) <= given * kGiB) return;
    plan_.possible = false;
    plan_.obstacle =
        too_little_of_gpu(in_gib(need.least()), given) + ": use more ranks, with a GPU for each, or --device cpu";
  }

  // What the host needs where rows stream to a GPU, for whichever reason: those that stay are there.
  void stream_from_host() {
    const MemoryNeed need = need_on(ranks_);
    const std::int64_t most = std::max(need.opening, need.streamed());
    plan_.memory_bytes = process_on(ranks_) + most;
    plan_.least_bytes = in_use_on(ranks_) + most;
  }

  std::int64_t lists(double left) const { return on_gpu() ? 0 : lists_of(left); }  // of the host

  // At most: the lists of near rows that facility location keeps. How much of it they take is a matter of the data.
  std::int64_t lists_of(double left) const {
    if (entry_.objective != Objective::coverage) return 0;
    const auto memory = static_cast<std::int64_t>(std::clamp(left, 0.0, 0x1p62));
    return covering_lists(ground_rows_of(entry_, request_, pool_.rows) / ranks_, pool_.rows,
                          share_of_engine(entry_, memory));
  }
  // Half of the longest lists: more saves little time. Of large pools as much as a rank has anyway.
  double useful_lists() const { return static_cast<double>(lists_of(0x1p62)) / 2; }
  double room_for_lists(const MemoryNeed& need) const {
    const double most = static_cast<double>(std::max(kGiB, need.vectors));
    return std::min(useful_lists(), most) * kPartsInAll / kPartsOfEngine;
  }
  // How much longer it takes to sum gains where there is room for short lists only, or none.
  double without_lists() const {
    const double useful = useful_lists();
    return useful > 0 ? 2 - std::min(1.0, static_cast<double>(lists_of(room_)) / useful) : 1;
  }

  std::string what_would_do(double given) const {
    const std::string memory = fmt::format("--memory {:.3f}", in_gib(plan_.least_bytes) + 0.001);
    constexpr int kMostRanks = 1 << 16;
    for (int ranks = 2 * ranks_; ranks <= kMostRanks && ranks <= pool_.rows; ranks *= 2) {
      const MemoryNeed need = need_on(ranks);
      const auto least = in_use_on(ranks) + std::max(need.opening, need.least());
      if (static_cast<double>(least) <= given) return fmt::format("--ranks {} or {}", ranks, memory);
    }
    return memory;
  }

  // --- reading ---

  double distribution_values() const {
    return static_cast<double>(pool_.classes * std::max<std::int64_t>(pool_.passes, 1));
  }
  double embedding_bytes() const {
    return wanted_.embeddings ? static_cast<double>(pool_.dim) * stored_bytes(pool_.embeddings_type) : 0;
  }
  double vector_bytes() const {  // of one row, as it is stored
    return embedding_bytes() + (wanted_.residuals ? distribution_values() * stored_bytes(pool_.probabilities_type) : 0);
  }
  double row_bytes() const {
    const bool distributions = wanted_.residuals || wanted_.score;
    // Ids and labels are read twice: as such, and for the fingerprint.
    return embedding_bytes() + (distributions ? distribution_values() * stored_bytes(pool_.probabilities_type) : 0) +
           (pool_.ids ? 16 : 0) + (pool_.labels ? 16 : 0);
  }
  double first_bytes() const { return rows_ * row_bytes(); }

  Effort reading() {
    plan_.bytes_read = Range::exactly(first_bytes());
    Effort effort = alone(own_ * (pool_.ids ? machine_.identified_row : machine_.identified_row * kRowWithoutId));
    effort += shared(own_ * embedding_bytes() * machine_.cached_byte);
    if (wanted_.residuals) effort += shared(own_ * distribution_values() * machine_.residual_value);
    if (plan_.resident) effort += shared(own_ * static_cast<double>(format_.row_bytes()) * machine_.fresh_byte);
    if (pool_.chunks.inflating > 0) effort += alone(own_ * row_bytes() * kInflatedByte);
    return uncertain(effort);
  }

  // --- selection ---

  double seconds_of_pair(Meeting meeting) const {
    const auto dim = static_cast<double>(pool_.dim);
    const Line* line = nullptr;
    switch (meeting) {
      case Meeting::none:
        return 0;
      case Meeting::screened_distance:
        line = &machine_.screened_distance;
        break;
      case Meeting::distance:
        line = &machine_.distance;
        break;
      case Meeting::product:
        line = &machine_.product;
        break;
      case Meeting::similarity:
        line = &machine_.similarity;
        break;
    }
    return line->of(dim) + (entry_.outer ? line->of(static_cast<double>(pool_.classes)) : 0);
  }

  // A collective call that brings so many bytes to every rank.
  double message(double bytes) const {
    return ranks_ == 1 ? 0 : machine_.message * std::log2(ranks_) + bytes * machine_.sent_byte;
  }

  Effort scoring() const {
    if (!wanted_.score) return {};
    const double values = own_ * distribution_values();
    if (wanted_.best == 0) return shared(values * machine_.scored_value);
    // The best so far rise slowly: some rows are scored before they do.
    const double scored = std::min(own_, kScoredPerPick * picks_ + kScoredAtFirst) * distribution_values();
    return shared(values * machine_.bounded_value + scored * machine_.scored_value);
  }

  // One selection over `rows` rows, of which this rank has `own`, by `sharing` ranks together.
  Effort selection(std::int64_t rows, double own, double sharing) {
    const Work work = entry_.work(pool_, rows, request_);
    if (work.meeting == Meeting::none) return shared(own * machine_.drawn_row);
    const double picks = std::min(picks_, static_cast<double>(rows));
    const double wave = own * machine_.scanned_row;
    const double fetched = static_cast<double>(rows_of_round(static_cast<std::int64_t>(picks)) * format_.row_bytes());
    Effort effort = shared(work.pairs * (without_lists() * seconds_of_pair(work.meeting) / sharing));
    if (work.meeting == Meeting::distance) effort += shared(own * machine_.raced_row * (entry_.outer ? kOuterRows : 1));
    effort += shared(work.rounds * (kWaves * wave));
    effort += alone(work.rounds * (kWaves * std::min(own, kMostSifted) * machine_.sifted_row + message(fetched)));
    effort += alone(picks * (work.meeting == Meeting::product ? machine_.close_pick.of(static_cast<double>(pool_.dim))
                                                              : machine_.pick));
    if (!plan_.resident) effort += streaming(work, rows, own, sharing);
    plan_.rounds = plan_.rounds + work.rounds;
    return effort;
  }

  // A round reads the rows that it touches and that did not stay in memory.
  Effort streaming(const Work& work, std::int64_t rows, double own, double sharing) {
    const double pairs = static_cast<double>(rows) * std::max(1.0, std::min(picks_, static_cast<double>(rows)));
    const double kept = static_cast<double>(rows_kept(entry_, format_, own_rows_, room_)) / std::max(own_, 1.0);
    const Range share = work.pairs * (1 / pairs);
    const double through = kPasses * own;
    const auto again = [&](double rounds, double touched) {
      return own * rounds * std::max(0.0, std::min(touched, 1.0) - kept);
    };
    const Range scattered{again(work.rounds.low, kReadPerMet.low * share.low),
                          again(work.rounds.likely, kReadPerMet.likely * share.likely),
                          again(work.rounds.high, kReadPerMet.high * share.high)};
    plan_.bytes_read = plan_.bytes_read + (Range::exactly(through) + scattered) * (vector_bytes() * sharing);
    const double piece = vector_bytes() * machine_.fetched_byte;
    return alone(through * piece) + alone(scattered * (machine_.fetched_row + piece));
  }

  Effort selecting() {
    Effort effort = scoring();
    std::int64_t rows = pool_.rows;
    if (request_.keep) rows = prefiltered_rows(*request_.keep, static_cast<std::int64_t>(picks_), rows);
    const double share = static_cast<double>(rows) / std::max(rows_, 1.0);
    // Norms, masks, first keys.
    effort +=
        shared(own_ * share * (machine_.drawn_row + (entry_.outer ? static_cast<double>(pool_.dim) * kNormValue : 0)));
    const std::int64_t parts = partitions_of(rows, static_cast<std::int64_t>(picks_), request_.partitions);
    if (request_.reduce == Reduce::exact || parts == 1)
      return uncertain(effort + selection(rows, own_ * share, ranks_));
    // Leaves: each whole on a rank. Then a tree of unions of picks, on all ranks.
    const double moved = own_ * share * static_cast<double>(format_.row_bytes());
    effort += alone(message(moved) + moved * kMovedByte);
    const std::int64_t leaf = rows / parts, per_rank = (parts + ranks_ - 1) / ranks_;
    for (std::int64_t i = 0; i < per_rank; ++i) effort += selection(leaf, static_cast<double>(leaf), 1);
    for (std::int64_t nodes = parts, above; nodes > 1; nodes = above) {
      above = (nodes + request_.fan_in - 1) / request_.fan_in;
      const auto merged = static_cast<std::int64_t>(std::ceil(static_cast<double>(nodes) / static_cast<double>(above) *
                                                              std::min(picks_, static_cast<double>(leaf))));
      for (std::int64_t i = 0; i < above; ++i)
        effort += selection(merged, static_cast<double>(merged) / ranks_, ranks_);
    }
    return uncertain(effort);
  }

  // --- certificate ---

  Effort certifying() const {
    if (request_.certificate == CertificateMode::off || entry_.objective == Objective::none) return {};
    constexpr double kBatches = kRandomBatches;
    const auto dim = static_cast<double>(pool_.dim);
    const double rows =
        request_.certificate == CertificateMode::full ? rows_ : std::min(rows_, static_cast<double>(kEvaluationRows));
    const double fetched = message(picks_ * static_cast<double>(format_.row_bytes()));
    Effort effort = alone((kBatches + 1) * own_ * machine_.drawn_row);
    const auto batches_meet = [&](double batches, Meeting meeting) {
      return shared(batches * picks_ * rows / ranks_ * seconds_of_pair(meeting)) + alone(batches * fetched);
    };
    switch (entry_.objective) {
      case Objective::scores:
        effort += alone(kBatches * picks_ / ranks_ * (machine_.fetched_row + kScoredAlone) +
                        kBatches * picks_ / ranks_ * distribution_values() * machine_.scored_value);
        break;
      case Objective::radius:
      case Objective::coverage:  // blocks of products, as quick as blocks of distances
        effort += batches_meet(kBatches, Meeting::distance);
        break;
      case Objective::potential:
        effort += batches_meet(kBatches + 1, Meeting::distance);
        break;
      case Objective::log_determinant:
        effort += shared(own_ * dim * dim / 2 * machine_.moment);
        effort +=
            alone(kBatches * (picks_ * 3 * dim * dim * machine_.entry + fetched) + dim * dim * dim * machine_.entry);
        break;
      case Objective::none:
        break;
    }
    if (!plan_.resident && entry_.objective == Objective::log_determinant)
      effort += alone(own_ * vector_bytes() * machine_.fetched_byte);
    return uncertain(effort);
  }

  const PoolShape& pool_;
  const PoolShape* const labelled_;  // null: none
  const Request& request_;
  const Machine& machine_;
  const Entry& entry_;
  const Wanted wanted_;
  const RowFormat format_;
  const int ranks_;
  const std::int64_t own_rows_;
  const double rows_, own_, picks_;
  double room_ = 0;  // for vectors, where memory is given
  Plan plan_;
};

}  // namespace

Plan plan(const PoolShape& pool, const Request& request, int ranks, const Machine& machine, const PoolShape* labelled) {
  return Planner(pool, request, ranks, machine, labelled).run();
}

}  // namespace seine
