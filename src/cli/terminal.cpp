#include "cli/terminal.hpp"

#include <fmt/format.h>
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "seine/error.hpp"

namespace seine {
namespace {

using std::chrono::milliseconds;

// Newlines and other control characters would break the promise of one line per message.
std::string folded(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return text;
}

bool shows_progress(const LogOptions& options) {
  if (options.quiet || options.progress == "never") return false;
  return options.progress == "always" || isatty(STDERR_FILENO) != 0;
}

}  // namespace

Terminal::Terminal(const LogOptions& options, bool speaks)
    : log_(std::make_unique<spdlog::logger>("seine", std::make_shared<spdlog::sinks::stderr_sink_st>())),
      shows_progress_(speaks && shows_progress(options)),
      rewrites_(isatty(STDERR_FILENO) != 0) {
  log_->set_pattern("seine: %v");
  log_->set_level(!speaks         ? spdlog::level::off
                  : options.quiet ? spdlog::level::err
                                  : spdlog::level::from_str(options.level));
}

Terminal::~Terminal() {
  clear_progress();
}

void Terminal::debug(const std::string& text) {
  clear_progress();
  log_->debug("debug: {}", folded(text));
}

void Terminal::info(const std::string& text) {
  clear_progress();
  log_->info("{}", folded(text));
}

void Terminal::warn(const std::string& text) {
  clear_progress();
  log_->warn("warning: {}", folded(text));
}

void Terminal::progress(std::string_view phase, std::int64_t done, std::int64_t total) {
  if (!shows_progress_) return;
  const Clock::time_point now = Clock::now();
  if (now - last_ < (rewrites_ ? milliseconds(100) : milliseconds(1000))) return;
  last_ = now;
  const double share = total > 0 ? 100.0 * static_cast<double>(done) / static_cast<double>(total) : 100.0;
  const std::string line = fmt::format("seine: {} {:.0f} % ({} of {})", phase, share, done, total);
  fmt::print(stderr, "{}{}{}", rewrites_ ? "\r\x1b[K" : "", line, rewrites_ ? "" : "\n");
  std::fflush(stderr);
  line_is_open_ = rewrites_;
}

void Terminal::clear_progress() {
  if (!line_is_open_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
  line_is_open_ = false;
}

Console Terminal::console() {
  Console console;
  console.info = [this](const std::string& text) { info(text); };
  console.warn = [this](const std::string& text) { warn(text); };
  console.progress = [this](std::string_view phase, std::int64_t done, std::int64_t total) {
    progress(phase, done, total);
  };
  return console;
}

void print_error(const std::string& text) {
  std::fputs(("seine: error: " + folded(text) + "\n").c_str(), stderr);
  std::fflush(stderr);
}

void print_results(const std::string& text) {
  const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
  if (!written || std::fflush(stdout) != 0)
    throw Error(Exit::io, fmt::format("standard output: {}", std::strerror(errno)));
}

}  // namespace seine
