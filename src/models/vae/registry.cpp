// The table of autoencoders.
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "models/vae/autoencoders.h"

namespace atelier::models {

const VaeFamily& find_vae(const Json& config) {
  const Json given = config.is_object() ? config.value("_class_name", Json("nothing")) : Json("nothing");
  const std::string name = given.is_string() ? given.get<std::string>() : given.dump();
  for (const VaeFamily* f : {&kAutoencoderKl, &kAutoencoderKlWan}) {
    for (const auto c : f->classes) {
      if (c == name) return *f;
    }
  }
  throw Error(Kind::kCheckpoint, str("vae/config.json: _class_name is ", name,
                                     "; known are AutoencoderKL and AutoencoderKLWan"));
}

nn::CallContext image_call(int64_t rows, int64_t cols, int parts, int part) {
  nn::CallContext f;
  f.streams = {{.patches = {rows * cols, 1}, .seq_parts = parts, .unit = cols}};
  f.seq_rank = part;
  return f;
}

}  // namespace atelier::models
