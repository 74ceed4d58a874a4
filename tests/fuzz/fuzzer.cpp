// A libFuzzer program for the reader SEINE_READER. Stops where it would crash, and where a reader ends with a code that
// bad input does not have.
#include <cstdint>
#include <cstdlib>
#include <optional>

#include "fuzz/readers.hpp"

namespace {

using namespace seine;

const Comm& world() {
  static const MpiSession session(nullptr, nullptr);
  static const Comm comm = Comm::world();
  return comm;
}

const test::Reader& reader() {
  for (const test::Reader& known : test::readers())
    if (known.name == SEINE_READER) return known;
  std::abort();
}

bool is_of_bad_input(Exit code) {
  return code == Exit::done || code == Exit::usage || code == Exit::bad_data || code == Exit::no_input ||
         code == Exit::io;
}

}  // namespace

// The library is not ours to check, MPI keeps what it has, and a size out of a damaged file is refused by the system.
extern "C" const char* __asan_default_suppressions() {
  return "interceptor_via_lib:libhdf5\n";
}
extern "C" const char* __asan_default_options() {
  return "detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048";
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const test::Reader& read = reader();
  if (!is_of_bad_input(read.read(world(), {reinterpret_cast<const char*>(data), size}))) std::abort();
  return 0;
}
