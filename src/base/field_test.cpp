// Fields: values from words and JSON, limits, what a list of fields gives.
#include "base/field.h"

#include <nlohmann/json.hpp>

#include "base/scratch.h"
#include "base/suggest.h"

namespace atelier {
namespace {

struct Sample {
  bool on = false;
  std::optional<int> size;
  uint64_t seed = 0;
  double scale = 1;
  std::string kind = "png", text;
  std::optional<uint64_t> chance = 5;
  std::vector<int> blocks;
  std::optional<std::array<int, 2>> crop;
  std::filesystem::path folder;

  void fields(const Visit& visit) {
    visit({.name = "on"}, &on);
    visit({.name = "size", .least = 1, .most = 64}, &size);
    visit({.name = "seed"}, &seed);
    visit({.name = "scale", .least = 0}, &scale);
    visit({.name = "kind", .choices = "png jpeg"}, &kind);
    visit({.name = "text", .most = 8}, &text);
    visit({.name = "chance", .unset = "-1"}, &chance);
    visit({.name = "blocks"}, &blocks);
    visit({.name = "crop", .least = 0}, &crop);
    visit({.name = "folder"}, &folder);
  }
};

void set(Sample& sample, std::string_view name, const Json& value) {
  sample.fields([&](const Field& field, const FieldRef& slot) {
    if (field.name != name) return;
    set_from_json(field, slot, value, "");
    check_limits(field, slot, "");
  });
}

std::string refused(std::string_view name, const Json& value) {
  Sample sample;
  return message_of(Kind::kUsage, [&] { set(sample, name, value); });
}

TEST(Field, ValuesOfAnyTypeComeThroughJsonUnchanged) {
  Sample sample;
  sample.on = true, sample.size = 7, sample.seed = 18446744073709551615ull, sample.scale = 0.1;
  sample.text = "a b,c", sample.blocks = {1, 2}, sample.folder = "/x y", sample.chance.reset();
  sample.crop = {3, 5};
  const Json json = fields_to_json(fields_of(sample));
  EXPECT_FALSE(json.contains("chance"));  // unset
  const auto again = fields_from_json<Sample>(Json::parse(json.dump()));
  EXPECT_EQ(fields_to_json(fields_of(again))["seed"], 18446744073709551615ull);
  EXPECT_EQ(again.scale, 0.1);
  EXPECT_EQ(again.text, "a b,c");
  EXPECT_EQ(again.blocks, sample.blocks);
  EXPECT_EQ(again.crop, sample.crop);
  EXPECT_EQ(again.folder, sample.folder);
  EXPECT_TRUE(again.on);
  message_of(Kind::kUsage, [] { fields_from_json<Sample>(Json::array()); });
}

TEST(Field, PathsOfAnyBytesComeThroughJson) {
  for (const std::string bytes : {"o\xff\xfe", "plain",
                                  "\x01"
                                  "a",
                                  "\xc3\xa4"}) {
    Sample sample;
    sample.folder = bytes;
    const std::string sent =
        fields_to_json(fields_of(sample)).dump(-1, ' ', false, Json::error_handler_t::replace);
    EXPECT_EQ(fields_from_json<Sample>(Json::parse(sent)).folder.native(), bytes);
  }
}

TEST(Field, WhatDoesNotFitIsNamedWithWhatWould) {
  EXPECT_EQ(refused("size", "tall"), "size must be an integer from 1 to 64, not \"tall\"");
  EXPECT_EQ(refused("size", 65), "size must be an integer from 1 to 64, not 65");
  EXPECT_EQ(refused("size", 1e99), "size must be an integer from 1 to 64, not \"1e+99\"");
  EXPECT_EQ(refused("size", Json{1, 2}), "size must be a single value, not a list");
  EXPECT_EQ(refused("seed", -1), "seed must be an integer of at least 0, not \"-1\"");
  EXPECT_EQ(refused("scale", "nan"), "scale must be a finite number of at least 0, not \"nan\"");
  EXPECT_EQ(refused("scale", -1), "scale must be a finite number of at least 0, not -1");
  EXPECT_EQ(refused("kind", "gif"), "kind must be one of png, jpeg, not \"gif\"");
  EXPECT_EQ(refused("on", "perhaps"), "on must be true or false, not \"perhaps\"");
  EXPECT_EQ(refused("text", "123456789"), "text must be text of at most 8 bytes, not of 9");
  EXPECT_NE(refused("text", std::string("a\0b", 3)).find("NUL"), std::string::npos);
  EXPECT_EQ(refused("crop", Json{1, 2, 3}), "crop must be two numbers, not 3 of them");
  EXPECT_EQ(refused("crop", "7"), "crop must be two numbers, not 1 of them");
  EXPECT_EQ(refused("crop", Json{1, -2}), "crop must be an integer of at least 0, not -2");
  EXPECT_EQ(refused("folder", Json::object()), "folder must be a plain value, not an object");
}

TEST(Field, SpellingsOfNumbersAndTheWordForUnset) {
  Sample sample;
  set(sample, "size", "+4.0");
  EXPECT_EQ(sample.size, 4);
  set(sample, "size", nullptr);
  EXPECT_EQ(sample.size, 4);
  set(sample, "chance", -1);
  EXPECT_EQ(sample.chance, std::nullopt);
  set(sample, "crop", "3, 5");
  EXPECT_EQ(sample.crop, (std::array{3, 5}));
  set(sample, "kind", "JPEG");
  EXPECT_EQ(sample.kind, "jpeg");
}

TEST(Field, OnlyWhatIsUnsetIsFilledIn) {
  Sample sample, defaults;
  sample.chance = 1, sample.text = "mine";
  defaults.size = 3, defaults.chance = 2, defaults.text = "theirs";
  fill_unset(sample, defaults);
  EXPECT_EQ(sample.size, 3);
  EXPECT_EQ(sample.chance, 1u);
  EXPECT_EQ(sample.text, "mine");
}

TEST(Suggestion, KnowsWhatOtherToolsCallAFieldOfARow) {
  const std::vector<std::string> row{"prompt",
                                     "seed",
                                     "width",
                                     "sampler",
                                     "lora",
                                     "guidance_scale",
                                     "output_path",
                                     "num_images_per_prompt",
                                     "scheduler_shift",
                                     "last_image",
                                     "clip_skip"};
  const std::pair<const char*, const char*> others[] = {{"sampler_index", "sampler"},
                                                        {"distilledCfgScale", "guidance_scale"},
                                                        {"flow_shift", "scheduler_shift"},
                                                        {"batch_size", "num_images_per_prompt"},
                                                        {"image_width", "width"},
                                                        {"Description", "prompt"},
                                                        {"end_image", "last_image"},
                                                        {"lora_path", "lora"},
                                                        {"outfile", "output_path"},
                                                        {"seed_value", "seed"},
                                                        {"clip_stop_at_last_layers", "clip_skip"},
                                                        {"size", ""}};
  for (const auto& [word, ours] : others) EXPECT_EQ(suggestion(word, row), ours) << word;
  const std::vector<std::string> flags{"output_dir", "batch_size", "num_images_per_prompt", "lora_scale"};
  EXPECT_EQ(suggestion("output", flags), "output_dir");
  EXPECT_EQ(suggestion("batch", flags), "batch_size");
  EXPECT_EQ(suggestion("lora_strength", flags), "lora_scale");
}

TEST(Suggestion, GoesByMeaningThenBySpellingAndNeverGuesses) {
  const std::vector<std::string> known{"num_inference_steps",
                                       "torch_dtype",
                                       "device",
                                       "quiet",
                                       "enable_compile",
                                       "dtype",
                                       "compile",
                                       "dummy",
                                       "height",
                                       "width",
                                       "negative_prompt"};
  EXPECT_EQ(suggestion("steps", known), "num_inference_steps");
  EXPECT_EQ(suggestion("negative", known), "negative_prompt");
  EXPECT_EQ(suggestion("heigth", known), "height");
  EXPECT_EQ(suggestion("with", known), "width");
  EXPECT_EQ(suggestion("HEIGHT", known), "height");
  EXPECT_EQ(suggestion("numInferenceSteps", known), "num_inference_steps");
  EXPECT_EQ(suggestion("Negative Prompt", known), "negative_prompt");
  EXPECT_EQ(suggestion("negativePromt", known), "negative_prompt");
  const std::vector<std::string> video{
      "image", "mask",    "strength",      "num_frames",  "fps",
      "seed",  "offload", "use_fp8_gemms", "output_path", "num_inference_steps"};
  const std::pair<const char*, const char*> meant[] = {{"denoising_strength", "strength"},
                                                       {"init_image", "image"},
                                                       {"maskPath", "mask"},
                                                       {"frames", "num_frames"},
                                                       {"frame_rate", "fps"},
                                                       {"base_seed", "seed"},
                                                       {"offload_model", "offload"},
                                                       {"fp8", "use_fp8_gemms"},
                                                       {"infer_steps", "num_inference_steps"},
                                                       {"task", ""},
                                                       {"size", ""}};
  for (const auto& [word, ours] : meant) EXPECT_EQ(suggestion(word, video), ours) << word;
  const std::vector<std::string> variables{"DG_XDIT_RING_DEGREE"};
  EXPECT_EQ(suggestion("DG_XDIT_RING_DEGRE", variables), "DG_XDIT_RING_DEGREE");
  for (const char* word : {"shift", "sampler", "memory", "frobnicate", "cfg"})
    EXPECT_EQ(suggestion(word, known), "");
  EXPECT_EQ(did_you_mean("hight", known), "; did you mean height?");
  EXPECT_EQ(did_you_mean("shift", known, "; see --help"), "; see --help");
}

}  // namespace
}  // namespace atelier
