// What the watch knows of a group.
#pragma once
#include <string>

#include "comm/checked.h"

namespace atelier::comm {

struct GroupPlace {
  GroupKey key;
  int rank = 0;  // within the group
};

// What a watch poisons: one group of one rank.
class AbortableGroup {
 public:
  virtual ~AbortableGroup() = default;
  virtual const GroupPlace& place() const = 0;
  // Wakes everybody who waits on this rank, with this reason. The first reason is kept. From any thread, and
  // may block.
  virtual void poison(const std::string& reason) noexcept = 0;
};

}  // namespace atelier::comm
