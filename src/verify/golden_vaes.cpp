#include "verify/golden_vaes.h"

#include <ATen/TensorOperators.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "models/vae.h"
#include "plan/picture_rows.h"
#include "verify/golden_part.h"
#include "verify/requests.h"
#include "verify/thread_ranks.h"

namespace atelier::verify {
namespace {

namespace fs = std::filesystem;

// An autoencoder on one rank of a layout, which may hold some of the rows.
class PlacedVae {
 public:
  PlacedVae(const GoldenPart& part, ThreadRank& here)
      : here_(here),
        builder_(*part.store, here.context.picture(), memory_,
                 at::TensorOptions(at::kFloat).device(here.device)),
        vae_(models::find_vae(part.config).build(part.config, builder_)) {
    part.store->check();
  }

  const models::VaeFacts& facts() const { return vae_->facts(); }
  const models::Vae& whole() const { return *vae_; }
  bool is_whole() const { return here_.context.picture_parts() == 1; }

  at::Tensor decode(const at::Tensor& z, nn::Recorder* probes = nullptr) const {
    const int64_t rows = z.size(-2);
    auto call = call_of(rows, z.size(-1), probes);
    const auto made = here_.context.gather_rows(vae_->decode(call, mine(z, rows)), rows);
    return facts().is_clamped ? made.clamp(-1, 1) : made;
  }
  at::Tensor encode(const at::Tensor& x, nn::Recorder* probes = nullptr) const {
    const int64_t rows = x.size(-2) / facts().spatial;
    auto call = call_of(rows, x.size(-1) / facts().spatial, probes);
    return here_.context.gather_rows(vae_->encode(call, mine(x, rows)), rows);
  }
  // Rows of all ranks.
  at::Tensor gathered(const nn::CallContext& call, const at::Tensor& value) const {
    return here_.context.gather_rows(value, call.streams[0].patches.total / call.streams[0].unit);
  }

 private:
  nn::CallContext call_of(int64_t rows, int64_t cols, nn::Recorder* probes) const {
    auto call = models::image_call(rows, cols, here_.context.picture_parts(), here_.context.picture_rank());
    call.probes = probes;
    return call;
  }
  at::Tensor mine(const at::Tensor& x, int64_t latent_rows) const {
    const int64_t each = x.size(-2) / latent_rows;
    const Range held = Partition{latent_rows, here_.context.picture_parts()}[here_.context.picture_rank()];
    return x.narrow(-2, held.begin * each, held.size * each).contiguous();
  }

  ThreadRank& here_;
  nn::Resident memory_;
  nn::Builder builder_;
  std::unique_ptr<models::Vae> vae_;
};

// Under a prefix; the k-th of one name, counted from 0, ends in @k.
class VaeRecorder : public nn::Recorder {
 public:
  VaeRecorder(const PlacedVae& vae, const Tensors& recorded, Produced& out, std::string prefix)
      : vae_(vae), recorded_(recorded), out_(out), prefix_(std::move(prefix)) {}
  void record(const nn::CallContext& call, std::string_view name, const at::Tensor& value, int) override {
    const int k = seen_[std::string(name)]++;
    const auto golden_name = str(prefix_, name, k ? str("@", k) : "");
    const auto* like = find(recorded_, golden_name);  // of the first picture only, or of all
    const bool is_less = like && like->dim() > 0 && like->size(0) < value.size(0);
    const auto pictures = is_less ? value.narrow(0, 0, like->size(0)) : value;
    out_.add(golden_name, vae_.gathered(call, pictures).clone());
  }

 private:
  const PlacedVae& vae_;
  const Tensors& recorded_;
  Produced& out_;
  std::string prefix_;
  std::map<std::string, int> seen_;
};

// What a case is about: one autoencoder, its recorded tensors by their names without its own, and
// where results go.
struct VaeCase {
  const PlacedVae& vae;
  const std::string dot;
  const Tensors& recorded;
  const Json tiling;  // of this autoencoder
  Produced& out;

