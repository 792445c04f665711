// A worker process: one rank of a replica, told by a pool what to draw.
#pragma once
#include "cluster/runner.h"

namespace atelier::cluster {

// Speaks with the pool over this connected stream socket until it is told to stop; the socket's end ends the
// process at once. A worker that reaches its pool over TCP finds the frames' key and its greeting in the
// environment's ATELIER_WORKER. Returns the exit code: 0 after a stop, 1 when the pool says something else
// than it should.
int worker_main(int fd, const MakeRunner& make_runner);
// With ModelRunner.
int worker_main(int fd);

}  // namespace atelier::cluster
