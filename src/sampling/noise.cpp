#include "sampling/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/randn.h>

#include "base/check.h"

namespace atelier::sampling {

NoiseSource::NoiseSource(std::span<const uint64_t> seeds, at::IntArrayRef size) : size_(size.vec()) {
  for (const uint64_t seed : seeds) generators_.push_back(at::detail::createCPUGenerator(seed));
}

at::Tensor NoiseSource::draw(int step) {
  ENSURE(step >= last_);
  if (step == last_) return drawn_;
  std::vector<at::Tensor> each;
  for (auto& generator : generators_)
    each.push_back(at::randn(size_, generator, at::TensorOptions(at::kFloat)));
  last_ = step;
  return drawn_ = at::cat(each);
}

}  // namespace atelier::sampling