  const at::Tensor* given(const std::string& name) const { return find(recorded, dot + name); }
  void add(const std::string& name, const at::Tensor& value) const { out.add(dot + name, value); }
};

at::Tensor mean_of(const at::Tensor& moments) {
  return moments.chunk(2, 1)[0];
}

// As the attributes of the reference's autoencoders of pictures say it; what is not said is
// the autoencoder's own.
models::Tiles picture_tiles(const VaeCase& c) {
  const auto& facts = c.vae.facts();
  if (!c.tiling.is_object()) return facts.tiles;
  CallArguments said(c.tiling, str("golden.json: tiling of ", c.dot.substr(0, c.dot.size() - 1)));
  auto tiles = facts.tiles;
  const double overlap = said.take("tile_overlap_factor", 1 - tiles.stride / static_cast<double>(tiles.size));
  tiles.size = said.take("tile_sample_min_size", tiles.size);
  tiles.stride = static_cast<double>(tiles.size) * (1 - overlap);
  const auto latent = said.take("tile_latent_min_size", tiles.size / facts.spatial);
  said.finish();
  if (tiles.size < facts.spatial || latent != tiles.size / facts.spatial || !(overlap >= 0 && overlap < 1))
    throw Error(Kind::kUsage, str("golden.json: tiling ", c.tiling.dump(), " cannot be: a tile of ",
                                  tiles.size, " pixels holds ", tiles.size / facts.spatial,
                                  " latents on a side, and tiles overlap by 0 to less than 1"));
  return tiles;
}

void run_pictures(const VaeCase& c, c10::Device device) {
  VaeRecorder recorder(c.vae, c.recorded, c.out, c.dot + "block.");
  if (const auto* given = c.given("z")) {
    const auto z = given->to(device);
    for (int64_t i = 0; i < z.size(0); ++i) c.add(str("decode_slice", i), c.vae.decode(z.narrow(0, i, 1)));
    c.add("decode", c.vae.decode(z, &recorder));
    if (c.vae.is_whole()) c.add("decode_tiled", c.vae.whole().decode_tiled(z, picture_tiles(c)));
  }
  const auto* image = c.given("x");
  if (!image) image = c.given("input");
  if (!image) return;
  const auto x = image->to(device);
  const auto moments = c.vae.encode(x, &recorder);
  c.add("encode.moments", moments);
  c.add("encode.mean", mean_of(moments));
  c.add("encode.logvar", moments.chunk(2, 1)[1].clamp(-30, 20));
  if (c.vae.is_whole()) c.add("encode_tiled.moments", c.vae.whole().encode_tiled(x, picture_tiles(c)));
}

// The numbers of frames of the recorded runs, "f5.mean".
std::vector<int64_t> runs_of_frames(const VaeCase& c) {
  std::vector<int64_t> runs;
  for (const auto& [name, value] : c.recorded) {
    if (!name.starts_with(c.dot + "f") || !name.ends_with(".moments")) continue;
    const auto digits = name.substr(c.dot.size() + 1, name.size() - c.dot.size() - 9);
    const auto frames = to_integer(digits);
    if (frames && digits.find_first_not_of("0123456789") == std::string::npos) runs.push_back(*frames);
  }
  return runs;
}

void run_tiles(const VaeCase& c, const at::Tensor& video) {
  const auto& facts = c.vae.facts();
  const models::Tiles tiles{c.tiling.value("min", facts.tiles.size),
                            c.tiling.value("stride", facts.tiles.stride)};
  const auto x = video.narrow(2, 0, c.tiling.value("frames", video.size(2)));
  c.add("tiled.mean", mean_of(c.vae.whole().encode_tiled(x, tiles)));
  const auto latents = mean_of(c.vae.encode(x));
  const auto decoded = c.vae.whole().decode_tiled(latents, tiles);
  c.add("tiled.decoded", facts.is_clamped ? decoded.clamp(-1, 1) : decoded);
}

void run_videos(const VaeCase& c, c10::Device device) {
  if (const auto* input = c.given("input")) {
    const auto video = input->to(device);
    for (const int64_t frames : runs_of_frames(c)) {
      const std::string run = str("f", frames, ".");
      VaeRecorder recorder(c.vae, c.recorded, c.out, c.dot + run + "chunk.");
      const auto moments = c.vae.encode(video.narrow(2, 0, frames), &recorder);
      c.add(run + "moments", moments);
      c.add(run + "mean", mean_of(moments));
      c.add(run + "decoded", c.vae.decode(mean_of(moments), &recorder));
    }
    if (c.vae.is_whole() && c.tiling.is_object()) run_tiles(c, video);
  }
  for (const auto& [name, value] : c.recorded) {  // "random.latents", "random.decoded"
    constexpr std::string_view kLatents = ".latents";
    if (!name.starts_with(c.dot) || !name.ends_with(kLatents)) continue;
    const auto run = name.substr(0, name.size() - kLatents.size());
    c.out.add(run + ".decoded", c.vae.decode(value.to(device)));
  }
}

void run_vae(const GoldenPart& part, ThreadRank& here, const std::string& name, const Json& golden,
             const Tensors& recorded, Produced& out) {
  const PlacedVae vae(part, here);
  const auto tiling = golden.value("tiling", Json::object());
  const bool is_of_all = !vae.facts().has_frames && std::none_of(tiling.begin(), tiling.end(),
                                                                 [](const Json& t) { return t.is_object(); });
  const VaeCase run{vae, name + ".", recorded, is_of_all ? tiling : tiling.value(name, Json()), out};
  vae.facts().has_frames ? run_videos(run, here.device) : run_pictures(run, here.device);
}

}  // namespace

Produced produce_vaes(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  const c10::InferenceMode guard;
  Produced out;
  const int world = plan::world_size(o.degrees);
  const plan::ParallelConfig alone;
  for (const auto& entry : fs::directory_iterator(o.folder / "model")) {
    const auto name = entry.path().filename().string();
    const GoldenPart part(entry.path(), [](const Json& c) { return models::find_vae(c).names(c); });
    const auto run = [&](const plan::ParallelConfig& degrees, Produced& all) {
      const auto plan = plan::plan_for(degrees, {.name = name, .heads = world, .blocks = world});
      on_threads(plan, o.device, nn::SdpaBackend::kAuto, [&](ThreadRank& here) {
        const c10::InferenceMode also_here;
        Produced mine;
        run_vae(part, here, name, golden, recorded, mine);
        if (here.rank == 0) all = std::move(mine);
      });
    };
    Produced by_rows, whole;
    const bool is_shared = plan::may_code_by_rows(o.degrees, false);
    run(is_shared ? o.degrees : alone, by_rows);
    if (is_shared) run(alone, whole);
    for (const auto& each : by_rows.order) out.add(each, by_rows.tensors.at(each));
    for (const auto& each : whole.order) {
      if (!out.tensors.contains(each)) out.add(each, whole.tensors.at(each));
    }
  }
  return out;
}

}  // namespace atelier::verify
