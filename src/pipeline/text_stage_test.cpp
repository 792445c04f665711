// Texts to conditioning: each text once, by itself, and as if nothing had come before.
#include "pipeline/text_stage.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "pipeline/testing.h"

namespace atelier::pipeline {
namespace {

using nn::error_of;
using nn::has;

const std::string kFox = "A red fox asleep on a mossy stone", kBoats = "two paper boats, watercolor",
                  kRain = "rain";

models::PromptBatch prompts(std::vector<std::string> first, std::vector<std::string> second = {}) {
  if (second.empty()) second = first;
  static const Json nothing = Json::object();
  return {.texts = {first, second, first},
          .pipeline = nothing,
          .denoiser = nothing,
          .max_sequence_length = 16,
          .height = 32,
          .width = 32};
}

struct Stage {
  ModelRepo model;
  TextStage stage;
  explicit Stage(const std::filesystem::path& folder = kGolden / "model")
      : model(ModelRepo::open(folder)), stage(model, c10::kCPU, at::kFloat) {}
  nn::Conditioning operator()(const models::PromptBatch& p) {
    const c10::InferenceMode guard;
    return stage.condition(p, nullptr, "");
  }
};

TEST(TextStage, EncodesEqualTextsOnceAndRemembersThem) {
  Stage s;
  const auto all = s(prompts({kFox, kBoats, kFox}));
  EXPECT_EQ(s.stage.encoded(), 4) << "two texts, two encoders";
  EXPECT_EQ(all.streams.at(0).size(1), 3);
  EXPECT_TRUE(all.streams[0].select(1, 0).equal(all.streams[0].select(1, 2)));
  EXPECT_FALSE(all.streams[0].select(1, 0).equal(all.streams[0].select(1, 1)));
  EXPECT_EQ(all.whole.at("pooled").size(0), 3);
  s(prompts({kBoats}));
  EXPECT_EQ(s.stage.encoded(), 4);
  auto longer = prompts({kBoats});
  longer.max_sequence_length = 20;
  s(longer);
  EXPECT_EQ(s.stage.encoded(), 5) << "the first encoder's length is its own";
}

TEST(TextStage, MovesAnEncoderOnceForTextsOneBehindAnother) {
  const c10::InferenceMode guard;
  const auto model = ModelRepo::open(kGolden / "model");
  TextStage stage(model, c10::kCPU, at::kFloat, Residency::kParked);
  Stage resident;
  const auto all = prompts({kFox, kBoats, kRain});
  EXPECT_TRUE(stage.condition(all, nullptr, "").streams[0].equal(resident(all).streams[0]));
  EXPECT_EQ(stage.moved(), 2) << "two encoders, three texts each";
  {
    const TextStage::Stay both_branches(stage);
    auto longer = all;
    longer.max_sequence_length = 20;  // only the second encoder is asked
    stage.condition(longer, nullptr, "");
    longer.max_sequence_length = 24;
    stage.condition(longer, nullptr, "");
    EXPECT_EQ(stage.moved(), 3);
  }
  stage.condition(prompts({"snow"}), nullptr, "");
  EXPECT_EQ(stage.moved(), 5) << "nothing stays behind the last";
}

TEST(TextStage, GivesATextTheSameBitsWhateverIsBesideOrBeforeIt) {
  Stage alone, crowded;
  crowded(prompts({kBoats, kRain}));
  const auto one = alone(prompts({kFox})), many = crowded(prompts({kRain, kFox, kBoats}));
  EXPECT_TRUE(one.streams[0].select(1, 0).equal(many.streams[0].select(1, 1)));
  EXPECT_TRUE(one.whole.at("pooled")[0].equal(many.whole.at("pooled")[1]));
}

TEST(TextStage, GivesEachEncoderItsOwnPrompt) {
  Stage s;
  const auto both = s(prompts({kFox}, {kBoats})), fox = s(prompts({kFox})), boats = s(prompts({kBoats}));
  EXPECT_TRUE(both.whole.at("pooled").equal(fox.whole.at("pooled")));
  EXPECT_TRUE(both.streams[0].equal(boats.streams[0]));
  EXPECT_FALSE(both.streams[0].equal(fox.streams[0]));
}

TEST(TextStage, QuotesWhatIsLeftOutOfWhoseText) {
  Stage s;
  std::string many;
  for (int i = 0; i < 60; ++i) many += str("word", i, " ");
  std::vector<std::pair<size_t, std::string>> notes;
  const auto noted = [&](const models::PromptBatch& p, const std::string& prefix) {
    const c10::InferenceMode guard;
    notes.clear();
    s.stage.condition(p, nullptr, prefix,
                      [&](size_t i, const std::string& note) { notes.emplace_back(i, note); });
  };
  noted(prompts({kRain, many}), "prompt.");
  ASSERT_EQ(notes.size(), 2u) << "both encoders are too short for the second text";
  EXPECT_EQ(notes[0].first, 1u);
  EXPECT_TRUE(has(notes[0].second, "the prompt is cut to 77 tokens for text_encoder, ")) << notes[0].second;
  EXPECT_TRUE(has(notes[1].second, "cut to 16 tokens for text_encoder_2") &&
              has(notes[1].second, "word59 \""))
      << notes[1].second;
  noted(prompts({many}), "prompt.");
  EXPECT_EQ(notes.size(), 2u) << "also where its states are remembered";
  noted(prompts({"a\x1b[31m " + std::string(2000, 'x')}), "negative.");
  ASSERT_EQ(notes.size(), 2u);
  EXPECT_TRUE(has(notes[1].second, "the negative prompt") && has(notes[1].second, "...\""))
      << notes[1].second;
  EXPECT_LT(notes[1].second.size(), 600u);
  EXPECT_EQ(notes[1].second.find('\x1b'), std::string::npos);
}

TEST(TextStage, NamesTheEncoderThatMakesNoNumbers) {
  const Copy copy(kGolden / "model");
  copy.edit_tensors("text_encoder_2/model.safetensors",
                    [](weights::Tensors& t) { t.at("encoder.final_layer_norm.weight").fill_(3e38); });
  Stage s(copy.path());
  EXPECT_TRUE(has(error_of(Kind::kItem, [&] { s(prompts({kFox})); }), "text_encoder_2"));
}

TEST(TextCache, ForgetsTheLeastRecentlyUsedWithinItsBudget) {
  const auto key = [](int64_t id) { return TextCache::Key{"t5", models::TextCall::Padding::kSeen, 0, {id}}; };
  const auto states = [](double value) {
    return models::TextStates{.states = at::full({1, 4, 2}, value, at::TensorOptions(at::kFloat)),
                              .lengths = {4}};
  };
  TextCache cache(3 * 32);
  for (int64_t i = 0; i < 3; ++i) cache.put(key(i), states(static_cast<double>(i)));
  EXPECT_NE(cache.find(key(0)), nullptr);
  cache.put(key(3), states(3));
  EXPECT_EQ(cache.bytes(), 3 * 32);
  EXPECT_EQ(cache.find(key(1)), nullptr);
  ASSERT_NE(cache.find(key(0)), nullptr);
  EXPECT_EQ(cache.find(key(0))->states.flatten()[0].item<float>(), 0);
  EXPECT_EQ(cache.find(key(3))->lengths, (std::vector<int64_t>{4}));
  cache.put(key(4), {.states = at::full({1, 100, 2}, 1.0), .lengths = {100}});
  EXPECT_EQ(cache.find(key(4)), nullptr) << "larger than all of it";
  EXPECT_EQ(cache.bytes(), 3 * 32);
}

}  // namespace
}  // namespace atelier::pipeline
