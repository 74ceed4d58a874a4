#include "seine/plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "seine/certificate.hpp"
#include "seine/merge.hpp"
#include "seine/ownership.hpp"
#include "seine/residency.hpp"
#include "seine/strategy.hpp"

namespace seine {
namespace {

constexpr double kGiB = 1 << 30;

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
  Planner(const PoolShape& pool, const Request& request, int ranks, const Machine& machine)
      : pool_(pool),
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
    if (!plan_.possible) return plan_;
    plan_.start = Range{0.5, 1, 2.5} * (machine_.start * (1 + 0.1 * std::log2(ranks_)));
    plan_.write = Range{0.005, 0.02, 0.5} + Range::exactly(picks_ * 2e-7);
    const Effort read = reading(), select = selecting(), certificate = certifying();
    plan_.read = read.seconds(plan_.threads);
    // From disks instead of memory, all processes at once.
    plan_.read.high += first_bytes() / ranks_ * machine_.stored_byte * 1.5;
    plan_.select = select.seconds(plan_.threads);
    plan_.select.high += (plan_.bytes_read.high - first_bytes()) / ranks_ * machine_.stored_byte;
    plan_.certificate = certificate.seconds(plan_.threads);
    plan_.processor_seconds =
        (read + select + certificate).processor_seconds() * ranks_ + Range::exactly(kStartingProcessor * ranks_);
    return plan_;
  }

 private:
  static constexpr double kStartingProcessor = 0.08;
  // What measurements differed by, beside what is known not to be known: caches, clocks, the data.
  static constexpr Range kError{0.6, 1, 1.6};

  static Effort uncertain(const Effort& effort) {
    const auto wider = [](const Range& range) {
      return Range{range.low * kError.low, range.likely, range.high * kError.high};
    };
    return {wider(effort.shared), wider(effort.alone)};
  }

  // --- memory ---

  void memory() {
    const MemoryNeed need = memory_need(pool_, own_rows_, wanted_);
    const std::int64_t process = process_bytes(ranks_, plan_.threads), in_use = process + 2 * own_rows_;
    plan_.resident_bytes = process + std::max(need.opening, need.most());
    plan_.least_bytes = in_use + std::max(need.opening, need.least());
    plan_.memory_bytes = plan_.resident_bytes + lists(2.0 * static_cast<double>(need.vectors));  // as much again
    if (!request_.pool.memory_gib) return;
    const double given = *request_.pool.memory_gib * kGiB;
    const double left = given - static_cast<double>(in_use);
    plan_.resident = fits(need, left);
    room_ = left - static_cast<double>(plan_.resident ? need.most() : need.streamed());
    plan_.memory_bytes = plan_.resident_bytes + lists(room_);
    if (!plan_.resident)
      plan_.memory_bytes =
          process + std::max(need.opening, need.streamed() + streaming_bytes(format_, own_rows_, room_)) + lists(room_);
    plan_.possible = static_cast<double>(plan_.least_bytes) <= given;
    if (!plan_.possible)
      plan_.obstacle = fmt::format(
          "a rank needs at least {:.3f} GiB, streaming all that can be streamed, and --memory gives {:.3f}: use {}",
          static_cast<double>(plan_.least_bytes) / kGiB, *request_.pool.memory_gib, what_would_do(given));
  }

  // At most: the lists of near rows that facility location keeps, in half of what is left. How much of it they take is
  // a matter of the data.
  std::int64_t lists(double left) const {
    const Entry& entry = strategy(request_.strategy);
    if (entry.objective != Objective::coverage) return 0;
    const auto rows = static_cast<double>(pool_.rows);
    const auto ground = static_cast<double>(ground_rows_of(entry, request_, pool_.rows));
    const double each = ground / ranks_ / static_cast<double>(kListPart) * static_cast<double>(sizeof(Near));
    return static_cast<std::int64_t>(std::clamp(left / 2, 0.0, rows * each));
  }

