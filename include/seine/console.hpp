// How the library speaks to whoever runs it. The library never prints; it calls these, on rank 0 only.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace seine {

// "1 pick", "2 picks".
template <std::integral Count>
std::string counted(Count count, std::string_view what) {
  return std::to_string(count).append(" ").append(what).append(count == 1 ? "" : "s");
}

struct Console {
  std::function<void(const std::string&)> info = [](const std::string&) {};
  std::function<void(const std::string&)> warn = [](const std::string&) {};
  // phase: "read", "select", "certificate", "write"; done of total (rows or picks).
  std::function<void(std::string_view phase, std::int64_t done, std::int64_t total)> progress =
      [](std::string_view, std::int64_t, std::int64_t) {};
};

}  // namespace seine
