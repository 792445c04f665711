// atelier worker: one rank of a run that another process of this program leads. Not for people.
#include <charconv>

#include "app/cli/commands.h"
#include "base/error.h"
#include "cluster/worker.h"

namespace atelier::app {

int worker_command(const Arguments& arguments) {
  int fd = -1;
  if (arguments.size() == 2 && arguments[0] == "--fd") {
    std::from_chars(arguments[1].data(), arguments[1].data() + arguments[1].size(), fd);
  }
  if (fd < 0) throw Error(Kind::kUsage, "worker is started by the program itself; use t2i");
  return cluster::worker_main(fd);
}

}  // namespace atelier::app
