// Who draws the pictures of a job: worker processes under a supervisor, alone or under a launcher's.
#include "base/error.h"
#include "cluster/job.h"
#include "cluster/launch/launch.h"
#include "cluster/supervisor.h"

namespace atelier::cluster {

RunResult run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop) {
  if (queue.is_finished()) return {.failures = queue.failures()};
  return Supervisor(job, queue, events, std::move(stop), nullptr).run();
}

RunResult run_job(const Job& job, jobs::Queue& queue, const Events& events, std::stop_token stop,
                  Coordinator& coordinator) {
  const auto& env = coordinator.env();
  if (const int world = plan::world_size(job.engine.layout); world != env.size) {
    throw Error(Kind::kUsage,
                str(env.launcher, " has started ", env.size, " ranks, the layout needs ",
                    plan::product(job.engine.layout), "; start ", world, " or change the degrees"));
  }
  if (queue.is_finished()) return {.failures = queue.failures()};
  return Supervisor(job, queue, events, std::move(stop), &coordinator).run();
}

}  // namespace atelier::cluster
