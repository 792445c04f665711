// Requests from the arguments of a diffusers call, as golden folders record it and the parity
// matrix lists it.
#pragma once
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "base/json.h"
#include "pipeline/model_repo.h"
#include "request/request.h"

namespace atelier::verify {

// The argument of a call that lets the reference draw in another size than the one asked for.
inline constexpr const char* kRounds = "use_resolution_binning";

// What a JSON object says, each key taken once. null counts as absent.
class CallArguments {
 public:
  // where: for messages, "golden.json: the call"
  CallArguments(const Json& object, std::string where);
  const Json* find(const std::string& key);  // null if absent
  template <class T>
  T take(const std::string& key, T otherwise) {
    const Json* value = find(key);
    return value ? value->get<T>() : otherwise;
  }
  // Throws Error(kUsage) naming the keys that nobody has asked for.
  void finish() const;

 private:
  const Json& object_;
  std::string where_;
  std::set<std::string> known_;
};

// What a call says of pictures to begin with is relative to `folder`; a strength that it does not
// say is `usual`.
struct PictureRules {
  std::filesystem::path folder = {};
  request::UsualStrength usual = {};
};

// num_images_per_prompt or num_videos_per_prompt.
int outputs_per_prompt(const Json& call);

// One per prompt and output of it. An argument is one value for all, or a list with one per prompt; picture i
// has the seed + i. What is absent comes from `usual`. Without a negative prompt, or a scale above 1, there
// is no second branch, as in diffusers. where: for messages, "golden.json: the call". Throws Error(kUsage),
// also for arguments that no request has.
std::vector<request::Request> requests_of(const Json& call, const request::Request& usual,
                                          const std::string& where, const PictureRules& pictures = {});
// What the model takes when nobody says otherwise.
request::Request usual_request(const pipeline::ModelRepo& model);

}  // namespace atelier::verify
