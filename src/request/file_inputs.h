// The files that a request may name, in one list.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

#include "request/request.h"

namespace atelier::request {

struct FileInput {
  using Text = std::optional<std::string> Request::*;
  std::string_view name;  // of the field
  Text file, digest;      // digest: of what the file holds
};

// All but reference_images, which are several.
inline constexpr std::array<FileInput, 5> kFileInputs{
    {{"image", &Request::image, &Request::image_sha256},
     {"mask", &Request::mask, &Request::mask_sha256},
     {"last_image", &Request::last_image, &Request::last_image_sha256},
     {"control_video", &Request::control_video, &Request::control_video_sha256},
     {"mask_video", &Request::mask_video, &Request::mask_video_sha256}}};

}  // namespace atelier::request
