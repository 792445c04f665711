#include "app/run/picture_check.h"

#include <cmath>

#include "base/digest.h"
#include "base/error.h"
#include "media/input.h"
#include "pipeline/request_sampler.h"

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
void PictureCheck::tell_shape(const request::Request& r, const PictureFile& found) {
  const double of_file = static_cast<double>(found.width) / found.height,
               drawn = static_cast<double>(*r.width) / *r.height;
  if (std::abs(of_file / drawn - 1) < 0.02) return;
  notes_.insert(str(*r.image, " is ", found.width, "x", found.height, " and becomes ", *r.width, "x",
                    *r.height, ", which changes its shape: --width and --height keep it"));
}

std::string PictureCheck::problem(request::Request& r) {
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
  tell_shape(r, image);
  if (!r.mask) return {};
  const PictureFile& mask = look_at(*r.mask);
  r.mask_sha256 = mask.digest;
  return mask.problem;
}

int steps_of(const request::Request& r, const models::Family& family) {
  const int all = pipeline::laid_out(r);
  return r.strength ? all - pipeline::left_out(r, all, family.image_to_image.cut) : *r.num_inference_steps;
}

}  // namespace atelier::app
