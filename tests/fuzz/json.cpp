// Fuzzes the reader of JSON files: it returns a value that survives being written, or throws Error(kCheckpoint).
#include "base/json.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/error.h"

using namespace atelier;

namespace {

// A file in memory, so that millions of inputs touch no disk.
const std::string& file_with(const uint8_t* data, size_t size) {
  static const int fd = ::memfd_create("fuzz", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  const auto length = static_cast<ssize_t>(size);
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, data, size, 0) != length) std::abort();
  return path;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Json value = read_json(file_with(data, size));
    const std::string written = value.dump(2, ' ', false, Json::error_handler_t::replace);
    if (!Json::accept(written)) std::abort();
  } catch (const Error& e) {
    if (e.kind() != Kind::kCheckpoint || std::string_view(e.what()).find("is not valid JSON") == std::string_view::npos) {
      std::abort();
    }
  }
  return 0;
}
