// The HDF5 library ends the process on some damaged files: 1.10.8 follows references into a heap and selections of
// virtual datasets without a check. What is about to be read is therefore read by a child process first.
#pragma once

#include <functional>
#include <string>

namespace seine {

// Says what is read next: the name of a dataset.
using SayNext = std::function<void(const std::string& name)>;

// Runs `read` in a child process that is thrown away. Error 65, with the name that was said last, where a signal ended
// it or where it took so much time or memory that it would never end. Errors that `read` throws are for the caller, who meets them
// when it reads itself. `read` may call no MPI. Call it while this process is small: that is what a fork costs by.
void try_in_child(const std::string& path, const std::function<void(const SayNext&)>& read);

}  // namespace seine
