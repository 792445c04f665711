// The UNet of SDXL. Podell et al. (arXiv 2307.01952); upstream: diffusers models/unets/unet_2d_condition.py,
// unet_2d_blocks.py.
#include "models/sdxl/unet.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tensor.h>

#include <map>
#include <vector>

#include "base/check.h"
#include "base/error.h"
#include "models/sdxl/layers.h"
#include "nn/embedding.h"

namespace atelier::models {
namespace {

using namespace nn;

constexpr ConvShape kHalve{.stride = 2};

ConvShape same_size(int64_t kernel) {
  const int64_t zeros = kernel / 2;
  return {.kernel = kernel, .above = zeros, .below = zeros, .left = zeros, .right = zeros};
}

// One entry of blocks_of.
struct Block {
  UNetBlock plan;
  UNetResnet resnet;
  std::optional<UNetTransformer> transformer;
  std::optional<UNetResnet> second;  // of the middle
  std::optional<Conv2d> resample;

  Block(const UNetConfig& c, const Builder& all, const UNetBlock& p)
      : plan(p), resnet(c, child(all, "resnets", p.layer), p.in, p.out, scale(c)) {
    const auto& level = c.levels[static_cast<size_t>(p.level)];
    if (p.transformers > 0) transformer.emplace(c, child(all, "attentions", p.layer), level, p.transformers);
    if (p.kind == UNetBlock::kMiddle && p.transformers > 0)
      second.emplace(c, child(all, "resnets", 1), p.out, p.out, scale(c));
    if (!p.resamples) return;
    const bool is_down = p.kind == UNetBlock::kDown;
    resample = child(all, is_down ? "downsamplers" : "upsamplers", 0)
                   .conv2d("conv", p.out, p.out, is_down ? kHalve : kSameSize);
  }

  at::Tensor operator()(const PictureCall& at, const State& s, at::Tensor x) const {
    const auto name = [&](const char* part, int64_t i) { return str(plan.path(), ".", part, ".", i); };
    x = resnet(s, x);
    probe_picture(at, name("resnets", plan.layer), x);
    if (transformer) {
      x = (*transformer)(at, s, x, name("attentions", plan.layer));
      probe_picture(at, name("attentions", plan.layer), x);
    }
    if (second) {
      x = (*second)(s, x);
      probe_picture(at, name("resnets", 1), x);
    }
    return x;
  }

 private:
  Builder child(const Builder& all, std::string_view list, int64_t i) const {
    return all / plan.path() / list / i;
  }
  double scale(const UNetConfig& c) const { return plan.kind == UNetBlock::kMiddle ? c.middle_scale : 1; }
};

class UNet : public nn::Model {
 public:
  UNet(const UNetConfig& c, const Builder& b, std::span<const Range> mine)
      : c_(c), options_(b.options()), plan_(blocks_of(c)) {
    ENSURE(mine.size() == 1 && mine[0] == (Range{0, blocks()}));
    const auto mlp = [&](std::string_view name, int64_t in) {
      return silu_mlp(b / name, in, c.time_width, c.time_width);
    };
    time_ = mlp("time_embedding", c.channels());
    added_ = mlp("add_embedding", c.added_width);
    in_ = b.conv2d("conv_in", c.latent_channels, c.channels(), same_size(c.kernel_in));
    for (int i = 0; i < blocks(); ++i) {
      blocks_.emplace_back(c, b.block(i), plan_[static_cast<size_t>(i)]);
      b.finish_block(i);
    }
    norm_ = b.group_norm("conv_norm_out", c.groups, c.channels(), c.eps);
    out_ = b.conv2d("conv_out", c.channels(), c.latent_channels, same_size(c.kernel_out));
    tables_ = b.tables();
    tables_->load();
  }

  int blocks() const override { return static_cast<int>(plan_.size()); }

  RequestContext begin(const CallContext& f, const Conditioning& given,
                       std::span<const float> timesteps) override {
    const auto t = at::tensor(at::ArrayRef<float>(timesteps.data(), timesteps.size()));
    const auto& pooled = given.whole.at("pooled");
    const auto sizes = numbers(given.whole.at("time_ids").to(at::kCPU).flatten(), c_.size_width);
    const auto added =
        added_(at::cat({pooled.to(options_), sizes.view({pooled.size(0), -1}).to(options_)}, 1));
    const auto waves = numbers(t, c_.channels());
    const auto time = time_(waves.to(options_)).unsqueeze(1);  // [steps, 1, C]
    probe(f, "time_proj", waves[0].expand({pooled.size(0), -1}), Recorder::kWhole);
    probe(f, "add_time_proj", sizes, Recorder::kWhole);
    probe(f, "time_embedding", time[0].expand({pooled.size(0), -1}), Recorder::kWhole);
    probe(f, "add_embedding", added, Recorder::kWhole);
    return {.tables = tables_->evaluate(at::silu(time + added.unsqueeze(0))),
            .width = c_.channels(),
            .prompt = given.whole.at("embeds").to(options_).transpose(0, 1).contiguous()};
  }

