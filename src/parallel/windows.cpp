#include "parallel/windows.h"

#include <algorithm>

namespace atelier::parallel {

comm::Window* Windows::of(comm::Comm& group, int64_t bytes) {
  const auto fits = std::find_if(kept_.begin(), kept_.end(), [&](const auto& w) { return w.bytes >= bytes; });
  if (fits != kept_.end()) return fits->window.get();
  if (bytes >= refused_) return nullptr;
  // Sizes that grow a little each time must not leave a window each.
  const int64_t roomy = kept_.empty() ? bytes : std::max(bytes, kept_.back().bytes + kept_.back().bytes / 2);
  for (const int64_t asked : {roomy, bytes}) {
    if (auto opened = group.window(asked)) return kept_.emplace_back(asked, std::move(opened)).window.get();
    if (roomy == bytes) break;
  }
  refused_ = kept_.empty() ? 0 : bytes;  // where there was none at all the peers are out of reach
  return nullptr;
}

at::Tensor tensor_in(const comm::Window& window, int rank, int64_t offset, at::IntArrayRef shape,
                     at::ScalarType type) {
  const int64_t bytes = c10::multiply_integers(shape) * static_cast<int64_t>(c10::elementSize(type));
  return window.peer(rank).narrow(0, offset, bytes).view(type).view(shape);
}

int64_t Windows::bytes() const {
  int64_t all = 0;
  for (const auto& one : kept_) all += one.bytes;
  return all;
}

}  // namespace atelier::parallel
