// atelier serve: the server is a program of its own, which is built when it is first used.
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "app/cli/commands.h"
#include "app/run/find_model.h"
#include "base/error.h"

namespace atelier::app {

int serve_command(const Arguments& arguments) {
  const auto program = program_file().parent_path() / "atelier-serve";
  std::string name = program.string();
  std::vector<std::string> words(arguments);
  std::vector<char*> argv{name.data()};
  for (auto& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execv(name.c_str(), argv.data());
  throw Error(Kind::kUsage, str("the server cannot be started (", name, ": ", std::strerror(errno),
                                "): ./atelier serve, from the checkout, builds it"));
}

}  // namespace atelier::app
