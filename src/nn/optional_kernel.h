// A kernel of a package that may be there and yet not run: built for another driver, or for other shapes
// than it says.
#pragma once
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "nn/attention.h"

namespace atelier::nn {

// Left alone after its first failure. That concerns one process: the other ranks need not agree, because no
// message depends on which kernel attends.
class OptionalKernel {
 public:
  // What `kernel` gives; none where it throws, or has thrown before. Passed on are Error and the failures
  // that say that memory does not suffice: those are not the kernel's.
  std::optional<AttentionOutput> run(const std::function<AttentionOutput()>& kernel);
  // What it threw first, for people; empty: it has not.
  std::string failure() const;

 private:
  mutable std::mutex mutex_;  // of several ranks as threads
  std::string failure_;
};

}  // namespace atelier::nn
