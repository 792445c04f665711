// atelier serve: from flags to a server that draws until it is told to end.
#pragma once
#include "app/cli/commands.h"

namespace atelier::server {

// The exit code: 0 after SIGTERM, 130 after Ctrl-C. Throws Error as other commands do.
int serve(const app::Arguments& arguments);

}  // namespace atelier::server
