// A worker process: one rank, told by a supervisor what to draw.
#pragma once

namespace atelier::cluster {

// Speaks with the supervisor over this connected stream socket until it is told to stop; the socket's end
// ends the process at once. A worker that reaches its supervisor over TCP finds the frames' key and its
// greeting in the environment's ATELIER_WORKER. Returns the exit code: 0 after a stop, 1 when the supervisor
// says something else than it should.
int worker_main(int fd);

}  // namespace atelier::cluster
