#include "verify/golden_adapters.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "pipeline/adapters.h"
#include "verify/golden_runs.h"

namespace atelier::verify {
namespace {

// A weight under the name that its checkpoint gives it, whose rows may lie in several canonical tensors.
at::Tensor read_layer(const weights::WeightStore& store, const weights::LayerNames& names,
                      const MergedWeight& weight) {
  const auto* pieces = weight.tensor.ends_with(weights::kWeightEnding)
                           ? names.find(std::string_view(weight.tensor)
                                            .substr(0, weight.tensor.size() - weights::kWeightEnding.size()))
                           : nullptr;
  if (!pieces) throw Error(Kind::kUsage, str(weight.name, ": the model has no such layer"));
  auto sizes = pieces->front().full;
  sizes[0] = weights::LayerNames::rows_of(*pieces);
  auto out = at::empty(sizes, at::TensorOptions(at::kFloat));
  for (const auto& piece : *pieces) {
    auto part = out.narrow(0, piece.first, piece.rows.size);
    store.read_into(part, piece.canonical, piece.full, std::span(&piece.rows, 1), {});
  }
  return out;
}

}  // namespace

Produced produce_merged(const VerifyOptions& o, const Json& golden, const Tensors& recorded) {
  const c10::InferenceMode guard;
  const auto wanted = merged_of(golden, recorded);
  Produced out;
  if (wanted.empty()) return out;
  const auto model = pipeline::ModelRepo::open(o.folder / "model");
  pipeline::Adapters adapters(model);
  for (auto weight : wanted) {
    if (!model.names(weight.component)) {  // of the one denoiser
      weight.tensor = str(weight.component, ".", weight.tensor);
      weight.component = model.experts().front();
    }
    auto refs = adapters_of(golden, weight.run);
    for (auto& ref : refs) ref.path = (o.folder / ref.path).string();
    auto changes = adapters.bind(refs);
    const auto& component = model.component(weight.component);
    const weights::AdaptedStore store(model.weights(component), std::move(changes[weight.component]));
    const weights::LayerNames names(names_of(model.family(), component),
                                    tensors_of(model.family(), component));
    auto merged = read_layer(store, names, weight);
    const auto& like = recorded.at(weight.name);
    const auto stem = weight.tensor.substr(0, weight.tensor.size() - weights::kWeightEnding.size());
    if (names.find(stem + ".added") && like.dim() > 1 && like.size(1) > merged.size(1)) {
      weight.tensor = stem + ".added.weight";
      merged = at::cat({merged, read_layer(store, names, weight)}, 1);
    }
    out.add(weight.name, merged);
  }
  return out;
}

}  // namespace atelier::verify
