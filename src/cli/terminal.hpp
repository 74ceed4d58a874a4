// The only place that prints: results on standard output, the log and the progress line on standard error, rank 0 only.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>

#include "seine/console.hpp"

namespace spdlog {
class logger;
}

namespace seine {

struct LogOptions {
  std::string level = "info";
  bool quiet = false;
  std::string progress = "auto";
};

class Terminal {
 public:
  // Nothing but errors is ever shown where `speaks` is false (all ranks but 0).
  Terminal(const LogOptions& options, bool speaks);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  void debug(const std::string& text);
  void info(const std::string& text);
  void warn(const std::string& text);
  void progress(std::string_view phase, std::int64_t done, std::int64_t total);
  void clear_progress();  // before anything else is shown

  // How the library reaches this terminal, which must outlive it.
  Console console();

 private:
  using Clock = std::chrono::steady_clock;

  std::unique_ptr<spdlog::logger> log_;
  bool shows_progress_, rewrites_;  // rewrites: a terminal, where one line is written again and again
  bool line_is_open_ = false;
  Clock::time_point last_;
};

// One line, "seine: error: <text>", whatever the log level.
void print_error(const std::string& text);

// On standard output. Error 74 where it cannot be written.
void print_results(const std::string& text);

}  // namespace seine
