#include "base/check.h"

#include <stdexcept>
#include <string>

namespace atelier {

void check_failed(std::string_view condition, std::string_view file, int line) {
  throw std::logic_error("internal error, please report it: " + std::string(file) + ":" +
                         std::to_string(line) + ": " + std::string(condition));
}

}  // namespace atelier
