#include "base/json.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/files.h"

namespace atelier {

Json read_json(const std::filesystem::path& file) {
  const std::string text = read_file(file);
  try {
    return Json::parse(text);
  } catch (const Json::parse_error& e) {
    throw Error(Kind::kCheckpoint, str(file.string(), " is not valid JSON: ", e.what()));
  }
}

void write_json(const std::filesystem::path& file, const Json& value) {
  write_file_atomically(file, value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace atelier
