// Paths and tokens as the shell and huggingface_hub find them.
#include "app/settings/home.h"

#include <gtest/gtest.h>

#include "base/scratch.h"

namespace atelier::app {
namespace {

TEST(Home, ATildeAtTheBeginningIsTheHome) {
  const Environment at{{"HOME", "/h"}};
  EXPECT_EQ(expand_home("~", at), "/h");
  EXPECT_EQ(expand_home("~/hub", at), "/h/hub");
  EXPECT_EQ(expand_home("a/~/b", at), "a/~/b");
  EXPECT_EQ(expand_home("", at), "");
  EXPECT_EQ(expand_home("~root/x", at), "/root/x");
  EXPECT_EQ(expand_home("~nobody_has_this_name/x", at), "~nobody_has_this_name/x");
  EXPECT_FALSE(home_folder({}).empty());  // HOME unset: as the system knows it
  EXPECT_EQ(expand_home("~/x", {}), home_folder({}) + "/x");
}

TEST(Home, TheTokenOfALoginIsUsed) {
  const Scratch dir;
  std::filesystem::create_directories(dir / ".cache/huggingface");
  dir.write(".cache/huggingface/token", "login\n");
  dir.write("token", " other ");
  const std::string home = dir.path().string();
  EXPECT_EQ(hub_token({{"HOME", home}}), "login");
  EXPECT_EQ(hub_token({{"HOME", home}, {"HF_HOME", "~"}}), "other");
  EXPECT_EQ(hub_token({{"HOME", home}, {"HF_TOKEN_PATH", home + "/token"}}), "other");
  EXPECT_EQ(hub_token({{"HOME", home}, {"HF_TOKEN", "own"}}), "own");
  EXPECT_EQ(hub_token({{"HOME", home}, {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "1"}}), "");
  EXPECT_EQ(hub_token({{"HOME", home + "/absent"}}), "");
  const auto endless = message_of(Kind::kUsage, [] { hub_token({{"HF_TOKEN_PATH", "/dev/zero"}}); });
  EXPECT_NE(endless.find("/dev/zero, is no plain file"), std::string::npos) << endless;
}

TEST(Home, OfflineIsSaidByEitherVariable) {
  EXPECT_EQ(offline_variable({{"HF_HUB_OFFLINE", "1"}}), "HF_HUB_OFFLINE");
  EXPECT_EQ(offline_variable({{"TRANSFORMERS_OFFLINE", "TRUE"}}), "TRANSFORMERS_OFFLINE");
  EXPECT_EQ(offline_variable({{"HF_HUB_OFFLINE", "0"}}), "");
  EXPECT_EQ(offline_variable({}), "");
}

TEST(Home, FilesOfSettingsNameItAsPythonReadsThem) {
  const Environment known{{"HOME", "/h"}, {"DISK", "/d"}};
  const auto read = [&](const std::string& value) {
    Environment all = known;
    all["HF_HOME"] = value;
    return path_variable(all, "HF_HOME").string();
  };
  EXPECT_EQ(read("$HOME/hf"), "/h/hf");
  EXPECT_EQ(read("${DISK}/$HOME"), "/d//h");
  EXPECT_EQ(read("~/a$DISK"), "/h/a/d");
  for (const char* as_it_stands : {"/a/$NONE/b", "/a/${DISK", "/a/$", "$", "/a$$b", "", "/${}"})
    EXPECT_EQ(read(as_it_stands), as_it_stands);
  EXPECT_EQ(hub_folder({{"HOME", "/h"}, {"HF_HOME", "$HOME/x"}}), "/h/x/hub");
  EXPECT_EQ(hub_folder({{"HOME", "/h"}, {"HUGGINGFACE_HUB_CACHE", "~/old"}}), "/h/old");
  EXPECT_EQ(hub_folder({{"HOME", "/h"}, {"XDG_CACHE_HOME", "$HOME/c"}}), "/h/c/huggingface/hub");
}

}  // namespace
}  // namespace atelier::app
