#include "base/process_state.h"

#include <fstream>
#include <iterator>
#include <string>

#include "base/error.h"

namespace atelier {

char process_state(pid_t process) {
  std::ifstream file(str("/proc/", process, "/stat"));
  const std::string text((std::istreambuf_iterator<char>(file)), {});
  const size_t name_end = text.rfind(") ");  // the name itself may hold anything
  return name_end != std::string::npos && name_end + 2 < text.size() ? text[name_end + 2] : '\0';
}

}  // namespace atelier
