// Windows of a group as exchanges want them: of a size that grows, one for each exchange that is under way.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "comm/comm.h"

namespace atelier::parallel {

// Windows of growing size. All are kept: recorded graphs know their addresses.
class Windows {
 public:
  // Of at least this many bytes, which every rank asks for alike; null where there can be none.
  comm::Window* of(comm::Comm& group, int64_t bytes);
  int64_t bytes() const;  // of this rank's memory

 private:
  struct SizedWindow {
    int64_t bytes = 0;
    std::unique_ptr<comm::Window> window;
    SizedWindow(int64_t n, std::unique_ptr<comm::Window> w) : bytes(n), window(std::move(w)) {}
  };
  std::vector<SizedWindow> kept_;
  int64_t refused_ = INT64_MAX;  // the least number of bytes for which there was none
};

// A contiguous tensor of this shape in the window of a rank, from this byte on.
at::Tensor tensor_in(const comm::Window& window, int rank, int64_t offset, at::IntArrayRef shape,
                     at::ScalarType type);

// Memory that no exchange under way holds; every rank begins and ends its exchanges in the same order, so all
// of them find the same.
template <class Memory>
std::shared_ptr<Memory> unused(std::vector<std::shared_ptr<Memory>>& all) {
  for (const auto& one : all) {
    if (one.use_count() == 1) return one;
  }
  return all.emplace_back(std::make_shared<Memory>());
}

}  // namespace atelier::parallel
