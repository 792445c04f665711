#include "nn/optional_kernel.h"

#include <ATen/ops/ones.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <stdexcept>

#include "base/error.h"

namespace atelier::nn {
namespace {

TEST(OptionalKernel, IsLeftAloneAfterItsFirstFailure) {
  OptionalKernel kernel;
  int calls = 0;
  const auto works = [&] {
    ++calls;
    return AttentionOutput{at::ones({1}), {}};
  };
  EXPECT_TRUE(kernel.run(works));
  EXPECT_EQ(kernel.failure(), "");
  EXPECT_FALSE(kernel.run([]() -> AttentionOutput { throw std::runtime_error("no image for this device"); }));
  EXPECT_EQ(kernel.failure(), "no image for this device");
  EXPECT_FALSE(kernel.run(works));
  EXPECT_EQ(calls, 1);
}

TEST(OptionalKernel, IsNotBlamedForMemoryOrForWhatIsNotItsOwn) {
  OptionalKernel kernel;
  const auto full = []() -> AttentionOutput { C10_THROW_ERROR(OutOfMemoryError, "full"); };
  EXPECT_THROW(kernel.run(full), c10::OutOfMemoryError);
  EXPECT_THROW(kernel.run([]() -> AttentionOutput { throw Error(Kind::kPeer, "gone"); }), Error);
  EXPECT_THROW(kernel.run([]() -> AttentionOutput { throw std::logic_error("a bug"); }), std::logic_error);
  EXPECT_EQ(kernel.failure(), "");
  EXPECT_TRUE(kernel.run([] { return AttentionOutput{at::ones({1}), {}}; }));
}

}  // namespace
}  // namespace atelier::nn
