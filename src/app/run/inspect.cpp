#include "app/run/inspect.h"

#include <nlohmann/json.hpp>

#include "base/digest.h"
#include "base/files.h"
#include "base/log.h"
#include "media/image.h"
#include "media/video.h"

namespace atelier::app {

jobs::Inspection inspect(const std::filesystem::path& file) {
  jobs::Inspection seen;
  try {
    std::optional<media::Metadata> metadata;
    if (std::filesystem::is_directory(file)) {
      auto frames = media::look_at_frames(file);
      seen = {frames.is_whole, frames.sha256, frames.bytes, nullptr};
      metadata = std::move(frames.metadata);
    } else {
      const std::string bytes = read_file(file);
      seen = {media::is_whole(bytes), sha256(bytes), bytes.size(), nullptr};
      if (seen.is_whole) metadata = media::read_metadata(bytes);
    }
    if (!metadata || metadata->values.empty()) return seen;
    seen.look = Json::object();
    for (const auto& [key, value] : metadata->values) seen.look[key] = value;
    // a prompt field of some other tool makes no picture of ours
    if (!seen.look.contains("prompt") || !seen.look.contains("dtype")) seen.look = nullptr;
  } catch (const std::exception& e) {
    log::debug(e.what());
  }
  return seen;
}

Json as_text(const Json& settings) {
  Json out = Json::object();
  for (const auto& [key, value] : media::describe(settings).values) out[key] = value;
  return out;
}

}  // namespace atelier::app
