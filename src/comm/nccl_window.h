// Windows in CUDA symmetric memory, for groups whose GPUs sit in one host.
#pragma once
#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <memory>
#include <string>
#include <vector>

#include "comm/comm.h"
#include "comm/guarded.h"

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace atelier::comm {

class WindowStore;

// One group's windows. Made by all of its ranks together.
class SymmetricMemory {
 public:
  SymmetricMemory(const c10::intrusive_ptr<c10d::Backend>& nccl, const c10::intrusive_ptr<c10d::Store>& store,
                  const GroupPlace& place);
  ~SymmetricMemory();
  // Null where the ranks sit in several hosts or some pair of GPUs cannot reach each other: every rank gets
  // the same answer. Throws Error(kPeer) when a rank does not ask for its window.
  Window* window(int64_t bytes, c10::Device device);

 private:
  // Do all ranks say the same, and not nothing?
  bool all_say(const std::string& mine, const std::string& question);

  std::string name_;
  c10::intrusive_ptr<WindowStore> store_;
  int rank_, size_;
  int64_t asked_ = 0;
  std::vector<std::unique_ptr<Window>> windows_;
};

}  // namespace atelier::comm
