// The table of text encoders.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/text/encoders.h"

namespace atelier::models {

const EncoderFamily& find_encoder(const Json& config) {
  static const EncoderFamily* const all[] = {&kClip, &kT5, &kBert};
  std::string found = "nothing", known;
  if (config.contains("architectures") && config["architectures"].is_array()) {
    for (const auto& name : config["architectures"]) {
      if (!name.is_string()) continue;
      found = name.get<std::string>();
      for (const EncoderFamily* f : all) {
        for (const auto c : f->classes) {
          if (c == found) return *f;
        }
      }
    }
  }
  for (const EncoderFamily* f : all) {
    for (const auto c : f->classes) known += (known.empty() ? "" : ", ") + std::string(c);
  }
  throw Error(Kind::kCheckpoint,
              str("text encoder config.json: architectures names ", found, "; known are ", known));
}

}  // namespace atelier::models
