#include "verify/golden_files.h"

#include <stdlib.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/error.h"

namespace atelier::verify {
namespace fs = std::filesystem;
namespace {

bool is_file(const Json& value) {
  return value.is_object() && value.size() == 1 && value.contains("png");
}

bool are_files(const Json& value) {
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), is_file);
}

}  // namespace

FrameFolders::~FrameFolders() {
  std::error_code ignored;
  if (!place_.empty()) fs::remove_all(place_, ignored);
}

fs::path FrameFolders::of(const Json& pictures, const fs::path& root) {
  if (place_.empty()) {
    std::string name = (fs::temp_directory_path() / "atelier-frames-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw Error(Kind::kUsage, str("cannot make a folder like ", name));
    place_ = name;
  }
  fs::path folder = place_ / std::to_string(count_++);
  fs::create_directory(folder);
  for (size_t i = 0; i < pictures.size(); ++i) {
    const fs::path file = fs::absolute(root / pictures[i].at("png").get<std::string>());
    std::string number = std::to_string(i);
    number.insert(0, 6 - std::min<size_t>(6, number.size()), '0');
    fs::create_symlink(file, folder / (number + file.extension().string()));
  }
  return folder;
}

Json with_files(const Json& call, const fs::path& root, FrameFolders& frames) {
  Json out = Json::object();
  for (const auto& [key, value] : call.items()) {
    if (key == "reference_images" && is_file(value)) {
      out[key] = Json::array({value.at("png")});
    } else if (key == "reference_images" && are_files(value)) {
      out[key] = Json::array();
      for (const auto& one : value) out[key].push_back(one.at("png"));
    } else if (is_file(value)) {
      out[key] = value.at("png");
    } else if (are_files(value)) {
      const auto name = key == "video" ? "control_video" : key == "mask" ? "mask_video" : key;
      out[name] = frames.of(value, root).string();
    } else if (key == "conditioning_scale" && value.is_number()) {
      out[key] = value.dump();
    } else if (key == "conditioning_scale" && value.is_array()) {
      std::string numbers;
      for (const auto& number : value) numbers += (numbers.empty() ? "" : ",") + number.dump();
      out[key] = numbers;
    } else {
      out[key] = value;
    }
  }
  return out;
}

}  // namespace atelier::verify
