// Caches: what is found, what goes, and what never does.
#include "app/doctor/caches.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "base/scratch.h"

namespace atelier::app {
namespace {

namespace fs = std::filesystem;

void write(const fs::path& file, size_t bytes) {
  fs::create_directories(file.parent_path());
  std::ofstream(file) << std::string(bytes, 'a');
}

const CacheFolder* with_flag(const std::vector<CacheFolder>& all, const std::string& flag) {
  for (const auto& c : all) {
    if (c.flag == flag) return &c;
  }
  return nullptr;
}

TEST(Caches, OnlyWhatIsNamedGoesAndNeverAToken) {
  const Scratch home;
  const fs::path cache = home / ".cache";
  write(cache / "atelier/shapes.json", 10);
  write(cache / "huggingface/hub/models--a--b/blobs/x", 1000);
  write(cache / "huggingface/token", 7);
  write(cache / "huggingface/stored_tokens", 9);
  write(cache / "torch/kernels/k", 20);
  write(home / "outside/picture.png", 5);
  fs::create_symlink(home / "outside", cache / "huggingface/hub/link");
  const Environment variables{{"HOME", home.path().string()}};
  const auto by_default = find_caches(variables, {});
  EXPECT_TRUE(with_flag(by_default, "")->is_wanted);
  EXPECT_FALSE(with_flag(by_default, "--hf")->is_wanted);
  EXPECT_EQ(with_flag(by_default, "--hf")->bytes, 1000);
  EXPECT_EQ(with_flag(by_default, "--hf")->kept.size(), 2u);
  EXPECT_FALSE(with_flag(by_default, "--xdit"));  // not there

  const auto asked = find_caches(variables, {.hub = true});
  EXPECT_EQ(remove_cache(*with_flag(asked, "--hf")), 1000);
  EXPECT_TRUE(fs::exists(cache / "huggingface/token"));
  EXPECT_TRUE(fs::exists(cache / "huggingface/stored_tokens"));
  EXPECT_FALSE(fs::exists(cache / "huggingface/hub"));
  EXPECT_TRUE(fs::exists(home / "outside/picture.png"));
  EXPECT_TRUE(fs::exists(cache / "torch/kernels/k"));
  EXPECT_EQ(remove_cache(*with_flag(asked, "")), 10);
  EXPECT_FALSE(fs::exists(cache / "atelier"));
}

TEST(Caches, VariablesMoveThemAndAVenvMustBeOne) {
  const Scratch home;
  write(home / "hf/hub/x", 3);
  write(home / "elsewhere/models--a--b/y", 4);
  write(home / "secret", 5);
  write(home / "venv/pyvenv.cfg", 1);
  const Environment variables{{"HOME", home.path().string()},
                              {"HF_HOME", (home / "hf").string()},
                              {"HF_HUB_CACHE", (home / "elsewhere").string()},
                              {"HF_TOKEN_PATH", (home / "secret").string()}};
  const auto all = find_caches(variables, {.hub = true, .venv = (home / "venv").string()});
  ASSERT_EQ(all.size(), 3u);
  EXPECT_EQ(all[0].folder, home / "hf");
  EXPECT_EQ(all[1].folder, home / "elsewhere");
  EXPECT_EQ(all[2].flag, "--venv");
  EXPECT_NE(message_of(Kind::kUsage, [&] { find_caches(variables, {.venv = (home / "hf").string()}); })
                .find("pyvenv.cfg"),
            std::string::npos);
}

// HF_HOME=/workspace is common: what others put there is no cache.
TEST(Caches, OfAFolderThatAVariableNamesOnlyTheirOwnNamesGo) {
  const Scratch home;
  const auto at = [&](const char* name) { return home / "work" / name; };
  for (const char* name : {"hub/models--a--b/blobs/x", "hub/.locks/l", "hub/version.txt", "xet/logs/l",
                           "http-v2/a", "hub/checkpoints/c", "hub/pytorch_vision_main/hubconf.py"})
    write(at(name), 1);
  const std::vector<const char*> others{"picture.png", "hub/notes.txt",     "hub/mine/a", "modules/app.py",
                                        "src/a.cpp",   "datasets/mine.csv", "token"};
  for (const char* name : others) write(at(name), 10);
  const auto work = (home / "work").string();
  for (const auto& variables :
       {Environment{
            {"HOME", home.path().string()}, {"HF_HOME", work}, {"TORCH_HOME", work}, {"PIP_CACHE_DIR", work}},
        Environment{{"HOME", home.path().string()}, {"HF_HUB_CACHE", (home / "work/hub").string()}},
        Environment{{"HOME", home.path().string()}, {"HF_HUB_CACHE", work}}}) {
    for (const auto& cache : find_caches(variables, {.hub = true, .torch = true, .pip = true})) {
      EXPECT_LT(cache.bytes, 10) << cache.folder;
      remove_cache(cache);
    }
    for (const char* name : others) EXPECT_TRUE(fs::exists(at(name))) << name;
  }
  for (const char* name :
       {"hub/models--a--b", "hub/.locks", "xet", "http-v2", "hub/checkpoints", "hub/pytorch_vision_main"})
    EXPECT_FALSE(fs::exists(at(name))) << name;
}

TEST(Caches, AVenvThatSharesItsFolderIsRefused) {
  const Scratch home;
  for (const char* name : {"pyvenv.cfg", "bin/python", "lib/a", "main.py"}) write(home / "project" / name, 1);
  const auto clean = [&] { return find_caches({}, {.venv = (home / "project").string()}); };
  EXPECT_NE(message_of(Kind::kUsage, clean).find("main.py"), std::string::npos);
  fs::remove(home / "project/main.py");
  EXPECT_EQ(remove_cache(clean().back()), 3);
  EXPECT_FALSE(fs::exists(home / "project"));
}

}  // namespace
}  // namespace atelier::app
