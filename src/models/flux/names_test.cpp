#include "models/flux/names.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/files.h"
#include "base/testing.h"
#include "weights/save.h"
#include "weights/store.h"
#include "weights/tensors.h"

namespace atelier::models {
namespace {

using ::testing::HasSubstr;
using weights::save_checkpoint;
using weights::SaveOptions;
using weights::WeightStore;

at::Tensor read(const WeightStore& store, std::string_view name, const std::vector<int64_t>& full,
                std::vector<Range> rows = {}, std::vector<Range> cols = {}) {
  auto shape = full;
  if (!rows.empty()) shape[0] = rows[0].size;
  if (!cols.empty()) shape[1] = cols[0].size;
  at::Tensor out = at::empty(shape, at::TensorOptions(at::kFloat));
  store.read_into(out, name, full, rows, cols);
  return out;
}

struct FluxWidths {
  int64_t width = 8, in = 4, text = 6, pooled = 5, sinusoid = 5, head = 4;
};

// Reads what a FLUX of two blocks reads.
void read_flux(const WeightStore& store, const FluxWidths& f = {}) {
  const int64_t w = f.width;
  const auto linear = [&](const std::string& name, int64_t in, int64_t out) {
    read(store, name + ".weight", {out, in});
    read(store, name + ".bias", {out});
  };
  linear("x_embedder", f.in, w);
  linear("context_embedder", f.text, w);
  for (const std::string part : {"timestep_embedder", "text_embedder", "guidance_embedder"}) {
    linear(str("time_text_embed.", part, ".linear_1"), part == "text_embedder" ? f.pooled : f.sinusoid, w);
    linear(str("time_text_embed.", part, ".linear_2"), w, w);
  }
  for (const std::string side : {"double.0.image.", "double.0.text."}) {
    linear(side + "mod", w, 6 * w);
    linear(side + "qkv", w, 3 * w);
    linear(side + "out", w, w);
    linear(side + "up", w, 4 * w);
    linear(side + "down", 4 * w, w);
    read(store, side + "norm_q.weight", {f.head});
    read(store, side + "norm_k.weight", {f.head});
  }
  linear("single.0.mod", w, 3 * w);
  linear("single.0.qkv", w, 3 * w);
  linear("single.0.up", w, 4 * w);
  linear("single.0.out", 5 * w, w);
  read(store, "single.0.norm_q.weight", {f.head});
  read(store, "single.0.norm_k.weight", {f.head});
  linear("norm_out.linear", w, 2 * w);
  linear("proj_out", w, f.in);
}

void expect_same(const WeightStore& a, const WeightStore& b) {
  ASSERT_FALSE(a.manifest().empty());
  for (const auto& [name, shape] : a.manifest()) {
    EXPECT_TRUE(at::equal(read(a, name, shape), read(b, name, shape))) << name;
  }
  b.check();
}

SaveOptions options_for(const TemporaryFolder& folder) {
  SaveOptions options{folder.path()};
  options.dtype = at::kFloat;
  options.max_shard_bytes = 6000;
  return options;
}

// The names and shapes of a folder that diffusers 0.39 saved.
TEST(FluxNames, CoverAFolderThatDiffusersSaved) {
  const TemporaryFolder folder;
  weights::Tensors tensors;
  std::ifstream lines("src/models/flux/testdata/flux_diffusers.txt");
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string name;
    words >> name;
    std::vector<int64_t> shape;
    for (int64_t n = 0; words >> n;) shape.push_back(n);
    tensors[name] = at::zeros(shape);
  }
  ASSERT_EQ(tensors.size(), 66u);
  weights::write_tensors(folder / "model.safetensors", tensors);
  const auto store = WeightStore::open(folder.path());
  store->adopt(names_flux_diffusers());
  read_flux(*store, {64, 64, 56, 24, 256, 16});
  store->check({});
}

TEST(Save, WritesDiffusersShardsThatLoadAgain) {
  const TemporaryFolder folder;
  const auto store = WeightStore::dummy(9);
  read_flux(*store);
  const auto names = names_flux_diffusers();
  const int64_t bytes = save_checkpoint(*store, names, options_for(folder));
  EXPECT_TRUE(std::filesystem::exists(folder / "diffusion_pytorch_model.safetensors.index.json"));
  const auto again = WeightStore::open(folder.path());
  EXPECT_TRUE(again->has("transformer_blocks.0.attn.add_k_proj.bias"));
  EXPECT_EQ(again->shape("transformer_blocks.0.attn.add_k_proj.weight"), (std::vector<int64_t>{8, 8}));
  again->adopt(names);
  expect_same(*store, *again);
  EXPECT_TRUE(again->unread().empty());
  EXPECT_GT(bytes, 10000);
}

// The original naming has fused tensors, another norm suffix and the last modulation's halves in the other
// order.
TEST(Save, OriginalFluxNamingGoesThereAndBack) {
  const TemporaryFolder folder;
  const auto store = WeightStore::dummy(9);
  read_flux(*store);
  auto options = options_for(folder);
  options.max_shard_bytes = 1 << 30;
  options.stem = "flux";
  save_checkpoint(*store, names_flux_original(8), options);
  const auto file = WeightStore::open(folder / "flux.safetensors");
  EXPECT_EQ(file->shape("single_blocks.0.linear1.weight"), (std::vector<int64_t>{56, 8}));
  EXPECT_TRUE(file->has("double_blocks.0.txt_attn.norm.key_norm.scale"));
  const auto sizes = find_flux(*file);
  ASSERT_TRUE(sizes);
  EXPECT_EQ(sizes->width, 8);
  EXPECT_EQ(sizes->head_dim, 4);
  EXPECT_EQ(sizes->text_width, 6);
  EXPECT_EQ(sizes->in_channels, 4);
  EXPECT_EQ(std::pair(sizes->doubles, sizes->singles), std::pair(1, 1));
  EXPECT_TRUE(sizes->guidance);
  file->adopt(names_flux_original(sizes->width));
  expect_same(*store, *file);
  EXPECT_TRUE(file->unread().empty());
  const auto raw = read(*file, "final_layer.adaLN_modulation.1.weight", {16, 8});
  const auto ours = read(*file, "norm_out.linear.weight", {16, 8});
  EXPECT_TRUE(at::equal(raw.narrow(0, 0, 8), ours.narrow(0, 8, 8)));
}

// What a file of FLUX's names with these shapes is called in the error.
std::string refusal(const std::string& file_name, int64_t in, int64_t out, const std::string& extra = "") {
  const TemporaryFolder folder;
  weights::Tensors t{{"double_blocks.0.img_attn.qkv.weight", at::zeros({24, 8})},
                     {"double_blocks.0.img_attn.norm.query_norm.scale", at::zeros({4})},
                     {"img_in.weight", at::zeros({8, in})},
                     {"txt_in.weight", at::zeros({8, 6})},
                     {"vector_in.in_layer.weight", at::zeros({8, 5})},
                     {"final_layer.linear.weight", at::zeros({out, 8})}};
  if (!extra.empty()) t[extra] = at::zeros({1});
  weights::write_tensors(folder / file_name, t);
  return message_of(Kind::kCheckpoint,
                    [&] { config_of_flux_file(*WeightStore::open(folder / file_name), Json::object()); });
}

TEST(FluxFile, VariantsThatTakePicturesAreNamed) {
  EXPECT_THAT(refusal("a.safetensors", 384, 64), HasSubstr("FLUX.1 Fill"));
  EXPECT_THAT(refusal("a.safetensors", 128, 64), HasSubstr("FLUX.1 Depth or Canny"));
  EXPECT_THAT(refusal("flux1-Kontext-dev.safetensors", 64, 64), HasSubstr("FLUX.1 Kontext"));
  EXPECT_THAT(refusal("a.safetensors", 64, 64, "redux_up.weight"), HasSubstr("FLUX.1 Redux"));
  EXPECT_THAT(refusal("a.safetensors", 64, 64, "distilled_guidance_layer.in_proj.weight"),
              HasSubstr("Chroma"));
}

TEST(FluxFile, BothNamingsTellTheSizes) {
  const TemporaryFolder folder;
  const auto store = WeightStore::dummy(9);
  read_flux(*store);
  auto options = options_for(folder);
  options.max_shard_bytes = 1 << 30;
  save_checkpoint(*store, names_flux_diffusers(), options);
  const Json config = config_of_flux_file(*WeightStore::open(folder.path()),
                                          {{"axes_dims_rope", {0, 2, 2}}, {"num_layers", 19}});
  EXPECT_EQ(config["num_layers"], 1);
  EXPECT_EQ(config["num_single_layers"], 1);
  EXPECT_EQ(config["num_attention_heads"], 2);
  EXPECT_EQ(config["in_channels"], 4);
  EXPECT_EQ(config["joint_attention_dim"], 6);
  EXPECT_EQ(config["pooled_projection_dim"], 5);
  EXPECT_EQ(config["guidance_embeds"], true);
  EXPECT_EQ(config["axes_dims_rope"], (Json{0, 2, 2}));
}

TEST(Save, TheFirstRuleThatFitsGivesTheNames) {
  const TemporaryFolder folder;
  const auto store = WeightStore::dummy(9);
  read_flux(*store);
  auto names = names_flux_diffusers();
  for (const auto& rule : names_flux_original(8)) names.push_back(rule);
  save_checkpoint(*store, names, options_for(folder));
  const auto again = WeightStore::open(folder.path());
  for (const char* name : {"x_embedder.weight", "norm_out.linear.bias", "proj_out.weight"})
    EXPECT_TRUE(again->has(name));
  again->adopt(names);
  expect_same(*store, *again);
}

TEST(FluxFile, OtherTensorsAreNoFlux) {
  EXPECT_FALSE(find_flux(*WeightStore::dummy(1, {"*blocks*"})));
}

}  // namespace
}  // namespace atelier::models
