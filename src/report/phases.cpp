#include "report/phases.h"

#include <algorithm>

namespace atelier::report {
namespace {

// Takes parts from a time, in turn, as far as it reaches.
class Split {
 public:
  explicit Split(double seconds) : left_(std::max(0.0, seconds)) {}
  double take(double seconds) {
    const double part = std::clamp(seconds, 0.0, left_);
    left_ -= part;
    return part;
  }
  double left() const { return left_; }

 private:
  double left_;
};

}  // namespace

NamedSeconds start_phases(double start_s, double connect_s, double load_s) {
  Split split(start_s);
  const double load = split.take(load_s), connect = split.take(connect_s);
  return {{"spawn", split.left()}, {"rendezvous", connect}, {"load", load}};
}

NamedSeconds draw_phases(double draw_s, const std::map<std::string, double>& slowest, double written_s,
                         double ended_s) {
  Split split(draw_s);
  NamedSeconds out;
  for (const char* name : {"encode", "denoise", "decode"}) {
    const auto at = slowest.find(name);
    out.emplace_back(name, split.take(at == slowest.end() ? 0 : at->second));
  }
  out.emplace_back("write", split.take(written_s));
  out.emplace_back("end", split.take(ended_s));
  out.emplace_back("waiting", split.left());
  return out;
}

}  // namespace atelier::report
