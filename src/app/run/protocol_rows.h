// One measurement of a protocol: drawn, timed, and written down as a row of bench/result.h.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "app/run/interrupt.h"
#include "app/run/planned_model.h"
#include "bench/protocol.h"
#include "machine/nvml.h"

namespace atelier::app {

struct MeasuredRow {
  Json row;
  Json traffic;             // null: not traced, or not drawn
  bool lacks_room = false;  // it failed for want of memory
};

class ProtocolRows {
 public:
  struct Setting {
    const Resolved& resolved;
    const Environment& variables;
    PlannedModel& model;
    const machine::Nvml* nvml;
    int ranks;  // that are here
    bool is_gpu;
    std::optional<plan::Hardware> hardware;  // to model; none: no speed is modelled
  };
  explicit ProtocolRows(Setting setting) : s_(setting) {}

  // Pictures go to folder/pictures/<id>, traces to folder/traces/<id>. What cannot be drawn is a row that
  // says why; throws Error(kInterrupted) only.
  MeasuredRow measure(const bench::Measurement& m, const std::filesystem::path& folder);
  // Of the denoiser: "bfloat16".
  std::string dtype() const;

 private:
  plan::ParallelConfig degrees_of(const bench::Measurement& m) const;
  Resolved settings_of(const bench::Measurement& m, const plan::ParallelConfig& degrees,
                       const std::filesystem::path& folder) const;
  Json modelled(const bench::Measurement& m, const plan::ParallelConfig& degrees) const;

  Setting s_;
  Interrupt interrupt_;
};

}  // namespace atelier::app
