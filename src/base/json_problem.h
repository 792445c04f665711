// What is wrong with a JSON text, in words for those who wrote it.
#pragma once
#include <algorithm>
#include <exception>
#include <string>

namespace atelier {

// The message of an exception of the JSON library without the library's own number in front; the place of a
// value that is of another type, "(/lora/0/scale) ...", as "lora.0.scale: ...".
inline std::string json_problem(const std::exception& e) {
  std::string text = e.what();
  const auto end = text.starts_with("[json.exception.") ? text.find("] ") : std::string::npos;
  if (end != std::string::npos) text.erase(0, end + 2);
  const auto closed = text.starts_with("(/") ? text.find(") ") : std::string::npos;
  if (closed == std::string::npos) return text;
  std::string place = text.substr(2, closed - 2);
  std::replace(place.begin(), place.end(), '/', '.');
  return place + ": " + text.substr(closed + 2);
}

}  // namespace atelier
