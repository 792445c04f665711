// Prompts in CSV: quotes, columns, mistakes.
#include "request/csv.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "base/scratch.h"
#include "base/testing.h"
#include "request/lines.h"
#include "request/prompts.h"
#include "request/work.h"

namespace atelier::request {
namespace {

using Indices = std::vector<int64_t>;

Indices indices(const Prompts& prompts) {
  Indices out;
  for (const PromptRow& row : prompts.rows) out.push_back(row.request.index);
  return out;
}

TEST(PromptFile, CsvQuotesMayHoldCommasQuotesAndLineEnds) {
  const Scratch dir;
  const Prompts p = read_prompts(dir.write("p.csv",
                                           "\xEF\xBB\xBFprompt, height,index,output_path\r\n"
                                           "\"a, \"\"b\"\"\nc\",512,10,\r\n"
                                           "\r\n"
                                           "plain,,,dir/n.png\r\n"
                                           "short\r\n"
                                           "too,1,2,3,4\r\n"
                                           ",1\r\n"
                                           "last,1024.0,\"11\""));
  EXPECT_EQ(indices(p), (Indices{10, 1, 2, 11}));
  EXPECT_EQ(p.rows[0].request.prompt, "a, \"b\"\nc");
  EXPECT_EQ(p.rows[0].request.height, 512);
  EXPECT_EQ(p.rows[1].request.height, std::nullopt);
  EXPECT_EQ(p.rows[1].custom_name, "dir/n.png");
  EXPECT_EQ(p.rows[3].request.height, 1024);
  EXPECT_TRUE(p.rows[1].request.where.ends_with(":5")) << p.rows[1].request.where;
  ASSERT_EQ(p.bad.size(), 2U);
  EXPECT_NE(p.bad[0].reason.find("5 cells, the header 4"), std::string::npos) << p.bad[0].reason;
  EXPECT_NE(p.bad[1].reason.find("no prompt"), std::string::npos);
}

TEST(PromptFile, CsvMistakesAreNamed) {
  const Scratch dir;
  const auto usage = [&](const char* text) {
    return message_of(Kind::kUsage, [&] { read_prompts(dir.write("p.csv", text)); });
  };
  EXPECT_NE(usage("").find("header"), std::string::npos);
  EXPECT_NE(usage("prompt;height\na;1\n").find("prompt;height"), std::string::npos);
  EXPECT_NE(usage("prompt,prompt\na,b\n").find("twice"), std::string::npos);
  EXPECT_NE(usage("prompt\n").find("no prompt"), std::string::npos);
  const Prompts p = read_prompts(dir.write("p.csv", "prompt\ngood\n\"open\nx\n"));
  EXPECT_EQ(p.rows.size(), 2U);
  ASSERT_EQ(p.bad.size(), 1U);
  EXPECT_NE(p.bad[0].reason.find("opened in line 3"), std::string::npos) << p.bad[0].reason;
}

TEST(Csv, QuotesHoldAnything) {
  const auto records = read_csv("a,,\"b,c\",\"d\"\"e\",\"f\r\ng\", h \r\n1,2\r\n");
  ASSERT_EQ(records.size(), 2U);
  EXPECT_EQ(records[0].cells, (std::vector<std::string>{"a", "", "b,c", "d\"e", "f\r\ng", " h "}));
  EXPECT_EQ(records[1].line, 3);
}

TEST(Csv, ARowWithoutTheNameItNeedsFailsAlone) {
  const PromptOptions options{.output_name_column = "prompt_id", .needs_name = true};
  const auto read = [&](const char* text) { return parse_prompts(text, "p.csv", options); };
  const Prompts some = read(
      "\xEF\xBB\xBFprompt_id,prompt\r\n,no id\r\n 7 ,\"a \"\"red\"\" "
      "fox,\r\nasleep\"\r\nx\r\ny,\r\nz,two,cells too "
      "many\r\n\r\nlast,an owl\r\n");
  ASSERT_EQ(some.rows.size(), 2u);
  EXPECT_EQ(some.rows[0].custom_name, "7");
  EXPECT_EQ(some.rows[0].request.prompt, "a \"red\" fox,\r\nasleep");
  EXPECT_EQ(some.rows[1].custom_name, "last");
  const std::pair<const char*, const char*> bad[] = {{"p.csv:2", "no prompt_id"},
                                                     {"p.csv:5", "no prompt"},
                                                     {"p.csv:6", "no prompt"},
                                                     {"p.csv:7", "3 cells"}};
  ASSERT_EQ(some.bad.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(some.bad[i].where, bad[i].first);
    EXPECT_NE(some.bad[i].reason.find(bad[i].second), std::string::npos) << some.bad[i].reason;
  }
  const auto message = message_of(Kind::kUsage, [&] { read("id,prompt\n1,a fox\n"); });
  EXPECT_NE(message.find("no prompt_id"), std::string::npos) << message;
}

TEST(Csv, AQuoteThatNeverClosesCostsItsOwnLine) {
  const Prompts some =
      parse_prompts("index,prompt\n1,\"two\nlines\"\n2,\"open, and on\n3,plain\n4,last\n", "p.csv");
  ASSERT_EQ(some.rows.size(), 3u);
  EXPECT_EQ(some.rows[1].request.prompt, "plain");
  EXPECT_EQ(some.rows[2].request.where, "p.csv:6");
  ASSERT_EQ(some.bad.size(), 1u);
  EXPECT_EQ(some.bad[0].where, "p.csv:4");
  EXPECT_NE(some.bad[0].reason.find("line 4 is never closed"), std::string::npos) << some.bad[0].reason;
}

}  // namespace
}  // namespace atelier::request
