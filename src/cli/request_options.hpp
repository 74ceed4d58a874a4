// The options of `seine select`, which `seine plan` takes too.
#pragma once

#include <cstdint>
#include <string>

#include "cli/options.hpp"
#include "seine/request.hpp"

namespace seine {

class RequestOptions {
 public:
  // With `runs` pool and output must be given.
  void declare(Options& options, bool runs);
  // Wrong usage that no single option shows; error 64.
  void check(const Options& options) const;

  Request request;
};

}  // namespace seine
