// Every field is honoured, said to have no effect, or refused by its name.
#include "server/api_fields.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/api_error.h"

namespace atelier::server {
namespace {

const ApiFields& generations() {
  static const ApiFields fields(Endpoint::kGenerations, {});
  return fields;
}

Draft read(Json body) {
  if (!body.contains("prompt")) body["prompt"] = "a fox";
  return generations().read(body);
}

// "param: code", or "taken".
std::string refusal(const Json& body) {
  try {
    read(body);
    return "taken";
  } catch (const ApiError& e) {
    EXPECT_EQ(e.status, 400);
    EXPECT_NE(std::string(e.what()).find(e.param), std::string::npos) << e.what();
    return e.param + ": " + e.code;
  }
}

TEST(ApiFields_OpenAisFields, AreRead) {
  const auto d = read({{"model", "mini"},
                       {"n", 2},
                       {"size", "64x32"},
                       {"output_format", "webp"},
                       {"quality", "high"},
                       {"background", "opaque"},
                       {"moderation", "low"},
                       {"user", "u"},
                       {"stream", true},
                       {"partial_images", 2},
                       {"output_compression", 80},
                       {"response_format", "b64_json"}});
  EXPECT_EQ(d.model, "mini");
  EXPECT_EQ(d.row.images, 2);
  EXPECT_EQ(d.row.request.width, 64);
  EXPECT_EQ(d.row.request.height, 32);
  EXPECT_EQ(d.format, "webp");
  EXPECT_TRUE(d.is_stream);
  EXPECT_EQ(d.partial_images, 2);
  EXPECT_EQ(d.row.request.output_compression, 80);
}

TEST(ApiFields_FieldsOfARequest, AreReadWithTheirShortNames) {
  const auto d = read({{"seed", 5},
                       {"steps", 7},
                       {"guidance", 2.5},
                       {"negative_prompt", "no"},
                       {"sampler", "euler"},
                       {"true_cfg_scale", 3},
                       {"original_size", {64, 32}},
                       {"lora", {"a", {{"name", "b"}, {"strength", 0.5}, {"expert", "transformer_2"}}}}});
  EXPECT_EQ(d.row.request.seed, 5u);
  EXPECT_EQ(d.row.request.num_inference_steps, 7);
  EXPECT_EQ(d.row.request.guidance_scale, 2.5);
  EXPECT_EQ(d.row.request.negative_prompt, "no");
  EXPECT_EQ(d.row.request.sampler, "euler");
  ASSERT_EQ(d.adapters.size(), 2u);
  EXPECT_EQ(d.adapters[1].name, "b");
  EXPECT_EQ(d.adapters[1].strength, 0.5);
  EXPECT_EQ(d.adapters[1].expert, "transformer_2");
}

TEST(ApiFields_NullSaysNothing, AsClientsSendIt) {
  EXPECT_EQ(refusal({{"size", nullptr}, {"seed", nullptr}, {"quality", nullptr}, {"n", nullptr}}), "taken");
}

TEST(ApiFields_WhatIsNotHonoured, IsRefusedByName) {
  EXPECT_EQ(refusal({{"style", "vivid"}}), "style: unsupported_parameter");
  EXPECT_EQ(refusal({{"strength", 0.5}}), "strength: unsupported_parameter");
  EXPECT_EQ(refusal({{"stepz", 5}}), "stepz: unknown_parameter");
  for (const char* own :
       {"image", "mask", "name", "where", "index", "image_sha256", "lora_digest", "guidance_is_cfg", "images",
        "last_image", "input_images", "reference_images", "control_video", "mask_video"})
    EXPECT_EQ(refusal({{own, "x"}}), std::string(own) + ": unknown_parameter");
  EXPECT_EQ(refusal({{"background", "transparent"}}), "background: invalid_value");
  EXPECT_EQ(refusal({{"response_format", "url"}}), "response_format: invalid_value");
  EXPECT_EQ(refusal({{"response_format", "path"}}), "response_format: invalid_value");
}

TEST(ApiFields_ValuesThatDoNotFit, AreRefusedByName) {
  for (const char* size : {"64", "64x", "x64", "axb", "64x64x64", "-64x64", "064x64", "1e2x64", "+64x64",
                           "0x64", "99999x64", "64X64", ""})
    EXPECT_EQ(refusal({{"size", size}}), "size: invalid_value") << size;
  EXPECT_EQ(refusal({{"n", 0}}), "n: invalid_value");
  EXPECT_EQ(refusal({{"n", 1.5}}), "n: invalid_value");
  EXPECT_EQ(refusal({{"n", "many"}}), "n: invalid_value");
  EXPECT_EQ(refusal({{"n", true}}), "n: invalid_value");
  EXPECT_EQ(refusal({{"seed", 1e300}}), "seed: invalid_value");
  EXPECT_EQ(refusal({{"steps", 0}}), "steps: invalid_value");
  EXPECT_EQ(refusal({{"prompt", 5}}), "prompt: invalid_value");
  EXPECT_EQ(refusal({{"prompt", "  "}}), "prompt: missing_required_parameter");
  EXPECT_EQ(refusal({{"prompt", std::string("a\0b", 3)}}), "prompt: invalid_value");
  EXPECT_EQ(refusal({{"lora", "a"}}), "lora: invalid_value");
  EXPECT_EQ(refusal({{"lora", {{{"name", "a"}, {"path", "/etc/passwd"}}}}}), "lora: invalid_value");
  for (const char* expert : {"", "a;/etc/passwd", "a:2", "A"})  // would say more than an expert
    EXPECT_EQ(refusal({{"lora", {{{"name", "a"}, {"expert", expert}}}}}), "lora: invalid_value") << expert;
  EXPECT_EQ(refusal({{"partial_images", 1}}), "partial_images: invalid_value");
  EXPECT_EQ(refusal({{"stream", true}, {"async", true}}), "async: invalid_value");
  EXPECT_EQ(refusal({{"size", "64x64"}, {"width", 32}}), "size: invalid_value");
  EXPECT_EQ(refusal({{"output_compression", 5}}), "output_compression: invalid_value");
}

TEST(ApiFields_OneFieldByTwoNames, IsRefused) {
  EXPECT_EQ(refusal({{"steps", 1}, {"num_inference_steps", 2}}), "steps: invalid_value");
  EXPECT_EQ(refusal({{"guidance", 1}, {"guidance_scale", 1}}), "guidance: invalid_value");
  EXPECT_EQ(refusal({{"steps", nullptr}, {"num_inference_steps", 2}}), "taken");
  EXPECT_EQ(refusal({{"size", nullptr}, {"width", 64}}), "taken");
}

TEST(ApiFields_Sigmas, AreAListOrAText) {
  EXPECT_EQ(read({{"sigmas", {1.0, 0.5}}}).row.request.sigmas, "1.0,0.5");
  EXPECT_EQ(read({{"sigmas", "1,0.5"}}).row.request.sigmas, "1,0.5");
  EXPECT_EQ(refusal({{"prompt", {"a", "b"}}}), "prompt: invalid_value");
}

TEST(ApiFields_Caps, AreNamedWithTheirValues) {
  const ApiFields fields(Endpoint::kGenerations,
                         {.pixels = 4096, .steps = 10, .n = 2, .prompt_bytes = 30, .adapters = 1});
  const auto message = [&](Json body) {
    if (!body.contains("prompt")) body["prompt"] = "a fox";
    try {
      fields.read(body);
      return std::string("taken");
    } catch (const ApiError& e) {
      return std::string(e.what());
    }
  };
  EXPECT_EQ(message({{"size", "64x64"}, {"steps", 10}, {"n", 2}}), "taken");
  EXPECT_NE(message({{"size", "64x80"}}).find("max_pixels 4096"), std::string::npos);
  EXPECT_NE(message({{"steps", 11}}).find("max_steps 10"), std::string::npos);
  EXPECT_NE(message({{"sigmas", "9,8,7,6,5,4,3,2,1,0.5,0.2"}}).find("max_steps 10"), std::string::npos);
  EXPECT_NE(message({{"n", 3}}).find("1 to 2"), std::string::npos);
  EXPECT_NE(message({{"prompt", std::string(31, 'x')}}).find("max_prompt_bytes 30"), std::string::npos);
  EXPECT_NE(message({{"negative_prompt", std::string(31, 'x')}}).find("max_prompt_bytes 30"),
            std::string::npos);
  EXPECT_NE(message({{"lora", {"a", "b"}}}).find("max_adapters 1"), std::string::npos);
}

// What is said of a field is what happens to it: one list does both.
TEST(ApiFields_TheListOfThem, SaysTheTruth) {
  const auto list = generations().capabilities();
  const auto schema = generations().schema();
  std::set<std::string> names;
  for (const auto& field : list) {
    const std::string name = field.at("name"), use = field.at("use");
    EXPECT_TRUE(names.insert(name).second) << name << " is there twice";
    const bool is_refused = use == "refused";
    EXPECT_EQ(schema.at("properties").contains(name), !is_refused) << name;
    EXPECT_EQ(refusal({{name, nullptr}}) == "taken" || name == "prompt", !is_refused) << name;
    // nothing takes an object but adapters
    EXPECT_NE(refusal({{name, {{"no", "such"}}}}), "taken") << name;
  }
  for (const char* name : {"prompt", "seed", "num_inference_steps", "guidance_scale", "negative_prompt",
                           "size", "sampler", "lora", "tier", "attention_dtype", "layout"})
    EXPECT_TRUE(names.contains(name)) << name;
}

// A new field of a request is one of the API, without a word here.
TEST(ApiFields_WhatDecidesTheLookOfAPicture, CanBeAskedFor) {
  // those that name files come as uploads, and a form of pictures has no use for a video's
  const std::set<std::string, std::less<>> left_out{"num_frames", "fps", "guidance_scale_2",
                                                    "conditioning_scale", "strength"};
  std::set<std::string, std::less<>> names;
  for (const auto& field : generations().capabilities()) names.insert(field.at("name").get<std::string>());
  request::Request request;
  int count = 0;
  request.fields([&](const Field& field, const FieldRef&) {
    if (field.effect == Effect::kPlace || field.help.empty() || left_out.contains(field.name)) return;
    EXPECT_TRUE(names.contains(field.name)) << field.name;
    ++count;
  });
  EXPECT_GT(count, 20);
  EXPECT_TRUE(names.contains("cache_type"));
  EXPECT_EQ(read({{"cache_type", "teacache"}, {"cache_threshold", 0.2}}).row.request.cache_threshold, 0.2);
}

TEST(ApiFields_AnMp4, IsOfferedWhereItCanBeWritten) {
  const auto asked = [](bool has_mp4) {
    const ApiFields fields(Endpoint::kVideos, {.has_mp4 = has_mp4});
    try {
      return fields.read({{"prompt", "a fox"}, {"output_format", "mp4"}}).format;
    } catch (const ApiError& e) {
      return e.param + ": " + e.what();
    }
  };
  EXPECT_EQ(asked(true), "mp4");
  EXPECT_NE(asked(false).find("mp4 is not offered"), std::string::npos) << asked(false);
}

}  // namespace
}  // namespace atelier::server
