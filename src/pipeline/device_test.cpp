// What counts as memory that is short, whoever says it.
#include "pipeline/device.h"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <new>
#include <stdexcept>
#include <system_error>

namespace atelier::pipeline {
namespace {

TEST(Device, MemoryThatIsShortIsKnownByWhoeverMeetsIt) {
  const auto failing = [](std::errc why) { return std::system_error(std::make_error_code(why)); };
  EXPECT_TRUE(is_out_of_memory(std::bad_alloc()));
  EXPECT_TRUE(is_out_of_memory(std::runtime_error("DefaultCPUAllocator: can't allocate memory: you tried")));
  EXPECT_TRUE(is_out_of_memory(failing(std::errc::resource_unavailable_try_again)));  // a thread's stack
  EXPECT_TRUE(is_out_of_memory(failing(std::errc::not_enough_memory)));
  EXPECT_FALSE(is_out_of_memory(failing(std::errc::io_error)));
  EXPECT_FALSE(is_out_of_memory(std::runtime_error("a picture of another size")));
}

}  // namespace
}  // namespace atelier::pipeline
