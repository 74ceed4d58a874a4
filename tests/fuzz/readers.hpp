// Everything that reads a file of a user, as functions of bytes: what the fuzzers drive, and what replays their corpus.
#pragma once

#include <span>
#include <string_view>

#include "seine/comm.hpp"
#include "seine/error.hpp"

namespace seine::test {

struct Reader {
  std::string_view name;  // of its folder in the corpus
  // Writes the bytes to a file and reads that. The code a user would get; whatever is thrown beside an Error is a bug,
  // and so is what the reader understood and cannot write and read again.
  Exit (*read)(const Comm& comm, std::string_view bytes);
};

std::span<const Reader> readers();

}  // namespace seine::test
