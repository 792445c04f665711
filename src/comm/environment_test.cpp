// Defaults in the environment: set where nothing is set, and only there.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <optional>
#include <string>

#include "comm/comm.h"

namespace atelier::comm {
namespace {

std::optional<std::string> value_of(const std::string& name) {
  const char* const value = std::getenv(name.c_str());
  return value ? std::optional<std::string>(value) : std::nullopt;
}

// Clears variables, and gives them back at the end of the test.
class Defaults : public testing::Test {
 protected:
  void SetUp() override {
    for (const char* const name : {"NCCL_NVLS_ENABLE", "NCCL_RAS_ENABLE", "TORCH_SYMM_MEM_DISABLE_MULTICAST",
                                   "TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"}) {
      before_[name] = value_of(name);
      ::unsetenv(name);
    }
  }
  void TearDown() override {
    for (const auto& [name, value] : before_) {
      if (value) ::setenv(name.c_str(), value->c_str(), 1);
      if (!value) ::unsetenv(name.c_str());
    }
  }

 private:
  std::map<std::string, std::optional<std::string>> before_;
};

TEST_F(Defaults, AreSetWhereNothingIs) {
  set_nccl_defaults();
  EXPECT_EQ(value_of("NCCL_NVLS_ENABLE"), "0");
  EXPECT_EQ(value_of("NCCL_RAS_ENABLE"), "0");
  EXPECT_EQ(value_of("TORCH_SYMM_MEM_DISABLE_MULTICAST"), "1");
  EXPECT_EQ(value_of("TORCH_FR_BUFFER_SIZE"), "0");
}

TEST_F(Defaults, LeaveWhatTheUserSet) {
  ::setenv("NCCL_NVLS_ENABLE", "1", 1);
  ::setenv("NCCL_RAS_ENABLE", "", 1);
  set_nccl_defaults();
  EXPECT_EQ(value_of("NCCL_NVLS_ENABLE"), "1");
  EXPECT_EQ(value_of("NCCL_RAS_ENABLE"), "");
}

TEST_F(Defaults, LeaveWhatTheUserSetUnderItsOldName) {
  ::setenv("TORCH_NCCL_TRACE_BUFFER_SIZE", "100", 1);
  set_nccl_defaults();
  EXPECT_EQ(value_of("TORCH_FR_BUFFER_SIZE"), std::nullopt);
}

}  // namespace
}  // namespace atelier::comm
