// The pictures that requests begin with, looked at before anything loads.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "models/family.h"
#include "request/request.h"

namespace atelier::app {

// Each file is read and decoded once, and not kept.
class PictureCheck {
 public:
  explicit PictureCheck(const models::Family& family) : family_(family) {}
  // Makes the strength of a request with a size definite, and says what its files hold. What is wrong with them, or
  // nothing.
  std::string problem(request::Request& request);
  // Sentences for people about what was looked at.
  std::vector<std::string> notes() const { return {notes_.begin(), notes_.end()}; }

 private:
  struct PictureFile {
    std::string digest, problem;  // one of them
    int width = 0, height = 0;
  };
  const PictureFile& look_at(const std::string& file);
  void tell_shape(const request::Request& request, const PictureFile& found);

  const models::Family& family_;
  std::map<std::string, PictureFile> found_;
  std::set<std::string> notes_;
};

// Steps that run of a request that was checked.
int steps_of(const request::Request& request, const models::Family& family);

}  // namespace atelier::app
