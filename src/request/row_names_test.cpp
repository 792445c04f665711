#include "request/row_names.h"

#include <gtest/gtest.h>

#include "base/testing.h"
#include "request/prompts.h"

namespace atelier::request {
namespace {

TEST(RowNames, UnknownNamesAreNeverProposedAndNotToldOfWithoutEnd) {
  std::string rows = "{\"prompt\":\"a\",\"xy\":1}\n";
  for (int i = 0; i < 2000; ++i) rows += str("{\"prompt\":\"a\",\"xy", i, "\":1}\n");
  const auto warnings = parse_prompts(rows, "p.jsonl").warnings;
  ASSERT_EQ(warnings.size(), RowNames::kMostTold + 1);
  EXPECT_EQ(warnings[1], "p.jsonl:2: the field \"xy0\" has no effect");
  EXPECT_NE(warnings.back().find("further fields"), std::string::npos);
}

TEST(RowNames, ANameThatMayBeThePromptsIsNamed) {
  const auto problem = [](const char* bytes, const char* file) {
    return message_of(Kind::kUsage, [&] { parse_prompts(bytes, file); });
  };
  EXPECT_NE(problem("{\"Prompt\":\"a\"}\n", "p.jsonl").find("\"Prompt\" is to be called prompt"),
            std::string::npos);
  EXPECT_NE(problem("id,caption\n1,a\n", "p.csv").find("\"caption\" is to be called prompt"),
            std::string::npos);
  EXPECT_EQ(problem("id,colour\n1,a\n", "p.csv").find("is to be called"), std::string::npos);
}

}  // namespace
}  // namespace atelier::request
