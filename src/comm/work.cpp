// The handle of a running communication: whoever lets go of it waits first. What groups do without.
#include <exception>
#include <utility>

#include "comm/comm.h"

namespace atelier::comm {
namespace {

// A destructor has nobody to tell: the group is poisoned by then, so the next verb reports what went wrong.
void wait_silently(Work& work) noexcept {
  try {
    work.wait();
  } catch (const std::exception&) {
  }
}

}  // namespace

Work& Work::operator=(Work&& other) noexcept {
  if (this != &other) {
    wait_silently(*this);
    impl_ = std::move(other.impl_);
  }
  return *this;
}

Work::~Work() {
  wait_silently(*this);
}

void Work::wait() {
  if (const auto impl = std::move(impl_)) impl->wait();
}

}  // namespace atelier::comm
