// Which line of a prompt file has which index, in four bytes for each where they count from 0.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace atelier::request {

class IndexLines {
 public:
  // The line that has it already; 0: none, and this one has it from now on.
  int64_t take(int64_t index, int64_t line) {
    constexpr int64_t kDense = 1 << 24;
    if (index >= kDense || line > INT32_MAX) {
      const auto [at, is_new] = far_.emplace(index, line);
      return is_new ? 0 : at->second;
    }
    const auto i = static_cast<size_t>(index);
    if (i >= near_.size()) near_.resize(std::max(i + 1, 2 * near_.size()));
    if (near_[i] == 0) return near_[i] = static_cast<int32_t>(line), 0;
    return near_[i];
  }

 private:
  std::vector<int32_t> near_;
  std::unordered_map<int64_t, int64_t> far_;
};

}  // namespace atelier::request
