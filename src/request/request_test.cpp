// What follows from the list of a request's fields.
#include "request/request.h"

#include <nlohmann/json.hpp>

#include "base/scratch.h"
#include "request/settings.h"

namespace atelier::request {
namespace {

Request sample() {
  Request r;
  r.prompt = "a \"cat\"\nin rain";
  r.height = 64, r.width = 128, r.num_inference_steps = 4, r.guidance_scale = 0.1;
  r.max_sequence_length = 77, r.seed = 18446744073709551615ull;
  r.index = 1'000'000'000'000, r.sub = 3, r.name = "a/b.png", r.where = "f:1";
  return r;
}

TEST(Request, ComesThroughTheWireUnchanged) {
  Request r = sample();
  r.prompt_2 = "", r.negative_prompt = "猫", r.true_cfg_scale = 1.0 / 3;
  const Json wire = fields_to_json(fields_of(r));
  const auto again = fields_from_json<Request>(Json::parse(wire.dump()));
  EXPECT_EQ(fields_to_json(fields_of(again)), wire);
  EXPECT_EQ(again.prompt_2, "");
  EXPECT_EQ(again.prompt_3, std::nullopt);
  EXPECT_EQ(again.true_cfg_scale, 1.0 / 3);
  EXPECT_EQ(again.seed, r.seed);
}

// One of two values that any field can have.
std::vector<std::string> words_for(const Field& field, const FieldRef& slot, size_t which) {
  if (!field.choices.empty()) return {words_of(field.choices)[which]};
  return std::vector<std::string>(is_list(slot) ? 2 : 1, which == 0 ? "7" : "8");
}

// Whoever adds a field meets this test: what it decides must show.
TEST(Request, EveryFieldThatDecidesTheLookIsInTheLook) {
  Request r = sample();
  r.fields([](const Field& field, const FieldRef& slot) {
    if (json_of(slot).is_null()) set_from_text(field, slot, words_for(field, slot, 0), "");
  });
  const Json record{{"model", "mini"}, {"height", "of the run"}};
  const Json look_of = look(r, record);
  r.fields([&](const Field& field, const FieldRef&) {
    EXPECT_EQ(look_of.contains(field.name), field.effect != Effect::kPlace) << field.name;
  });
  EXPECT_EQ(look_of["model"], "mini");
  EXPECT_EQ(look_of["height"], 64);
  Request other = r;
  other.fields([&](const Field& field, const FieldRef& slot) {
    if (field.effect == Effect::kPlace) return;
    const Json before = json_of(slot);
    set_from_text(field, slot, words_for(field, slot, 1), "");
    EXPECT_NE(settings_hash(look(other, record)), settings_hash(look_of)) << field.name;
    EXPECT_EQ(batch_key(other) == batch_key(r), field.effect == Effect::kLook) << field.name;
    set_from_json(field, slot, before, "");
  });
  EXPECT_EQ(batch_key(other), batch_key(r));
}

TEST(Request, AStrengthGoesWithAPicture) {
  Request r = sample();
  settle_strength(r, {.plain = 0.3});
  EXPECT_FALSE(r.strength);
  r.mask = "m.png";
  EXPECT_NE(message_of(Kind::kUsage, [&] { settle_strength(r, {}); }).find("mask"), std::string::npos);
  r.mask.reset(), r.strength = 0.5;
  EXPECT_NE(message_of(Kind::kUsage, [&] { settle_strength(r, {}); }).find("strength"), std::string::npos);
  r.image = "a.png";
  settle_strength(r, {.plain = 0.3});
  EXPECT_EQ(r.strength, 0.5);
  r.strength.reset();
  settle_strength(r, {.plain = 0.3, .masked = 0.9});
  EXPECT_EQ(r.strength, 0.3);
  r.strength.reset(), r.mask = "m.png";
  settle_strength(r, {.plain = 0.3, .masked = 0.9});
  EXPECT_EQ(r.strength, 0.9);
}

TEST(Request, AStepCacheHasAThresholdAndIsPartOfTheLook) {
  Request r = sample();
  settle_step_cache(r);
  EXPECT_FALSE(r.cache_type || r.cache_threshold);
  const auto plain = r;
  r.cache_threshold = 0.1;
  const auto said = message_of(Kind::kUsage, [&] { settle_step_cache(r); });
  EXPECT_NE(said.find("cache_threshold 0.1"), std::string::npos) << said;
  r.cache_type = "none";
  settle_step_cache(r);
  EXPECT_EQ(look(r, {}), look(plain, {})) << "none is nothing";
  for (const auto& [type, threshold] : {std::pair{"first_block_cache", 0.05}, {"teacache", 0.25}}) {
    auto cached = plain;
    cached.cache_type = type;
    settle_step_cache(cached);
    EXPECT_EQ(cached.cache_threshold, threshold);
    EXPECT_NE(look(cached, {}), look(plain, {}));
    EXPECT_NE(batch_key(cached), batch_key(plain));
    auto other = cached;
    other.cache_threshold = 0;
    settle_step_cache(other);
    EXPECT_EQ(other.cache_threshold, 0) << "is a threshold";
    EXPECT_NE(batch_key(cached), batch_key(other));
  }
}

TEST(Request, WhatAPictureHoldsDecidesAndNotWhereItLies) {
  const auto with = [](const char* image, const char* digest) {
    Request r = sample();
    r.image = image, r.image_sha256 = digest;
    return look(r, {});
  };
  EXPECT_EQ(with("a.png", "1"), with("elsewhere/b.png", "1"));
  EXPECT_NE(with("a.png", "1"), with("a.png", "2"));
  Request plain = sample(), begun = sample();
  begun.image = "a.png";
  EXPECT_NE(batch_key(plain), batch_key(begun));
}

TEST(Request, PreviewsAreAtEqualDistancesAndNeverTheLastStep) {
  const auto due = [](int steps, int previews) {
    std::string out;
    for (int step = 1; step <= steps; ++step) {
      if (const auto i = preview_due(step, steps, previews)) out += str(step, ":", *i, " ");
    }
    return out;
  };
  EXPECT_EQ(due(8, 3), "2:0 4:1 6:2 ");
  EXPECT_EQ(due(28, 2), "9:0 18:1 ");
  EXPECT_EQ(due(4, 0), "");
  EXPECT_EQ(due(1, 3), "");
  EXPECT_EQ(due(2, 3), "1:0 ");  // fewer steps than previews
}

TEST(Request, BatchesAreAlikeAndResolved) {
  std::vector<Request> batch{sample(), sample()};
  batch[1].prompt = "other", batch[1].seed = 1, batch[1].name = "c.png";
  EXPECT_NO_THROW(check_batch(batch));
  batch[1].true_cfg_scale = 2, batch[1].negative_prompt = "";
  EXPECT_NE(message_of(Kind::kUsage, [&] { check_batch(batch); }).find("c.png and a/b.png"),
            std::string::npos);
  batch[1] = sample();
  batch[1].max_sequence_length.reset();
  message_of(Kind::kUsage, [&] { check_batch(batch); });
  message_of(Kind::kUsage, [&] { check_batch({}); });
}

TEST(Request, ASecondBranchBesideEmbeddedGuidanceHasAScaleAndAText) {
  const auto settled = [](Request r, double scale, bool for_all) {
    settle_branches(r, {.scale = scale, .for_all = for_all});
    EXPECT_EQ(branches(r) == 2, r.negative_prompt.has_value());
    EXPECT_EQ(branches(r) == 2, r.true_cfg_scale.has_value());
    return r;
  };
  Request r = sample();
  EXPECT_EQ(branches(settled(r, 4, false)), 1);
  EXPECT_EQ(settled(r, 4, true).negative_prompt, "");
  EXPECT_EQ(branches(settled(r, 1, true)), 1);
  r.negative_prompt = "b";
  EXPECT_EQ(settled(r, 4, false).true_cfg_scale, 4);
  EXPECT_EQ(branches(settled(r, 1, false)), 1);
  r.true_cfg_scale = 2;  // a row's own wins
  EXPECT_EQ(settled(r, 4, true).true_cfg_scale, 2);
  r.true_cfg_scale = 1;
  EXPECT_EQ(branches(settled(r, 4, true)), 1);
  Request only_second = sample();
  only_second.negative_prompt_2 = "c";
  EXPECT_EQ(settled(only_second, 4, false).negative_prompt, "");
}

TEST(Request, GuidanceThatIsCfgDecidesOnTheSecondBranch) {
  const auto settled = [](Request r) {
    settle_branches(r, {.guidance_is_cfg = true, .scale = 4, .for_all = true});
    return r;
  };
  Request r = sample();
  r.guidance_scale = 5, r.true_cfg_scale.reset();
  EXPECT_EQ(branches(settled(r)), 2);
  EXPECT_EQ(cfg_scale(settled(r)), 5);
  EXPECT_FALSE(settled(r).negative_prompt) << "the model's own stands in";
  r.negative_prompt_2 = "c";
  EXPECT_FALSE(settled(r).negative_prompt) << "SDXL has zeros for it whatever its second one says";
  r.guidance_scale = 1;
  EXPECT_EQ(branches(settled(r)), 1);
  EXPECT_FALSE(has_negative(settled(r)));
  r.true_cfg_scale = 2;
  EXPECT_NE(message_of(Kind::kUsage, [&] { settled(r); }).find("guidance_scale"), std::string::npos);
}

// A branch without a text may be conditioned on something else than an empty one, for a whole batch.
TEST(Request, PicturesWithAndWithoutANegativePromptAreDrawnApart) {
  Request with = sample();
  with.guidance_is_cfg = true, with.guidance_scale = 5, with.true_cfg_scale.reset();
  with.negative_prompt = "";
  Request without = with;
  without.negative_prompt.reset();
  EXPECT_EQ(branches(with), branches(without));
  EXPECT_NE(batch_key(with), batch_key(without));
}

TEST(Request, FurtherPromptsWithoutACharacterAreNone) {
  Request r = sample();
  r.guidance_scale = 5, r.true_cfg_scale.reset();
  r.prompt_2 = "", r.prompt_3 = "third", r.negative_prompt = "", r.negative_prompt_2 = "",
  r.negative_prompt_3 = " ";
  settle_branches(r, {.guidance_is_cfg = true});
  EXPECT_EQ(prompt_of(r, CfgBranch::kPositive, 1), r.prompt);
  EXPECT_EQ(prompt_of(r, CfgBranch::kPositive, 2), "third");
  EXPECT_EQ(r.negative_prompt, "");
  EXPECT_FALSE(r.negative_prompt_2);
  EXPECT_EQ(prompt_of(r, CfgBranch::kNegative, 2), " ");
}

TEST(Request, EncodersWithoutATextOfTheirOwnTakeTheFirst) {
  Request r = sample();
  r.prompt_2 = "second", r.negative_prompt = "no", r.negative_prompt_3 = "third no";
  const auto texts = [&](CfgBranch branch) {
    std::vector<std::string> out;
    for (size_t encoder = 0; encoder < 3; ++encoder) out.push_back(prompt_of(r, branch, encoder));
    return out;
  };
  EXPECT_EQ(texts(CfgBranch::kPositive), (std::vector<std::string>{r.prompt, "second", r.prompt}));
  EXPECT_EQ(texts(CfgBranch::kNegative), (std::vector<std::string>{"no", "no", "third no"}));
  r.negative_prompt.reset();
  EXPECT_EQ(prompt_of(r, CfgBranch::kNegative, 0), "");
}

}  // namespace
}  // namespace atelier::request
