#include "hub/sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/files.h"
#include "base/testing.h"
#include "hub/hub_names.h"

namespace atelier::hub {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

constexpr const char* kIndex = R"({"transformer":["diffusers","X"],"vae":["diffusers","Y"]})";

class SourcesTest : public ::testing::Test {
 protected:
  fs::path snapshot(const std::string& commit) const {
    return folder_.path() / "hub" / "models--black-forest-labs--FLUX.1-dev" / "snapshots" / commit;
  }
  void make_snapshot(const std::string& commit) const {
    write_file_atomically(snapshot(commit) / "model_index.json", kIndex);
    write_file_atomically(snapshot(commit) / "transformer" / "config.json", "{}");
    write_file_atomically(snapshot(commit) / "vae" / "config.json", "{}");
    for (const char* part : {"transformer", "vae"}) {
      write_file_atomically(snapshot(commit) / part / "diffusion_pytorch_model.safetensors", "");
    }
  }
  void make_ref(const std::string& name, const std::string& commit) const {
    write_file_atomically(snapshot(commit).parent_path().parent_path() / "refs" / name, commit + "\n");
  }
  SourceOptions options(const std::string& revision = "") const {
    return {folder_.path(), folder_ / "hub", revision};
  }
  std::string error(std::string_view name, const std::string& revision = "") const {
    return message_of(Kind::kUsage, [&] { resolve(name, options(revision)); });
  }
  TemporaryFolder folder_;
};

TEST_F(SourcesTest, FindsTheRevisionThatRefsName) {
  make_snapshot("aaaa");
  make_snapshot("bbbb");
  make_ref("main", "bbbb");
  make_ref("v1", "aaaa");
  for (const char* name :
       {"black-forest-labs/FLUX.1-dev", "FLUX.1-dev", "flux-dev", "FLUX_DEV", "flux.1-DEV"}) {
    const auto source = resolve(name, options());
    EXPECT_EQ(source.folder, snapshot("bbbb")) << name;
    EXPECT_EQ(source.id, "black-forest-labs/FLUX.1-dev");
    EXPECT_EQ(source.revision, "bbbb");
  }
  EXPECT_EQ(resolve("flux-dev", options("v1")).folder, snapshot("aaaa"));
  EXPECT_EQ(resolve("flux-dev", options("aaaa")).folder, snapshot("aaaa"));
  EXPECT_THAT(error("flux-dev", "v2"), HasSubstr("--revision v2"));
  EXPECT_THAT(error("flux-dev", "../../x"), HasSubstr("no branch"));
}

TEST_F(SourcesTest, EveryFamilyHasShortNames) {
  const std::pair<const char*, const char*> names[] = {
      {"SD3", "stabilityai/stable-diffusion-3-medium-diffusers"},
      {"sd3.5_medium", "stabilityai/stable-diffusion-3.5-medium"},
      {"sdxl", "stabilityai/stable-diffusion-xl-base-1.0"},
      {"stable-diffusion-xl-base-1.0", "stabilityai/stable-diffusion-xl-base-1.0"},
      {"pixart-alpha", "PixArt-alpha/PixArt-XL-2-1024-MS"},
      {"PixArt-Sigma", "PixArt-alpha/PixArt-Sigma-XL-2-1024-MS"},
      {"HunyuanDiT", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers"},
      {"hunyuandit_v1.2_distilled", "Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers-Distilled"},
      {"Wan2.1-T2V-1.3B", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"},
      {"wan2.1_flf2v_14b_720p", "Wan-AI/Wan2.1-FLF2V-14B-720P-diffusers"},
      {"Wan2.1-VACE-14B-diffusers", "Wan-AI/Wan2.1-VACE-14B-diffusers"},
      {"wan2.2-ti2v-5b", "Wan-AI/Wan2.2-TI2V-5B-Diffusers"}};
  for (const auto& [name, id] : names) EXPECT_THAT(error(name), HasSubstr(str("hf download ", id))) << name;
}

TEST_F(SourcesTest, ASingleSnapshotNeedsNoRef) {
  make_snapshot("aaaa");
  EXPECT_EQ(resolve("flux-dev", options()).folder, snapshot("aaaa"));
  make_snapshot("bbbb");
  EXPECT_THAT(error("flux-dev"), HasSubstr("not on this machine"));
}

TEST_F(SourcesTest, AbsentModelsNameTheCommandThatGetsThem) {
  const auto message = error("FLUX.1-schnell");
  EXPECT_THAT(message, HasSubstr("hf download black-forest-labs/FLUX.1-schnell"));
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

TEST_F(SourcesTest, IncompleteSnapshotsAreNamed) {
  make_snapshot("aaaa");
  fs::remove_all(snapshot("aaaa") / "vae");
  const auto weights = snapshot("aaaa") / "transformer" / "diffusion_pytorch_model.safetensors";
  fs::remove(weights);
  fs::create_symlink("nowhere", weights);
  EXPECT_THAT(error("flux-dev"), HasSubstr("incomplete: transformer, vae missing"));
  fs::remove(snapshot("aaaa") / "model_index.json");
  EXPECT_THAT(error("flux-dev"), HasSubstr("no model_index.json"));
}

TEST_F(SourcesTest, SnapshotsWithSomeOfTheShardsAreIncomplete) {
  make_snapshot("aaaa");
  const auto vae = snapshot("aaaa") / "vae";
  write_file_atomically(
      vae / "diffusion_pytorch_model.safetensors.index.json",
      R"({"weight_map":{"a":"diffusion_pytorch_model.safetensors","b":"second.safetensors"}})");
  EXPECT_THAT(error("flux-dev"), HasSubstr("incomplete: vae missing"));
  write_file_atomically(vae / "second.safetensors", "");
  EXPECT_EQ(resolve("flux-dev", options()).folder, snapshot("aaaa"));
}

TEST_F(SourcesTest, FoldersWithoutAnIndexAreNotCalledAbsent) {
  const auto before = fs::current_path();
  fs::create_directories(folder_ / "my" / "model");
  fs::current_path(folder_.path());
  EXPECT_THAT(error("my/model"), HasSubstr("holds no model_index.json"));
  fs::current_path(before);
}

TEST_F(SourcesTest, LocalFoldersAndFilesWin) {
  write_file_atomically(folder_ / "x.safetensors", "");
  EXPECT_EQ(resolve((folder_ / "x.safetensors").string(), options()).how, Provenance::kLocalFile);
  EXPECT_EQ(resolve(folder_.path().string(), options()).how, Provenance::kLocalFolder);
  EXPECT_THAT(error((folder_ / "absent").string()), HasSubstr("no such file or folder"));
}

// Runs in a folder of its own, since bare names are looked up in the current one.
TEST_F(SourcesTest, BareNamesPreferModelFoldersBesideThem) {
  const auto before = fs::current_path();
  make_snapshot("aaaa");
  fs::create_directories(folder_ / "FLUX.1-dev");
  fs::current_path(folder_.path());
  EXPECT_EQ(resolve("FLUX.1-dev", options()).folder, snapshot("aaaa"));
  write_file_atomically(folder_ / "FLUX.1-dev" / "model_index.json", "{}");
  EXPECT_EQ(resolve("FLUX.1-dev", options()).how, Provenance::kLocalFolder);
  fs::current_path(before);
}

TEST_F(SourcesTest, MiniIsBuiltIn) {
  EXPECT_THAT(error("mini"), HasSubstr("not at"));
  write_file_atomically(folder_ / "mini" / "model_index.json", "{}");
  EXPECT_EQ(resolve("mini", options()).folder, folder_ / "mini");
  EXPECT_THAT(error("mini-video"), HasSubstr("mini-video is not at"));
  EXPECT_THAT(error("mini-vidio"), HasSubstr("nearest: mini-video"));
}

TEST_F(SourcesTest, UnknownNamesGetTheNearest) {
  EXPECT_THAT(error("flux-deff"), HasSubstr("nearest: flux-dev"));
  EXPECT_THAT(error(""), HasSubstr("model_name"));
  EXPECT_THAT(error("a/b/c"), HasSubstr("no such file"));
}

TEST(Sources, CacheFollowsTheEnvironment) {
  EXPECT_EQ(hub_cache({"/a", "/b", "/c", "/d"}), "/a");
  EXPECT_EQ(hub_cache({"", "/b", "/c", "/d"}), "/b/hub");
  EXPECT_EQ(hub_cache({"", "", "/c", "/d"}), "/c/huggingface/hub");
  EXPECT_EQ(hub_cache({"", "", "", "/d"}), "/d/.cache/huggingface/hub");
}

TEST(Sources, EveryAliasLeadsToItsId) {
  for (const auto& a : aliases()) EXPECT_EQ(hub_id(a.name), a.id);
  EXPECT_EQ(hub_id("someone/Some-Model.2"), "someone/Some-Model.2");
  EXPECT_EQ(hub_id("nonsense"), "");
  EXPECT_EQ(hub_id("../x"), "");
}

}  // namespace
}  // namespace atelier::hub
