// The server: a program of its own, which is also its own workers.
#include <algorithm>
#include <string>

#include "app/cli/cli.h"
#include "app/cli/commands.h"
#include "server/serve.h"

int main(int argc, char** argv) {
  using namespace atelier;
  return app::run_guarded([&] {
    const app::Arguments all(argv + std::min(argc, 1), argv + argc);
    if (!all.empty() && all[0] == "worker") return app::worker_command({all.begin() + 1, all.end()});
    return server::serve(app::one_spelling(all));
  });
}
