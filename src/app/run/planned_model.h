// A model whose size, batch and layout may vary: what the planner says of each, without drawing.
#pragma once
#include <string>

#include "app/compat/environment.h"
#include "app/run/run_spec.h"
#include "app/settings/resolve.h"
#include "base/json.h"
#include "plan/hardware.h"

namespace atelier::app {

// The settings of a run with one thing changed, as if it had been asked for by a flag.
struct Variant {
  int height = 0, width = 0;  // pixels; 0: as the settings say
  int batch = 1;
};
Resolved with(const Resolved& resolved, const Variant& variant);

class PlannedModel {
 public:
  // Throws what finding the model and making its requests throws; reads no weights.
  PlannedModel(Resolved resolved, const Environment& variables);

  const FoundModel& model() const { return spec_.model; }
  // What limits the layouts of this variant, and the requests that it draws.
  plan::LayoutQuery layout_query(const Variant& variant) const;
  RequestSet requests(const Variant& variant) const;

  // {"kind": "modelled", hardware, links, ms_per_step, picture_s, weight_bytes [], peak_bytes []}; null where
  // the family does not say what its blocks compute. The layout must be valid.
  Json predicted(const Variant& variant, const plan::ParallelConfig& degrees, const plan::Hardware& hardware);
  // {"kind": "modelled", weight_bytes []}: counted, of every rank of a group, for ranks on the CPU.
  Json counted(const Variant& variant, const plan::ParallelConfig& degrees);

 private:
  // Makes the requests of the variant those of the run.
  pipeline::EngineConfig ask(const Variant& variant, c10::DeviceType device);

  Resolved resolved_;
  RunSpec spec_;
};

}  // namespace atelier::app
