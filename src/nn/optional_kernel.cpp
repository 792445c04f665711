#include "nn/optional_kernel.h"

#include <c10/util/Exception.h>

#include "base/error.h"

namespace atelier::nn {

std::optional<AttentionOutput> OptionalKernel::run(const std::function<AttentionOutput()>& kernel) {
  if (!failure().empty()) return std::nullopt;
  std::string why;
  try {
    return kernel();
  } catch (const Error&) {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const c10::Error& e) {
    why = e.what_without_backtrace();
  } catch (const std::runtime_error& e) {
    why = e.what();
  }
  const std::scoped_lock lock(mutex_);
  if (failure_.empty()) failure_ = why.empty() ? "for no reason that it tells" : why;
  return std::nullopt;
}

std::string OptionalKernel::failure() const {
  const std::scoped_lock lock(mutex_);
  return failure_;
}

}  // namespace atelier::nn
