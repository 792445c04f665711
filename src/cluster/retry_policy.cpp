#include "cluster/retry_policy.h"

namespace atelier::cluster {

bool RetryPolicy::is_hopeless(const jobs::Batch& batch, Kind kind) {
  if (kind == Kind::kUsage || kind == Kind::kCheckpoint) return true;
  if (kind != Kind::kCapacity || batch.requests.size() > 1) return false;  // the queue takes batches apart
  did_not_fit_.insert(batch.requests.front().name);
  return did_not_fit_.count(batch.requests.front().name) >= static_cast<size_t>(memory_tries_);
}

void RetryPolicy::on_failure(const jobs::Batch& batch, Kind kind, const std::string& reason) {
  if (batch.requests.empty() || is_hopeless(batch, kind)) {
    for (const auto& request : batch.requests) queue_.give_up(batch.id, request.name, reason);
    queue_.done(batch.id);
  } else {
    queue_.failed(batch.id, reason);
  }
}

}  // namespace atelier::cluster
