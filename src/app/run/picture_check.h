// The pictures that requests begin with, and those and the videos that models of videos are shown, looked at
// before anything loads.
#pragma once
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "models/family.h"
#include "request/request.h"

namespace atelier::app {

// Each file is read and decoded once, and not kept.
class PictureCheck {
 public:
  explicit PictureCheck(const models::Family& family) : family_(family) {}
  // Makes the strength of a request with a size definite, and says what its files hold. What is wrong with
  // them, or nothing.
  std::string problem(request::Request& request);
  // Sentences for people about what was looked at.
  std::vector<std::string> notes() const { return {notes_.begin(), notes_.end()}; }

 private:
  struct PictureFile {
    std::string digest, problem;  // one of them
    int width = 0, height = 0;
    int64_t frames = 1;
  };
  const PictureFile& look_at(const std::string& file);
  // A video, or a picture of one frame: its first `most` frames, and whether there are more: then their
  // number is most + 1.
  const PictureFile& look_at_clip(const std::string& file, int64_t most);
  // One picture that a request names; what is wrong with it, or nothing.
  std::string settle_picture(const std::string& file, std::string& digest, const char* what);
  // The same of a control video, or of a mask, which may be one frame for all.
  std::string settle_clip(const std::string& file, std::string& digest, const request::Request& request,
                          bool is_mask);
  std::string settle_clips(request::Request& request);
  std::string of_video(request::Request& request);
  void tell_shape(const std::string& file, const request::Request& request, const PictureFile& found);

  const models::Family& family_;
  std::map<std::string, PictureFile> found_;
  std::map<std::pair<std::string, int64_t>, PictureFile> clips_;  // by the most frames that were wanted, too
  std::set<std::string> notes_;
};

// Steps that run of a request that was checked.
int steps_of(const request::Request& request, const models::Family& family);

}  // namespace atelier::app
