// Where weights are while they are not needed.
#pragma once
#include <memory>

#include "nn/memory.h"

namespace atelier::pipeline {

// On the device; the denoiser on the device and the rest in host memory, component by component (the one that
// runs is on the device from end to end); all of it so; or the same with the denoiser block by block.
enum class Residency { kResident, kDenoiserResident, kParked, kStreamed };

// Of the denoiser, under the same.
inline Residency of_denoiser(Residency all) {
  return all == Residency::kDenoiserResident ? Residency::kResident : all;
}

// For a component that runs from end to end.
inline std::unique_ptr<nn::BlockMemory> component_memory(Residency residency) {
  if (residency == Residency::kResident) return std::make_unique<nn::Resident>();
  return std::make_unique<nn::Parked>();
}

}  // namespace atelier::pipeline
