// Lists longer than what is kept in memory come back as they were, from any place on.
#include "request/spool.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/field.h"
#include "base/scratch.h"
#include "request/prompts.h"
#include "request/request_list.h"

namespace atelier::request {
namespace {

Request sample(size_t i) {
  Request r;
  r.prompt = std::string(i % 700, 'p') + std::to_string(i);
  r.index = static_cast<int64_t>(i);
  r.name = std::to_string(i) + ".png";
  if (i % 3 == 0) r.negative_prompt = "";
  if (i % 5 == 0) r.original_size = {static_cast<int>(i), 7};
  if (i % 7 == 0) r.lora = {"a:0.5", "b"};
  if (i % 2 == 0) r.seed = ~uint64_t{0} - i;
  return r;
}

Json json(const Request& r) {
  return fields_to_json(fields_of(r));
}

TEST(Spool, GivesBackWhatIsInFileAndMemoryFromAnyPlace) {
  RequestList list;
  constexpr size_t kMany = 9000;  // 3 MB
  for (size_t i = 0; i < kMany; ++i) list.push_back(sample(i));
  ASSERT_EQ(list.size(), kMany);
  size_t next = 0;
  for (const Request& r : list) {
    ASSERT_EQ(json(r), json(sample(next))) << next;
    ++next;
  }
  EXPECT_EQ(next, kMany);
  for (const size_t i : {size_t{0}, size_t{63}, size_t{64}, size_t{1000}, kMany - 1})
    EXPECT_EQ(json(list[i]), json(sample(i))) << i;
  next = 8990;
  for (auto at = list.from(next); at != list.end(); ++at) EXPECT_EQ(at->index, static_cast<int64_t>(next++));
  EXPECT_EQ(next, kMany);
  const RequestList moved = std::move(list);
  EXPECT_EQ(moved.only([](const Request& r) { return r.index % 1000 == 1; }).size(), 9U);
  EXPECT_EQ(RequestList().begin() == std::default_sentinel, true);
}

TEST(Spool, RowsKeepWhatTheirRequestsDoNotHold) {
  PromptRow row{.request = sample(3), .images = 4, .custom_name = "n"};
  const RowList rows{row};
  EXPECT_EQ(json(rows.front().request), json(row.request));
  EXPECT_EQ(rows.front().images, 4);
  EXPECT_EQ(rows.front().custom_name, "n");
}

TEST(Spool, AFullTemporaryFolderIsNamed) {
  const char* before = std::getenv("TMPDIR");
  const std::string usual = before ? before : "";
  ::setenv("TMPDIR", "/proc/self", 1);  // nothing can be made there
  RequestList list;
  const auto message = message_of(Kind::kCapacity, [&] {
    for (size_t i = 0; i < 9000; ++i) list.push_back(sample(699));
  });
  before ? ::setenv("TMPDIR", usual.c_str(), 1) : ::unsetenv("TMPDIR");
  EXPECT_NE(message.find("TMPDIR"), std::string::npos) << message;
}

}  // namespace
}  // namespace atelier::request
