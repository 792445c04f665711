// The command line: which command, which flags, which exit code.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace atelier::app {

// Exit codes: 0 done; 1 some item or comparison failed; 2 wrong usage or unusable model; 3 does not fit; 130
// interrupted. Errors are one line on stderr.
int main(int argc, char** argv);
// The same around another program's own work.
int run_guarded(const std::function<int()>& run);

// --a-b and --a_b are one flag; what follows '=' and everything behind "--" stays as it is.
std::vector<std::string> one_spelling(std::vector<std::string> arguments);

}  // namespace atelier::app
