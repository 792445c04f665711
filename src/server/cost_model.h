// How long pictures will take, learnt from those that were drawn.
#pragma once
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "request/request.h"

namespace atelier::server {

// What a batch will take is proportional to: steps of it all, and in each step so much work.
struct BatchWork {
  double steps = 0, work = 0;  // work: of all pictures, pixels x branches x frames of the latents

  BatchWork() = default;
  explicit BatchWork(request::Requests batch);
  void add(const request::Request& request);  // one more picture, drawn beside the others
};

// The picture of this number, of those that are drawn one after another in batches of `most`, begins a batch
// or joins the last.
void add_next(std::vector<BatchWork>& batches, size_t number, int most, const request::Request& picture);

// Seconds over work, through what was measured.
class CostCurve {
 public:
  void learn(double work, double seconds);
  // On the lines through what was measured; proportional to the work where one point is all there is.
  std::optional<double> likely(double work) const;
  // What it takes at least: of more work than any that was measured, time grows with its root or faster.
  std::optional<double> least(double work) const;

 private:
  std::map<double, double> seconds_;  // by work
};

class CostModel {
 public:
  // Seconds of each phase that a batch of equal requests took.
  void learn(request::Requests batch, const std::map<std::string, double>& phases);
  // None before anything was drawn.
  std::optional<double> seconds(const BatchWork& batch) const;
  std::optional<double> least_seconds(const BatchWork& batch) const;

 private:
  mutable std::mutex mutex_;
  CostCurve step_, rest_;  // of one step; of encoding and decoding
};

}  // namespace atelier::server
