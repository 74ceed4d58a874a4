// The process group of a test program. Every test runs on every rank; main.cpp makes one result of it.
#pragma once

#include "seine/comm.hpp"

namespace seine::test {

const Comm& world();    // every process of this test program
bool updates_golden();  // `--update-golden` was given: golden_test writes its files instead of comparing

}  // namespace seine::test
