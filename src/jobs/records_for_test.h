// Requests and records that the tests of this room share.
#pragma once
#include <string>
#include <string_view>

#include "base/digest.h"
#include "base/json.h"
#include "jobs/ledger.h"
#include "request/request.h"

namespace atelier::jobs {

inline request::Request request(int64_t index, const std::string& prompt = "a cat") {
  request::Request i;
  i.index = index;
  i.prompt = prompt;
  i.name = str(index, ".png");
  return i;
}

inline Stored stored(std::string_view bytes, double seconds) {
  return {sha256(bytes), bytes.size(), seconds};
}

inline const Json kRun = {
    {"model", "mini"}, {"num_inference_steps", 4}, {"guidance_scale", 3.5}, {"seed", 9}};

}  // namespace atelier::jobs
