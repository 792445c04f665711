// Calls and bytes of the last batch, and the time that messages were under way.
#include "bench/traffic.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace atelier::bench {
namespace {

constexpr const char* kLog =
    "12:00:00 debug rank=0 collective=broadcast group=\"replica\" bytes=7 peers=1\n"
    "12:00:01 debug rank=0 batch run=1 pictures=1 height=64\n"
    "12:00:01 debug rank=0 collective=all_to_all group=\"ulysses\" bytes=999 peers=1\n"
    "12:00:02 debug rank=0 batch run=2 pictures=1 height=64\n"
    "12:00:02 debug rank=0 collective=all_to_all group=\"ulysses\" bytes=1000 peers=1\n"
    "12:00:02 debug rank=0 collective=all_to_all group=\"ulysses\" bytes=3000 peers=1\n"
    "12:00:03 debug rank=0 collective=barrier group=\"ulysses\" bytes=0 peers=1\n"
    "12:00:03 debug rank=0 collective=all_gather group=\"ulysses\" bytes=50 peers=1\n";

Json event(const char* name, double ts, double dur) {
  return {{"ph", "X"}, {"name", name}, {"ts", ts}, {"dur", dur}};
}

TEST(Traffic, CountsTheLastBatchOfAllRanks) {
  Traffic traffic;
  traffic.add_log(0, kLog);
  traffic.add_log(1, kLog);
  const Json out = traffic.json(10);
  ASSERT_EQ(out["collectives"].size(), 2u);
  EXPECT_EQ(out["collectives"][0]["verb"], "all_gather");
  EXPECT_EQ(out["collectives"][1]["calls"], 4);
  EXPECT_EQ(out["collectives"][1]["bytes"], 8000);
  EXPECT_FALSE(out.contains("share")) << "no trace, no times";
}

TEST(Traffic, TimesComeFromKernelsAndCalls) {
  Traffic traffic;
  traffic.add_log(0, kLog);
  traffic.add_trace({{"traceEvents",
                      {event("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", 0, 1000),
                       event("gloo:all_gather", 500, 1000), event("aten::mm", 0, 90000),
                       event("ncclDevKernel_SendRecv(x)", 4000, 1000)}}});
  const Json out = traffic.json(10);
  EXPECT_EQ(out["collectives"][1]["verb"], "all_to_all")
      << "what NCCL sends from one to another is the exchange of the log";
  EXPECT_DOUBLE_EQ(out["collectives"][1]["ms"], 2);
  EXPECT_DOUBLE_EQ(out["collectives"][1]["gb_per_s"], 0.002);
  EXPECT_DOUBLE_EQ(out["collectives"][0]["ms"], 1);
  EXPECT_DOUBLE_EQ(out["under_way_ms"], 2.5) << "two at a time are under way once";
  EXPECT_DOUBLE_EQ(out["share"], 0.25);
}

TEST(Traffic, SendsOfTwoVerbsAreNotToldApart) {
  Traffic traffic;
  traffic.add_log(0,
                  "batch run=1\ncollective=all_to_all group=\"a\" bytes=500 peers=1\n"
                  "collective=send_recv group=\"b\" bytes=500 peers=1\n");
  traffic.add_trace({{"traceEvents", {event("gloo:send", 0, 1000)}}});
  const Json out = traffic.json(10);
  for (const auto& v : out["collectives"]) EXPECT_FALSE(v.contains("ms")) << v;
  EXPECT_DOUBLE_EQ(out["under_way_ms"], 1);
}

TEST(Traffic, CoveredCountsOverlapsOnce) {
  EXPECT_DOUBLE_EQ(covered({}), 0);
  EXPECT_DOUBLE_EQ(covered({{5, 7}, {0, 10}, {20, 21}}), 11);
}

}  // namespace
}  // namespace atelier::bench
