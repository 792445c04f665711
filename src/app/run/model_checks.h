// What a request asks for, against what its model draws: sizes, samplers, frames and what a model of
// videos is shown.
#pragma once
#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "pipeline/model_repo.h"
#include "request/request.h"

namespace atelier::app {

// Sizes that the model cannot draw. Only a row of a file may ask for such a size and fail alone.
class SizeCheck {
 public:
  explicit SizeCheck(const pipeline::ModelRepo& model) : model_(model) {}
  int64_t tokens(const request::Request& request) const;  // throws Error(kUsage)
  // Empty if the size is good.
  const std::string& problem(const request::Request& request);

 private:
  const pipeline::ModelRepo& model_;
  std::map<std::array<int, 3>, std::string> known_;  // by height, width and frames
};

// Whether the sampler and the steps that a request asks for can be.
class SamplerCheck {
 public:
  explicit SamplerCheck(const pipeline::ModelRepo& model) : model_(model) {}
  // What keeps a request of so many tokens from being drawn, or nothing. Gives its sampler the name that it
  // has for the model.
  const std::string& problem(request::Request& request, int64_t tokens);
  // Sentences for people about samplers that have another name here.
  std::vector<std::string> notes() const { return {notes_.begin(), notes_.end()}; }

 private:
  const pipeline::ModelRepo& model_;
  std::map<std::string, std::string> known_;
  std::set<std::string> notes_;
};

// Which samplers those are that were asked for by names of other tools.
std::vector<std::string> sampler_notes(const std::vector<std::string>& typed);

class VideoCheck {
 public:
  // is_probe: files that the model must be shown may be missing.
  explicit VideoCheck(const pipeline::ModelRepo& model, bool is_probe = false)
      : model_(model), traits_(model.video()), is_probe_(is_probe) {}
  // What the model cannot do, in a sentence naming the field; empty: nothing. Takes away what means nothing
  // to models of pictures.
  std::string problem(request::Request& request) const;

  bool is_probe() const { return is_probe_; }

 private:
  std::string of_pictures(request::Request& request) const;
  std::string of_videos(request::Request& request) const;
  std::string scales_problem(const request::Request& request) const;

  const pipeline::ModelRepo& model_;
  models::VideoTraits traits_;
  bool is_probe_;
};

}  // namespace atelier::app
