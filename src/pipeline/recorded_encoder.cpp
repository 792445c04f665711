#include "pipeline/recorded_encoder.h"

#include <ATen/TensorOperators.h>

#include "base/error.h"

namespace atelier::pipeline {
namespace {

constexpr size_t kMostKinds = 4;

// The same memory from the second time on.
void keep(at::Tensor& kept, const at::Tensor& value) {
  if (!value.defined()) return;
  if (kept.defined()) {
    kept.copy_(value);
  } else {
    kept = value.clone();
  }
}

at::Tensor copied(const at::Tensor& t) {
  return t.defined() ? t.clone() : at::Tensor();
}

// After which layer, counted from the end, without the final norm; 0: behind it.
const at::Tensor& states_of(const models::EncoderOutput& e, int layer) {
  if (layer == 0) return e.states;
  const auto back = static_cast<size_t>(-layer);
  if (back > e.hidden.size()) {
    throw Error(Kind::kUsage,
                str("states ", back, " layers from the end were asked for, but the text encoder ", "has ",
                    e.hidden.size() - 1, " layers; lower clip_skip"));
  }
  return e.hidden[e.hidden.size() - back];
}

}  // namespace

RecordedEncoder::RecordedEncoder(std::unique_ptr<models::TextEncoder> encoder, c10::Device device,
                                 std::unique_ptr<GraphBackend> graphs)
    : encoder_(std::move(encoder)), device_(device), graphs_(std::move(graphs)) {}

RecordedEncoder::Result RecordedEncoder::encode(const at::Tensor& ids, const at::Tensor& mask, int layer) {
  const auto key = str(ids.size(1), mask.defined() ? " masked " : " ", layer);
  if (!buffers_.contains(key) && buffers_.size() == kMostKinds) {
    for (const auto& [kind, b] : buffers_) graphs_.forget(b.id);
    buffers_.clear();
  }
  auto& b = buffers_[key];
  if (b.id == 0) b.id = next_id_++;
  keep(b.ids, b.ids.defined() ? ids : ids.to(device_));
  keep(b.mask, b.mask.defined() || !mask.defined() ? mask : mask.to(device_));
  graphs_.run({.buffers = b.id}, [&] { run(b, layer); });
  return {{copied(b.out.states), copied(b.out.pooled), copied(b.out.projected), {}},
          b.is_finite.item<bool>()};
}

void RecordedEncoder::run(EncoderBuffers& b, int layer) const {
  const auto e = encoder_->encode(b.ids, b.mask);
  const auto states = states_of(e, layer);
  keep(b.out.states, states);
  keep(b.out.pooled, e.pooled);
  keep(b.out.projected, e.projected);
  auto is_finite = states.isfinite().all();
  for (const auto& t : {e.pooled, e.projected}) {
    if (t.defined()) is_finite = is_finite.logical_and(t.isfinite().all());
  }
  keep(b.is_finite, is_finite);
}

}  // namespace atelier::pipeline
