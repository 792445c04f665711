#include "server/model_requests.h"

#include "app/run/adapters.h"
#include "app/run/capacity.h"
#include "app/run/seeds.h"
#include "app/settings/unused.h"
#include "base/error.h"
#include "media/video.h"
#include "models/vae.h"
#include "plan/layouts.h"
#include "plan/parallel_config.h"

namespace atelier::server {
namespace {

// MP4 where FFmpeg's libraries are there.
std::string video_format() {
  try {
    media::ffmpeg_module();
    return "mp4";
  } catch (const Error&) {
    return "webp";
  }
}

int frame_step(const pipeline::ModelRepo& model) {
  if (!model.draws_videos() || !model.has("vae")) return 1;
  return static_cast<int>(models::find_vae(model.vae()).facts(model.vae()).temporal);
}

class ModelRequestMaker : public RequestMaker {
 public:
  ModelRequestMaker(const app::Resolved& resolved, const app::RunSpec& spec)
      : resolved_(resolved),
        spec_(spec),
        facts_(spec.model.folder.check()),
        room_(app::room_here(spec.device)),
        adapters_(spec.model.folder, resolved.settings.input.lora_scale) {
    const auto& d = spec.model.folder.defaults();
    const auto& common = resolved.settings.input.row.request;
    card_ = {.id = spec.model.name,
             .family = std::string(spec.model.folder.family().name),
             .tier = spec.job.engine.tier,
             .attention_dtype = spec.job.engine.attention_dtype,
             .layout = plan::to_string(spec.layout.degrees),
             .dtype = spec.job.engine.precision.denoiser,
             .device = spec.job.engine.device,
             .width = common.width.value_or(d.width),
             .height = common.height.value_or(d.height),
             .steps = common.num_inference_steps.value_or(d.steps),
             .groups = spec.layout.degrees.data,
             .batch = std::max(1, resolved.settings.input.batch_size / spec.layout.degrees.data),
             .guidance = common.guidance_scale.value_or(d.guidance),
             .is_video = spec.model.folder.draws_videos(),
             .fps = common.fps.value_or(d.fps),
             .frame_step = frame_step(spec.model.folder),
             .video_format = video_format(),
             .needs_image = spec.model.folder.video().image == models::Shown::kMust,
             .needs_last_image = spec.model.folder.video().last_image == models::Shown::kMust};
  }

  MadeRequests make(request::PromptRow row, const std::string& format) const override {
    const bool says_guidance = row.request.guidance_scale.has_value();
    request::Prompts prompts;
    prompts.rows.push_back(std::move(row));
    auto set = app::make_requests(resolved_, spec_.model.folder, std::move(prompts), "." + format,
                                  {.adapters = &adapters_});
    // what the layout cannot share out, or the memory cannot hold, never reaches a worker
    plan::validate(spec_.layout.degrees, {facts_, set.extent.work}, 0);
    app::check_memory(spec_, set, resolved_, room_);  // pictures of a batch must fit beside the weights
    MadeRequests out{.requests = app::with_seeds(set.requests), .notes = std::move(set.notes)};
    if (says_guidance && app::is_guidance_idle(spec_.model.folder, set))
      out.notes.push_back("guidance_scale has no effect: this model takes no guidance");
    return out;
  }

  const ModelCard& card() const override { return card_; }

 private:
  const app::Resolved& resolved_;
  const app::RunSpec& spec_;
  const ModelFacts facts_;
  const app::Room room_;
  mutable app::AdapterChoice adapters_;
  ModelCard card_;
};

}  // namespace

std::unique_ptr<RequestMaker> make_request_maker(const app::Resolved& resolved, const app::RunSpec& spec) {
  return std::make_unique<ModelRequestMaker>(resolved, spec);
}

}  // namespace atelier::server
