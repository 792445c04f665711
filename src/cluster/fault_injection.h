// Faults on purpose, for tests: ATELIER_FAULT="rank:phase[:n]:kind[:always]" makes a worker break at a known
// place.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace atelier::cluster {

struct Fault {
  enum class Phase { kLoad, kEncode, kStep, kDecode, kWrite };
  // SIGKILL, a main thread that hangs, SIGSTOP, an allocation that fails, any other exception.
  enum class Manner { kKill, kHang, kStop, kOom, kThrow };

  int rank = 0;
  Phase phase = Phase::kLoad;
  int count = 0;  // which occurrence, from 0; for steps the index of the step of the first batch
  Manner manner = Manner::kKill;
  bool is_lasting = false;  // also in workers that replace broken ones

  // Throws Error(kUsage) for anything malformed.
  static Fault parse(std::string_view text);
};

// Breaks this process when its fault's turn has come. Any thread.
class FaultPlan {
 public:
  FaultPlan() = default;
  // The fault of the text, if it is for this rank and this start of the run's workers; null or empty text:
  // none.
  FaultPlan(const char* text, int rank, int start);
  void reach(Fault::Phase phase);

 private:
  std::optional<Fault> fault_;
};

}  // namespace atelier::cluster
