// The one exception type that crosses rooms. Its kind decides the exit code and the HTTP status, once, in
// app/.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace atelier {

enum class Kind {
  kUsage,        // the request is wrong: exit 2
  kCheckpoint,   // the model's files are wrong: exit 2
  kCapacity,     // does not fit in memory or on disk: exit 3
  kPeer,         // another rank, or a server that is asked, failed or went silent: exit 1
  kItem,         // one item of work failed, others may go on: exit 1
  kInterrupted,  // Ctrl-C or SIGTERM: exit 130
};

// A message for a person: what was asked, what was found, what to do.
class Error : public std::runtime_error {
 public:
  Error(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// Exit code of the command line for an error of this kind.
int exit_code(Kind kind);

// Concatenates anything that has operator<<.
template <class... Args>
std::string str(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

}  // namespace atelier
