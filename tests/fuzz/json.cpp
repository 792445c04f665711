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
    const std::string_view what = e.what();
    const auto says = [&](std::string_view words) { return what.find(words) != std::string_view::npos; };
    if (e.kind() != Kind::kCheckpoint || !(says("is not valid JSON") || says("nests deeper than"))) std::abort();
  }
  return 0;
}
