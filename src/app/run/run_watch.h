// What happens while a run draws, for people as it happens and for the report.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cluster/batch_run.h"
#include "report/clock.h"
#include "report/progress.h"
#include "report/run_report.h"

namespace atelier::app {

class RunWatch {
 public:
  // pictures_at_once: of each group. Both must outlive it.
  RunWatch(report::RunReport& report, report::Progress& progress, int pictures_at_once)
      : report_(report), progress_(progress), pictures_at_once_(pictures_at_once) {}

  void on_phase(const std::string& phase);  // "load", then "ready"
  void on_step(const cluster::StepDone& e);
  void on_note(const cluster::RequestNote& e);
  void on_generated(const cluster::BatchGenerated& e);
  void on_stored() { since_stored_.restart(); }
  void on_restart(const std::string& reason);
  // The end, with what the ranks say of themselves; they are empty where the run failed. Adds phases that sum
  // up to the time since this was made, memory, kernels, versions, and what is out of balance.
  void finish(const std::vector<cluster::RankStats>& ranks);

 private:
  void add_phases(const std::vector<cluster::RankStats>& ranks);
  std::map<std::string, double> slowest_group() const;

  report::RunReport& report_;
  report::Progress& progress_;
  const int pictures_at_once_;
  report::Stopwatch since_start_, since_ready_, since_generated_, since_stored_;
  double start_s_ = 0;
  bool is_ready_ = false;
  std::map<int, std::map<std::string, double>> group_seconds_;
  std::map<int, report::Stopwatch> step_watches_;
  std::map<int, double> step_ms_;
  std::set<std::string> told_;  // notes
};

}  // namespace atelier::app
