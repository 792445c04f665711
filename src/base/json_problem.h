// What is wrong with a JSON text, in words for those who wrote it.
#pragma once
#include <exception>
#include <string>

namespace atelier {

// The message of an exception of the JSON library without the library's own number in front.
inline std::string json_problem(const std::exception& e) {
  const std::string text = e.what();
  const auto end = text.starts_with("[json.exception.") ? text.find("] ") : std::string::npos;
  return end == std::string::npos ? text : text.substr(end + 2);
}

}  // namespace atelier