  std::string what_would_do(double given) const {
    const std::string memory = fmt::format("--memory {:.3f}", static_cast<double>(plan_.least_bytes) / kGiB + 0.001);
    constexpr int kMostRanks = 1 << 16;
    for (int ranks = 2 * ranks_; ranks <= kMostRanks && ranks <= pool_.rows; ranks *= 2) {
      const std::int64_t own = Ownership::largest_share(pool_.rows, ranks);
      const MemoryNeed need = memory_need(pool_, own, wanted_);
      const auto least = process_bytes(ranks, plan_.threads) + 2 * own + std::max(need.opening, need.least());
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
    Effort effort = alone(own_ * (pool_.ids ? machine_.identified_row : machine_.identified_row / 8));
    effort += shared(own_ * embedding_bytes() * machine_.cached_byte);
    if (wanted_.residuals) effort += shared(own_ * distribution_values() * machine_.residual_value);
    if (plan_.resident) effort += shared(own_ * static_cast<double>(format_.row_bytes()) * machine_.fresh_byte);
    return uncertain(effort);
  }

  // --- selection ---

  double seconds_of_pair(Meeting meeting) const {
    const auto dim = static_cast<double>(pool_.dim);
    const Line* line = nullptr;
    switch (meeting) {
      case Meeting::none:
        return 0;
      case Meeting::single_distance:
        line = &machine_.single_distance;
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
    const double scored = std::min(own_, 8 * picks_ + 1024) * distribution_values();
    return shared(values * machine_.bounded_value + scored * machine_.scored_value);
  }

  // One selection over `rows` rows, of which this rank has `own`, by `sharing` ranks together.
  Effort selection(std::int64_t rows, double own, double sharing) {
    const Work work = entry_.work(pool_, rows, request_);
    if (work.meeting == Meeting::none) return shared(own * machine_.drawn_row);
    const double picks = std::min(picks_, static_cast<double>(rows));
    constexpr double kWaves = 3, kMostSifted = 65536;
    const double wave = own * machine_.scanned_row;
    const double fetched =
        std::min(static_cast<double>(RowStore::kRowsAtOnce), 2 * picks + 32) * static_cast<double>(format_.row_bytes());
    Effort effort = shared(work.pairs * (seconds_of_pair(work.meeting) / sharing));
    if (work.meeting == Meeting::distance) effort += shared(own * machine_.raced_row * (entry_.outer ? 2 : 1));
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
    const double kept = static_cast<double>(rows_kept(format_, own_rows_, room_)) / std::max(own_, 1.0);
    const Range share = work.pairs * (1 / pairs);
    // Once from end to end for what is known of every row, and for the first pick.
    const double through = 2 * own;
    const auto again = [&](double rounds, double touched) {
      return own * rounds * std::max(0.0, std::min(touched, 1.0) - kept);
    };
    const Range scattered{again(work.rounds.low, share.low), again(work.rounds.likely, 2 * share.likely),
                          again(work.rounds.high, 4 * share.high)};
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
    effort += shared(own_ * share * (machine_.drawn_row + (entry_.outer ? static_cast<double>(pool_.dim) * 5e-10 : 0)));
    const std::int64_t parts = partitions_of(rows, static_cast<std::int64_t>(picks_), request_.partitions);
    if (request_.reduce == Reduce::exact || parts == 1)
      return uncertain(effort + selection(rows, own_ * share, ranks_));
    // Leaves: each whole on a rank. Then a tree of unions of picks, on all ranks.
    const double moved = own_ * share * static_cast<double>(format_.row_bytes());
    effort += alone(message(moved) + moved * 4e-10);
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
        effort += alone(kBatches * picks_ / ranks_ * (machine_.fetched_row + 4e-6) +
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

Plan plan(const PoolShape& pool, const Request& request, int ranks, const Machine& machine) {
  return Planner(pool, request, ranks, machine).run();
}

}  // namespace seine
