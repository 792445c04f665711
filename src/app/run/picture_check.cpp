#include "app/run/picture_check.h"

#include <cmath>
#include <tuple>

#include "base/digest.h"
#include "base/error.h"
#include "media/input.h"
#include "media/video.h"
#include "pipeline/request_sampler.h"
#include "pipeline/shown_inputs.h"

namespace atelier::app {

const PictureCheck::PictureFile& PictureCheck::look_at(const std::string& file) {
  const auto [at, is_new] = found_.try_emplace(file);
  if (!is_new) return at->second;
  PictureFile& found = at->second;
  try {
    const auto bytes = media::read_picture_file(file);
    found.digest = sha256(bytes);
    const auto picture = media::decode_upright(bytes);
    found.width = picture.width, found.height = picture.height;
  } catch (const Error& e) {
    const std::string why = e.what();
    found.problem = why.find(file) == std::string::npos ? str(file, ": ", why) : why;
  }
  return found;
}

// Pictures are resized to what is drawn, as in the reference, whatever shape they have.
void PictureCheck::tell_shape(const std::string& file, const request::Request& r, const PictureFile& found) {
  const double of_file = static_cast<double>(found.width) / found.height,
               drawn = static_cast<double>(*r.width) / *r.height;
  if (std::abs(of_file / drawn - 1) < 0.02) return;
  notes_.insert(str(file, " is ", found.width, "x", found.height, " and becomes ", *r.width, "x", *r.height,
                    ", which changes its shape: --width and --height keep it"));
}

std::string PictureCheck::problem(request::Request& r) {
  if (family_.video) return of_video(r);
  try {
    request::settle_strength(r, pipeline::usual_strength(family_));
    if (!r.image) return {};
    pipeline::left_out(r, pipeline::laid_out(r), family_.image_to_image.cut);
  } catch (const Error& e) {
    return e.what();
  }
  const PictureFile& image = look_at(*r.image);
  if (!image.problem.empty()) return image.problem;
  r.image_sha256 = image.digest;
  tell_shape(*r.image, r, image);
  if (!r.mask) return {};
  const PictureFile& mask = look_at(*r.mask);
  r.mask_sha256 = mask.digest;
  return mask.problem;
}

const PictureCheck::PictureFile& PictureCheck::look_at_clip(const std::string& file, int64_t most) {
  const auto [at, is_new] = clips_.try_emplace({file, most});
  if (!is_new) return at->second;
  PictureFile& found = at->second;
  found.frames = 0;
  try {
    media::read_clip(file, most + 1, [&](const media::Image& frame) {
      if (found.frames++ == 0) found.width = frame.width, found.height = frame.height;
    });
  } catch (const Error& e) {
    if (found.frames < most) found.problem = e.what();  // what is damaged behind them is not read
    if (found.frames == most) ++found.frames;
  }
  if (found.problem.empty()) found.digest = media::digest_of_clip(file);
  return found;
}

std::string PictureCheck::settle_picture(const std::string& file, std::string& digest, const char* what) {
  const auto& found = look_at_clip(file, 1);
  digest = found.digest;
  if (found.problem.empty() && found.frames > 1)
    notes_.insert(str(file, " has more than one frame: its first is the ", what));
  return found.problem;
}

std::string PictureCheck::settle_clip(const std::string& file, std::string& digest, const request::Request& r,
                                      bool is_mask) {
  const int64_t drawn = *r.num_frames;
  const auto& found = look_at_clip(file, drawn);
  if (!found.problem.empty()) return found.problem;
  digest = found.digest;
  tell_shape(file, r, found);
  if (is_mask && found.frames == 1 && drawn > 1) {
    notes_.insert(str(file, " has one frame, which is the mask of all ", drawn));
    return {};
  }
  if (found.frames > drawn)
    notes_.insert(str(file, " has more frames than are drawn: its first ", drawn, " are used"));
  return pipeline::frames_problem(file, found.frames, drawn);
}

// The reference takes a mask of as many frames as its video has, and no other.
std::string PictureCheck::settle_clips(request::Request& r) {
  if (!r.control_video) return {};
  const int64_t drawn = *r.num_frames;
  auto problem = settle_clip(*r.control_video, r.control_video_sha256.emplace(), r, false);
  if (!problem.empty() || !r.mask_video) return problem;
  problem = settle_clip(*r.mask_video, r.mask_video_sha256.emplace(), r, true);
  if (!problem.empty()) return problem;
  const auto control = look_at_clip(*r.control_video, drawn).frames,
             mask = look_at_clip(*r.mask_video, drawn).frames;
  if (mask == control || (mask == 1 && drawn > 1)) return {};
  const auto count = [drawn](int64_t frames) {
    return frames > drawn ? str("more than ", drawn) : str(frames);
  };
  return str(*r.mask_video, " has ", count(mask), " frames and ", *r.control_video, " ", count(control),
             ": a mask has as many frames as its video, or one for all");
}

std::string PictureCheck::of_video(request::Request& r) {
  for (const auto& [file, digest, what] :
       {std::tuple{&r.image, &r.image_sha256, "first frame of the video"},
        {&r.last_image, &r.last_image_sha256, "last frame of the video"}}) {
    if (!*file) continue;
    if (auto problem = settle_picture(**file, digest->emplace(), what); !problem.empty()) return problem;
    tell_shape(**file, r, look_at_clip(**file, 1));
  }
  if (r.reference_images) r.reference_images_sha256.emplace();
  for (const auto& file : r.reference_images.value_or(std::vector<std::string>{})) {
    auto& digest = r.reference_images_sha256->emplace_back();
    if (auto problem = settle_picture(file, digest, "reference"); !problem.empty()) return problem;
  }
  return settle_clips(r);
}

int steps_of(const request::Request& r, const models::Family& family) {
  const int all = pipeline::laid_out(r);
  return r.strength ? all - pipeline::left_out(r, all, family.image_to_image.cut) : *r.num_inference_steps;
}

}  // namespace atelier::app
