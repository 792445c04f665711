#include "app/run/picture_check.h"

#include <cmath>

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
  try {
    const auto facts = media::read_clip(file, most, [](const media::Image&) {});
    found.digest = media::digest_of_clip(file);
    found.width = facts.width, found.height = facts.height, found.frames = facts.frames;
  } catch (const Error& e) {
    found.problem = e.what();
  }
  return found;
}

std::string PictureCheck::of_video(request::Request& r) {
  using Text = std::optional<std::string>;
  for (const auto& [file, digest] :
       {std::pair{&r.image, &r.image_sha256}, {&r.last_image, &r.last_image_sha256}}) {
    if (!*file) continue;
    const auto& found = look_at_clip(**file, 1);
    if (!found.problem.empty()) return found.problem;
    *digest = found.digest;
    tell_shape(**file, r, found);
  }
  if (r.reference_images) r.reference_images_sha256.emplace();
  for (const auto& file : r.reference_images.value_or(std::vector<std::string>{})) {
    const auto& found = look_at_clip(file, 1);
    if (!found.problem.empty()) return found.problem;
    r.reference_images_sha256->push_back(found.digest);
  }
  const auto clip = [&](const Text& file, Text& digest, bool may_be_one) -> std::string {
    if (!file) return {};
    const auto& found = look_at_clip(*file, *r.num_frames);
    if (!found.problem.empty()) return found.problem;
    digest = found.digest;
    tell_shape(*file, r, found);
    return may_be_one && found.frames == 1 ? ""
                                           : pipeline::frames_problem(*file, found.frames, *r.num_frames);
  };
  std::string problem = clip(r.control_video, r.control_video_sha256, false);
  return problem.empty() ? clip(r.mask_video, r.mask_video_sha256, true) : problem;
}

int steps_of(const request::Request& r, const models::Family& family) {
  const int all = pipeline::laid_out(r);
  return r.strength ? all - pipeline::left_out(r, all, family.image_to_image.cut) : *r.num_inference_steps;
}

}  // namespace atelier::app
