// From what a client wrote to pictures that can be drawn.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "request/prompts.h"

namespace atelier::server {

// What clients are told of what is loaded.
struct ModelCard {
  std::string id, family, tier, attention_dtype, layout, dtype, device;
  int width = 0, height = 0, steps = 0, groups = 1, batch = 1;
  double guidance = 0;
  bool is_video = false;
  double fps = 0;                     // of videos
  int frame_step = 1;                 // frames that belong together, but for the first, which is alone
  std::string video_format = "webp";  // where a request does not say
  bool needs_image = false, needs_last_image = false;  // nothing is drawn without
};

struct MadeRequests {
  std::vector<request::Request> requests;  // one for each picture
  std::vector<std::string> notes;          // sentences for the client: what has no effect, what is changed
};

class RequestMaker {
 public:
  virtual ~RequestMaker() = default;
  // Any thread. With everything settled that a row does not say, seeds too.
  // Throws Error(kUsage) for what the model cannot draw, Error(kCapacity) for what does not fit.
  virtual MadeRequests make(request::PromptRow row, const std::string& format) const = 0;
  virtual const ModelCard& card() const = 0;
};

}  // namespace atelier::server
