// Edits: a picture to begin with and perhaps a mask, from a form or from JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/error.h"
#include "media/input.h"
#include "server/api.h"
#include "server/upload.h"

namespace atelier::server {
namespace {

// White where the picture is drawn anew: where the mask is transparent, as OpenAI has it; of one that is
// opaque, where it is white.
media::Image mask_of(const std::string& bytes) {
  media::Image mask = decoded("mask", bytes);
  media::Opacity opacity;
  try {
    opacity = media::opacity_upright(bytes);
  } catch (const Error& e) {
    throw ApiError(400, "invalid_image", str("mask: ", e.what()), "mask");
  }
  const auto& values = opacity.values;
  const bool is_opaque = std::all_of(values.begin(), values.end(), [](uint8_t o) { return o == 255; });
  if (is_opaque || values.size() * 3 != mask.rgb.size()) return mask;
  for (size_t i = 0; i < mask.rgb.size(); ++i) mask.rgb[i] = values[i / 3] < 128 ? 255 : 0;
  return mask;
}

}  // namespace

void Api::edits(ApiCall& call) {
  if (options_.mode == "t2i")
    throw ApiError(400, "wrong_mode", "this server runs with --mode t2i: POST /v1/images/generations");
  std::string hash = sha256(call.request.body);
  for (const auto& part : call.request.form) hash = sha256(str(hash, part.name, "\n", part.data));
  auto upload = take_upload(call.request, edit_fields_);
  if (upload.images.empty())
    throw ApiError(400, "missing_required_parameter", "image: the picture to begin with is missing", "image");
  if (upload.images.size() > 1)
    throw ApiError(
        400, "unsupported_value",
        str("image: ", upload.images.size(), " were given; families of this engine begin with one"), "image");
  if (upload.masks.size() > 1) throw ApiError(400, "invalid_value", "mask: one is expected", "mask");
  if (!upload.last_images.empty())
    throw ApiError(400, "unknown_parameter", "last_image: it is the last frame of a video", "last_image");
  auto draft = edit_fields_.read(upload.fields);
  decoded("image", upload.images.front());  // before anything is kept
  JobInputs inputs(store_, options_.inputs, new_id("job_"));
  draft.row.request.image = inputs.keep("image", upload.images.front());
  if (!upload.masks.empty())
    draft.row.request.mask =
        inputs.keep("mask", media::encode(mask_of(upload.masks.front()), media::Format::kPng));
  draw(call, "images.edits", draft, hash, inputs);
}

}  // namespace atelier::server
