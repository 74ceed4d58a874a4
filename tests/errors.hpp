// Errors as tests look at them.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "seine/error.hpp"

namespace seine::test {

// What `work` threw, as an error that can be compared; Exit::done where it threw nothing.
template <class Work>
Error error_of(Work&& work) {
  try {
    work();
  } catch (const Error& error) {
    return error;
  }
  return Error(Exit::done, "");
}

// `work` throws an Error with this code whose message contains `text`.
template <class Work>
void expect_error(Exit code, const std::string& text, Work&& work) {
  try {
    work();
    ADD_FAILURE() << "no error; expected: " << text;
  } catch (const Error& error) {
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what() << "\nexpected: " << text;
  }
}

}  // namespace seine::test
