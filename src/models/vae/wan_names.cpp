#include "models/vae/wan_names.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "models/spellings.h"

namespace atelier::models {
namespace {

class Rules {
 public:
  void add(const std::string& ours, const std::string& original) { all.push_back({ours, {{original}}}); }
  // A resnet's modules are counted with the activations between them.
  void resnet(const std::string& ours, const std::string& original) {
    constexpr std::pair<const char*, const char*> kParts[] = {{".norm1", ".residual.0"},
                                                              {".conv1", ".residual.2"},
                                                              {".norm2", ".residual.3"},
                                                              {".conv2", ".residual.6"},
                                                              {".conv_shortcut", ".shortcut"}};
    for (const auto& [mine, theirs] : kParts) add(ours + mine, original + theirs);
  }
  // Their parts have the same names on both sides.
  void attention(const std::string& ours, const std::string& original) {
    for (const char* part : {".norm", ".to_qkv", ".proj"}) add(ours + part, original + part);
  }
  void resample(const std::string& ours, const std::string& original) {
    for (const char* part : {".resample.1", ".time_conv"}) add(ours + part, original + part);
  }

  std::vector<weights::NameRule> all;
};

// 2.1 counts all modules of a side, 2.2 those of each level.
void add_encoder(const WanVaeModules& c, Rules& rules) {
  if (!c.is_residual) {
    const std::string ours = "encoder.down_blocks.{}", original = "encoder.downsamples.{}";
    rules.resnet(ours, original);
    rules.attention(ours, original);
    return rules.resample(ours, original);
  }
  for (int64_t i = 0; i < c.levels; ++i) {
    const std::string ours = str("encoder.down_blocks.", i),
                      original = str("encoder.downsamples.", i, ".downsamples.");
    for (int64_t k = 0; k < c.layers; ++k) rules.resnet(str(ours, ".resnets.", k), str(original, k));
    if (i + 1 < c.levels) rules.resample(ours + ".downsampler", str(original, c.layers));
  }
}

void add_decoder(const WanVaeModules& c, Rules& rules) {
  const int64_t resnets = c.layers + 1;
  for (int64_t i = 0; i < c.levels; ++i) {
    const std::string ours = str("decoder.up_blocks.", i);
    const auto original = [&](int64_t k) {
      return c.is_residual ? str("decoder.upsamples.", i, ".upsamples.", k)
                           : str("decoder.upsamples.", i * (resnets + 1) + k);
    };
    for (int64_t k = 0; k < resnets; ++k) rules.resnet(str(ours, ".resnets.", k), original(k));
    if (i + 1 < c.levels)
      rules.resample(ours + (c.is_residual ? ".upsampler" : ".upsamplers.0"), original(resnets));
  }
}

}  // namespace

std::vector<weights::NameRule> wan_vae_names(const WanVaeModules& c) {
  Rules rules;
  rules.add("quant_conv", "conv1");
  rules.add("post_quant_conv", "conv2");
  for (const std::string side : {"encoder", "decoder"}) {
    rules.add(side + ".conv_in", side + ".conv1");
    rules.add(side + ".norm_out", side + ".head.0");
    rules.add(side + ".conv_out", side + ".head.2");
    rules.resnet(side + ".mid_block.resnets.0", side + ".middle.0");
    rules.attention(side + ".mid_block.attentions.0", side + ".middle.1");
    rules.resnet(side + ".mid_block.resnets.1", side + ".middle.2");
  }
  add_encoder(c, rules);
  add_decoder(c, rules);
  return rules.all;
}

namespace {

// How many in a row, from 0 on, are there.
template <class Has>
int64_t count(const Has& has) {
  int64_t n = 0;
  while (has(n)) ++n;
  return n;
}

WanVaeModules modules_of(std::span<const std::string> names) {
  const auto has = [&](const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const bool is_native = has("decoder.middle.0.residual.0.gamma");
  const auto resnet = [&](const std::string& at) {
    return has(at + (is_native ? ".residual.2.weight" : ".conv1.weight"));
  };
  WanVaeModules m;
  if (!is_native) {
    m.is_residual = has("encoder.down_blocks.0.resnets.0.conv1.weight");
    m.levels = count([&](int64_t i) { return resnet(str("decoder.up_blocks.", i, ".resnets.0")); });
    m.layers = count([&](int64_t k) { return resnet(str("decoder.up_blocks.0.resnets.", k)); }) - 1;
    return m;
  }
  m.is_residual = resnet("decoder.upsamples.0.upsamples.0");
  if (m.is_residual) {
    m.levels = count([&](int64_t i) { return resnet(str("decoder.upsamples.", i, ".upsamples.0")); });
    m.layers = count([&](int64_t k) { return resnet(str("decoder.upsamples.0.upsamples.", k)); }) - 1;
    return m;
  }
  m.layers = count([&](int64_t k) { return resnet(str("decoder.upsamples.", k)); }) - 1;
  m.levels = count([&](int64_t i) { return resnet(str("decoder.upsamples.", i * (m.layers + 2))); });
  return m;
}

}  // namespace

std::optional<SpelledModel> wan_vae_spellings(std::span<const std::string> names) {
  Spelling native{"native", "decoder.middle.0.residual.0.gamma", {}};
  Spelling diffusers{"diffusers", "decoder.mid_block.resnets.0.norm1.gamma", {}};
  for (const auto& rule : wan_vae_names(modules_of(names))) {
    native.pairs.push_back({rule.canonical, rule.parts.front().name});
    diffusers.pairs.push_back({rule.canonical, rule.canonical});
  }
  return SpelledModel{"a Wan autoencoder", {diffusers, native}};
}

}  // namespace atelier::models