  void begin_block(int i, const Conditioning&, RequestContext& context) override {
    const auto& block = blocks_[static_cast<size_t>(i)];
    if (block.transformer) block.transformer->begin(context);
  }

  void enter(const CallContext&, State&) override {}

  void embed(const CallContext& f, State& s, const at::Tensor& latents) override {
    const auto at = of_level(f, 0);
    auto x = picture_of(latents.to(options_.dtype()), at.rows, at.cols);
    if (c_.is_centred) x = 2 * x - 1;
    s.x = in_(x);
    probe_picture(at, "conv_in", s.x);
    s.skips.clear();
    leave_skip(s);
  }

  void block(int i, const CallContext& f, State& s) override {
    const auto& block = blocks_[static_cast<size_t>(i)];
    const auto& plan = block.plan;
    const auto at = of_level(f, plan.level);
    if (plan.kind == UNetBlock::kUp) s.x = at::cat({s.x, take_skip(s)}, 1);
    s.x = block(at, s, s.x);
    switch (plan.kind) {
      case UNetBlock::kDown:
        return descend(block, f, s);
      case UNetBlock::kUp:
        return ascend(block, f, s);
      case UNetBlock::kMiddle:
        return probe_picture(at, "mid_block", s.x);
    }
  }

  at::Tensor head(const CallContext& f, State& s) override {
    const auto at = of_level(f, 0);
    if (f.probes) {
      const auto normed = norm_(s.x);
      probe_picture(at, "conv_norm_out", normed);
      probe_picture(at, "conv_act", at::silu(normed));
    }
    const auto out = out_(norm_.silu({s.x, {}}));
    probe_picture(at, "conv_out", out);
    return pixels_of(out);
  }

 private:
  // Sinusoids of numbers [n], float, on the CPU: those of numbers up to 1000 and more magnify the last bit of
  // a frequency, and the CPU's serve every device. -> [n, width]
  at::Tensor numbers(const at::Tensor& values, int64_t width) const {
    auto waves = nn::sinusoid(values, width);
    if (c_.cosines_first) return waves;
    const auto halves = waves.chunk(2, -1);
    return at::cat({halves[1], halves[0]}, -1);
  }

  PictureCall of_level(const CallContext& f, int64_t level) const {
    return at_level(f, std::ssize(c_.levels), level);
  }

  // The skips of one run of the blocks: a stack whose numbers go up, read back within the same run.
  static void leave_skip(State& s) { s.skips[static_cast<int>(s.skips.size())] = s.x; }
  static at::Tensor take_skip(State& s) {
    ENSURE(!s.skips.empty());
    return s.skips.extract(std::prev(s.skips.end())).mapped();
  }

  // Behind a block on the way down: its output is left for the way up, the halved picture too.
  void descend(const Block& block, const CallContext& f, State& s) const {
    const auto& plan = block.plan;
    leave_skip(s);
    const auto path = plan.path();
    probe_picture(of_level(f, plan.level), str(path, ".1.", plan.layer), s.x);
    const bool is_last = plan.layer + 1 == std::ssize(c_.levels[static_cast<size_t>(plan.level)].down);
    if (plan.resamples) {
      s.x = (*block.resample)(s.x);
      leave_skip(s);
      const auto half = of_level(f, plan.level + 1);
      probe_picture(half, path + ".downsamplers.0", s.x);
      probe_picture(half, str(path, ".1.", plan.layer + 1), s.x);
      probe_picture(half, path + ".0", s.x);
    } else if (is_last) {
      probe_picture(of_level(f, plan.level), path + ".0", s.x);
    }
  }

  // Behind a block on the way up: doubled by repetition and cut to the size that the skips have there.
  void ascend(const Block& block, const CallContext& f, State& s) const {
    const auto& plan = block.plan;
    const bool is_last = plan.layer + 1 == std::ssize(c_.levels[static_cast<size_t>(plan.level)].up);
    auto at = of_level(f, plan.level);
    if (plan.resamples) {
      at = of_level(f, plan.level - 1);
      s.x = (*block.resample)(upsample2(s.x).narrow(2, 0, at.rows).narrow(3, 0, at.cols));
      probe_picture(at, plan.path() + ".upsamplers.0", s.x);
    }
    if (is_last) probe_picture(at, plan.path(), s.x);
  }

  UNetConfig c_;
  at::TensorOptions options_;
  std::vector<UNetBlock> plan_;
  std::vector<Block> blocks_;
  SiluMlp time_, added_;
  Conv2d in_, out_;
  GroupNorm norm_;
  std::shared_ptr<nn::ModulationTables> tables_;
};

}  // namespace

std::unique_ptr<nn::Model> build_unet(const UNetConfig& config, const Builder& b,
                                      std::span<const Range> blocks) {
  return std::make_unique<UNet>(config, b, blocks);
}

}  // namespace atelier::models
