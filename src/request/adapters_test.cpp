// Paths and strengths of adapters.
#include "request/adapters.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/testing.h"

namespace atelier::request {
namespace {

TEST(AdapterRefs, TheLastColonIsFollowedByAStrengthIfItIsANumber) {
  const auto is = [](std::string_view text, const std::string& path, double strength, bool own) {
    const auto ref = adapter_ref(text);
    EXPECT_EQ(ref.path, path) << text;
    EXPECT_EQ(ref.strength, strength) << text;
    EXPECT_EQ(ref.has_own_strength, own) << text;
  };
  is("a/b.safetensors", "a/b.safetensors", 1, false);
  is("a.safetensors:0.6", "a.safetensors", 0.6, true);
  is(" a : -1 ", "a", -1, true);
  is("a:b.safetensors", "a:b.safetensors", 1, false);
  is("a:b:2e-1", "a:b", 0.2, true);
}

TEST(AdapterRefs, OneTextMayNameSeveral) {
  const std::vector<std::string> texts{"a:0.5;b", "c:2"};
  const auto refs = adapter_refs(texts);
  ASSERT_EQ(refs.size(), 3u);
  EXPECT_EQ(refs[1].path, "b");
  EXPECT_EQ(to_string(refs[0]), "a:0.5");
  EXPECT_EQ(adapter_ref(to_string({"x", 1.0 / 3, true})).strength, 1.0 / 3);
}

TEST(AdapterRefs, TheLastAtIsFollowedByAnExpert) {
  const auto is = [](std::string_view text, const std::string& path, double strength,
                     const std::string& expert) {
    const auto ref = adapter_ref(text);
    EXPECT_EQ(ref.path, path) << text;
    EXPECT_EQ(ref.strength, strength) << text;
    EXPECT_EQ(ref.expert, expert) << text;
    EXPECT_EQ(adapter_ref(to_string(ref)).expert, expert) << text;
  };
  is("low.safetensors@transformer_2", "low.safetensors", 1, "transformer_2");
  is("low.safetensors:0.5@transformer_2", "low.safetensors", 0.5, "transformer_2");
  is(" low : 0.5 @ unet ", "low", 0.5, "unet");
  is("/home/@me/a.safetensors:2", "/home/@me/a.safetensors", 2, "");
  is("a@v1.safetensors", "a@v1.safetensors", 1, "");
  is("a@", "a@", 1, "");
  const TemporaryFolder folder;
  const auto file = (folder.path() / "style@low").string();
  std::ofstream(file) << "x";
  is(file, file, 1, "");
  is(file + "@low", file, 1, "low");
  EXPECT_EQ(to_string(adapter_ref("a:0.5")), "a:0.5");
}

TEST(AdapterRefs, AStrengthThatIsNoneIsNamedAsOne) {
  const TemporaryFolder folder;
  const auto file = (folder.path() / "a.safetensors").string();
  std::ofstream(file) << "x";
  for (const char* strength : {"nan", "inf", "abc", "0x10", ""}) {
    const auto message = message_of(Kind::kUsage, [&] { adapter_ref(file + ":" + strength); });
    EXPECT_NE(message.find(str("the strength \"", strength, "\"")), std::string::npos) << message;
  }
  const auto huge = message_of(Kind::kUsage, [&] { adapter_ref(file + ":1e30"); });
  EXPECT_NE(huge.find("from -1000 to 1000"), std::string::npos) << huge;
}

TEST(AdapterRefs, NothingIsNoPath) {
  for (const char* text : {"", " ", ":0.5", " : 1", "@unet", ":1@unet"})
    EXPECT_TRUE(message_of(Kind::kUsage, [&] { adapter_ref(text); }).starts_with("lora: ")) << text;
}

}  // namespace
}  // namespace atelier::request
