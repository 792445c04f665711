// A text encoder whose layers are blocks of its builder's memory: their weights need not all be in
// place at once.
#pragma once
#include <functional>
#include <utility>

namespace atelier::models {

class BlockedEncoder {
 public:
  virtual ~BlockedEncoder() = default;
  virtual int blocks() const = 0;
  // Called before each block of encode(), in order, with its number. Unset: all weights are in place.
  void on_block(std::function<void(int)> before) { before_ = std::move(before); }

 protected:
  void reach(int block) const {
    if (before_) before_(block);
  }

 private:
  std::function<void(int)> before_;
};

}  // namespace atelier::models
