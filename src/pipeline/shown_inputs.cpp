#include "pipeline/shown_inputs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <optional>

#include "base/error.h"
#include "media/resample.h"
#include "media/video.h"

namespace atelier::pipeline {
namespace {

using OptionalText = std::optional<std::string>;

void check_digest(const std::string& file, const OptionalText& digest) {
  if (digest && media::digest_of_clip(file) != *digest)
    throw Error(Kind::kUsage, str(file, " has changed since this run began; start the run again"));
}

// Each file once: what one of these makes of it, by its path.
template <class Made>
class EachFile {
 public:
  template <class Make>
  const Made& operator()(const std::string& file, const OptionalText& digest, const Make& make) {
    const auto at = made_.find(file);
    if (at != made_.end()) return at->second;
    check_digest(file, digest);
    return made_.emplace(file, make(file)).first->second;
  }

 private:
  std::map<std::string, Made> made_;
};

media::Image picture_in(const std::string& file) {
  media::Image out;
  media::read_clip(file, 1, [&](media::Image frame) { out = std::move(frame); });
  return out;
}

class Reader {
 public:
  Reader(int64_t height, int64_t width) : height_(height), width_(width) {}

  at::Tensor fitted(const media::Image& picture) const {
    const auto sized = media::resized(picture, static_cast<int>(width_), static_cast<int>(height_));
    auto out = at::empty({height_, width_, 3}, at::TensorOptions(at::kByte));
    std::memcpy(out.data_ptr(), sized.rgb.data(), sized.rgb.size());
    return out;
  }
  const media::Image& picture(const std::string& file, const OptionalText& digest) {
    return pictures_(file, digest, picture_in);
  }
  // [frames, H, W, 3]. Throws where there are others than `frames`, but for a single one if that may
  // stand for all.
  at::Tensor clip(const std::string& file, const OptionalText& digest, int64_t frames, bool may_repeat) {
    const auto& read = clips_(file, digest, [&](const std::string& path) {
      std::vector<at::Tensor> each;
      media::read_clip(path, frames, [&](const media::Image& frame) { each.push_back(fitted(frame)); });
      return at::stack(each);
    });
    if (may_repeat && read.size(0) == 1) return read.expand({frames, -1, -1, -1});
    if (const auto problem = frames_problem(file, read.size(0), frames); !problem.empty())
      throw Error(Kind::kUsage, problem);
    return read;
  }

 private:
  int64_t height_, width_;
  EachFile<media::Image> pictures_;
  EachFile<at::Tensor> clips_;
};

}  // namespace

std::string frames_problem(const std::string& file, int64_t made, int64_t frames) {
  if (made >= frames) return {};
  return str(file, " has ", made, made == 1 ? " frame" : " frames", "; ", frames,
             " are drawn: give a longer one, or a smaller num_frames");
}

bool has_control_stream(const ModelRepo& model) {
  const auto& streams = model.family().streams;
  return std::any_of(streams.begin(), streams.end(),
                     [](const auto& stream) { return stream.kind == models::StreamSpec::kControl; });
}

std::string control_problem(const ModelRepo& model, const std::string& adapter, const request::Request& r) {
  if (!model.draws_videos() || has_control_stream(model)) return {};
  if (adapter.empty() && r.control_video)
    return "a control video was given, which this model follows only under a control LoRA: name one as lora";
  if (!adapter.empty() && !r.control_video)
    return str(adapter, " is a control LoRA, which follows a control video, and none was given: add ",
               "control_video");
  return {};
}

ShownInputs read_shown(request::Requests batch, int64_t height, int64_t width) {
  Reader reader(height, width);
  std::vector<at::Tensor> first, last, control, mask;
  ShownInputs out;
  for (const auto& r : batch) {
    const int64_t frames = r.num_frames.value_or(1);
    if (r.image) {
      out.image_files.push_back(reader.picture(*r.image, r.image_sha256));
      first.push_back(reader.fitted(out.image_files.back()));
    }
    if (r.last_image) {
      out.last_files.push_back(reader.picture(*r.last_image, r.last_image_sha256));
      last.push_back(reader.fitted(out.last_files.back()));
    }
    if (r.control_video)
      control.push_back(reader.clip(*r.control_video, r.control_video_sha256, frames, false));
    if (r.mask_video) mask.push_back(reader.clip(*r.mask_video, r.mask_video_sha256, frames, true));
    if (!r.reference_images) continue;
    auto& of_request = out.references.emplace_back();
    for (size_t i = 0; i < r.reference_images->size(); ++i) {
      const auto& digests = r.reference_images_sha256;
      of_request.push_back(reader.picture((*r.reference_images)[i], digests && i < digests->size()
                                                                        ? OptionalText((*digests)[i])
                                                                        : std::nullopt));
    }
  }
  const auto stacked = [](const std::vector<at::Tensor>& each) {
    return each.empty() ? at::Tensor() : at::stack(each);
  };
  out.image = stacked(first), out.last_image = stacked(last);
  out.control = stacked(control), out.mask = stacked(mask);
  return out;
}

}  // namespace atelier::pipeline
