// Strings of variable length, out of the global heaps of an HDF5 file. A row of such a dataset is a reference: length,
// address of a collection, number of an object in it. The library follows references and sizes of damaged files out of
// its own memory and crashes or returns what it finds there (1.10.8), so it only hands out the references here.
#pragma once

#include <hdf5.h>

#include <cstdint>
#include <string>
#include <vector>

namespace seine::h5 {

// Rows [first, first + count) of a dataset [N] of strings of variable length that is not virtual. `path` and `name` are
// for messages. Errors: 65 damaged, 74 where the disk fails.
std::vector<std::string> read_heap_texts(hid_t dataset, std::uint64_t first, std::uint64_t count,
                                         const std::string& path, const std::string& name);

}  // namespace seine::h5
