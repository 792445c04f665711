// How long pictures will take, learnt from those that were drawn.
#pragma once
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "request/request.h"

namespace atelier::server {

// Work of one picture in arbitrary units: what it is proportional to, pixels x steps x branches.
double work_of(const request::Request& request);

class CostModel {
 public:
  // Seconds that a batch of equal requests took, all of it.
  void learn(request::Requests batch, double seconds);
  // Of one picture drawn alone; none before anything was drawn.
  std::optional<double> seconds(const request::Request& request) const;
  std::optional<double> seconds_of_work(double work) const;

 private:
  static constexpr double kForget = 0.2;  // weight of the newest batch
  mutable std::mutex mutex_;
  std::optional<double> per_unit_;                 // s, over all
  std::map<std::string, double> per_unit_of_key_;  // by batch key
};

}  // namespace atelier::server
