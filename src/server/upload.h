// What a request for an edit or a video came with: its fields, and its pictures apart.
#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "http/message.h"
#include "media/image.h"
#include "server/api_fields.h"

namespace atelier::server {

struct Upload {
  Json fields = Json::object();  // without the pictures
  std::vector<std::string> images, masks, last_images;
};

// Of a form, or of JSON with pictures as data URLs, base64 or {"image_url": either}; what the request held is
// taken. known: tells which fields of a form are lists. Throws ApiError (400) naming the field.
Upload take_upload(http::IncomingRequest& request, const ApiFields& known);

// An uploaded picture, upright. Throws ApiError (400) naming the field for what is none.
media::Image decoded(const std::string& name, const std::string& bytes);

}  // namespace atelier::server
