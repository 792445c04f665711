// Names, expansion of rows, batches.
#include "request/work.h"

#include "base/scratch.h"
#include "request/names.h"
#include "request/prompts.h"

namespace atelier::request {
namespace {

PromptRow row(int64_t index, std::optional<int> images = {}, std::string name = {}) {
  PromptRow r;
  r.request.prompt = "p";
  r.request.index = index;
  r.request.where = str("f:", index + 1);
  r.images = images;
  r.custom_name = std::move(name);
  return r;
}

std::vector<std::string> names(const RequestList& items) {
  std::vector<std::string> out;
  for (const Request& item : items) out.push_back(item.name);
  return out;
}

using Names = std::vector<std::string>;

TEST(Names, DefaultNamesArePadded) {
  EXPECT_EQ(default_name(0, {}, ".png"), "000000.png");
  EXPECT_EQ(default_name(12, 3, ".png"), "000012_03.png");
  EXPECT_EQ(default_name(1234567, 100, ".webp"), "1234567_100.webp");
  EXPECT_EQ(numbered_name("a/x.png", 2), "a/x-2.png");
  EXPECT_EQ(numbered_name("b.c/x", 11), "b.c/x-11");
}

TEST(Names, CustomNamesKeepKnownSuffixes) {
  EXPECT_EQ(custom_name("a/b", {}, ".png"), "a/b.png");
  EXPECT_EQ(custom_name("a/b", 1, ".png"), "a/b_01.png");
  EXPECT_EQ(custom_name("x.JPEG", 2, ".png"), "x_02.jpeg");
  EXPECT_EQ(custom_name("x.webp", {}, ".png"), "x.webp.png");
  EXPECT_EQ(custom_name("x.webp", {}, ".webp"), "x.webp");
  EXPECT_EQ(custom_name("./v1.5//x", {}, ".png"), "v1.5/x.png");
  EXPECT_EQ(custom_name("a b/ü 猫", {}, ".png"), "a b/ü 猫.png");
  EXPECT_EQ(custom_name(".png", {}, ".png"), ".png.png");
}

TEST(Names, NothingLeavesTheFolder) {
  for (const std::string& name :
       {std::string("/etc/x"), std::string("../x"), std::string("a/../../x"), std::string("a/.."),
        std::string(".."), std::string("a\0b", 3), std::string("a\nb"), std::string("a\x7F"),
        std::string("a/"), std::string("."), std::string(), std::string("\xFF"), std::string(300, 'x'),
        std::string("a/.atelier-x")}) {
    message_of(Kind::kItem, [&] { custom_name(name, {}, ".png"); });
  }
  EXPECT_EQ(custom_name("..a/b..", {}, ".png"), "..a/b...png");
}

TEST(Expand, EachPictureHasItsSubIndexAndSeed) {
  PromptRow seeded = row(5, 3);
  seeded.request.seed = 100;
  Prompts p{{row(0), seeded, row(6, 1)}, {}};
  const auto items = expand(p, {.images = 2, .seed = 7});
  EXPECT_EQ(names(items), (Names{"000000_00.png", "000000_01.png", "000005_00.png", "000005_01.png",
                                 "000005_02.png", "000006.png"}));
  EXPECT_EQ(items[1].seed, 8U);
  EXPECT_EQ(items[4].seed, 102U);
  EXPECT_EQ(items[4].sub, 2);
  EXPECT_EQ(items[5].seed, 7U);
  Prompts q{{row(0)}, {}};
  EXPECT_EQ(expand(q, {})[0].seed, std::nullopt);
}

TEST(Expand, RefusedAndRepeatedNamesFailTheirRowOnly) {
  Prompts p{{row(0, {}, "a.png"), row(1, {}, "../a"), row(2, {}, "./a"), row(3), row(4, {}, "000003")}, {}};
  EXPECT_EQ(names(expand(p, {})), (Names{"a.png", "000003.png"}));
  ASSERT_EQ(p.bad.size(), 3U);
  EXPECT_EQ(p.bad[0].where, "f:2");
  EXPECT_NE(p.bad[1].reason.find("already used by f:1"), std::string::npos) << p.bad[1].reason;
  EXPECT_TRUE(p.rows.empty());  // taken
}

TEST(Expand, AbsurdCountsAreRefused) {
  Prompts p;
  for (int i = 0; i < 2000; ++i) p.rows.push_back(row(i, 10000));
  message_of(Kind::kUsage, [&] { expand(p, {}); });
}

TEST(Batches, ShortLastBatchIsKept) {
  Prompts p{{row(0), row(1), row(2), row(3), row(4)}, {}};
  const auto b = batches(expand(p, {}), 2);
  ASSERT_EQ(b.size(), 3U);
  EXPECT_EQ(b[0].size(), 2U);
  EXPECT_EQ(b[2].size(), 1U);
  EXPECT_EQ(b[2][0].index, 4);
  message_of(Kind::kUsage, [&] { batches({}, 0); });
  EXPECT_TRUE(batches({}, 4).empty());
}

TEST(Batches, OnlyEqualShapesShareABatch) {
  std::vector<Request> items(7);
  items[1].height = 512;
  items[2].num_inference_steps = 3;
  items[3].guidance_scale = 2.0;
  items[4].negative_prompt = "b", items[4].true_cfg_scale = 2;
  items[5].seed = 3;
  items[6].prompt = "other";
  const auto b = batches(RequestList(items), 8);
  ASSERT_EQ(b.size(), 6U);
  EXPECT_EQ(b[5].size(), 2U);
}

TEST(Expand, ANameIsNotAFileAndAFolderAtOnce) {
  Prompts p{{row(0, {}, "a.png"), row(1, {}, "a.png/b"), row(2, {}, "c/d/e.png"), row(3, {}, "c/d.png"),
             row(4, {}, "c.png/x"), row(5, {}, "c.png")},
            {}};
  EXPECT_EQ(names(expand(p, {})), (Names{"a.png", "c/d/e.png", "c/d.png", "c.png/x.png"}));
  ASSERT_EQ(p.bad.size(), 2U);
  EXPECT_NE(p.bad[0].reason.find("already used as \"a.png\" by f:1"), std::string::npos) << p.bad[0].reason;
  EXPECT_NE(p.bad[1].reason.find("by f:5"), std::string::npos) << p.bad[1].reason;
}

TEST(Nodes, SharesCoverAllRowsOnceBadOnesToo) {
  std::vector<int64_t> seen;
  std::vector<std::string> bad;
  for (int node = 0; node < 4; ++node) {
    Prompts p;
    for (int i = 0; i < 11; ++i) p.rows.push_back(row(i, 2));
    p.rows.push_back(row(11, 2, "../x"));
    p.bad = {{"f:0", "x", 0}, {"f:5", "x", 5}, {"f:13", "x", 11}};
    const auto share = expand(p, {.node = node, .nodes = 4});
    EXPECT_EQ(share.size(), node < 3 ? 6U : 4U);
    for (size_t i = 0; i < share.size(); i += 2) seen.push_back(share[i].index);
    for (const auto& b : p.bad) bad.push_back(b.where);
  }
  EXPECT_EQ(seen, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(bad, (std::vector<std::string>{"f:0", "f:5", "f:13", "f:12"}));
}

TEST(Nodes, NamesAreComparedOverAllNodes) {
  for (int node = 0; node < 2; ++node) {
    Prompts p{{row(0, {}, "a"), row(1), row(2, {}, "a")}, {}};
    expand(p, {.node = node, .nodes = 2});
    EXPECT_EQ(p.bad.size(), node == 1 ? 1U : 0U);
  }
}

TEST(Expand, SeedsMakeAFolderOfPicturesForEveryRow) {
  Prompts prompts = parse_prompts(
      "prompt_id,prompt,seed,num_images_per_prompt\nfox,a fox,,\nowl,an owl,9,\nelk,an "
      "elk,,2\n../out,x,,\nfox,y,,\n",
      "p.csv", {.output_name_column = "prompt_id", .needs_name = true});
  const auto requests = expand(prompts, {.seeds = {4, 7}});
  std::vector<std::string> names;
  for (const auto& r : requests) names.push_back(str(r.name, " ", r.sub, " ", *r.seed));
  EXPECT_EQ(names, (std::vector<std::string>{"fox/4.png 0 4", "fox/7.png 1 7", "owl/9.png 0 9",
                                             "elk/4.png 0 4", "elk/5.png 1 5"}));
  ASSERT_EQ(prompts.bad.size(), 2u);
  EXPECT_EQ(prompts.bad[0].where, "p.csv:5");
  EXPECT_NE(prompts.bad[0].reason.find("leaves the output folder"), std::string::npos)
      << prompts.bad[0].reason;
  EXPECT_EQ(prompts.bad[1].where, "p.csv:6");
  EXPECT_NE(prompts.bad[1].reason.find("already used"), std::string::npos) << prompts.bad[1].reason;
}

}  // namespace
}  // namespace atelier::request
