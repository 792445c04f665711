// What is wrong with a JSON text, in words for those who wrote it.
#pragma once
#include <algorithm>
#include <exception>
#include <string>

namespace atelier {

// The message of an exception of the JSON library, without the library's number in front and the names of its
// functions; the place of a value that is of another type, "(/lora/0/scale) ...", as "lora.0.scale: ...".
inline std::string json_problem(const std::exception& e) {
  std::string text = e.what();
  const auto end = text.starts_with("[json.exception.") ? text.find("] ") : std::string::npos;
  if (end != std::string::npos) text.erase(0, end + 2);
  std::string place;
  const auto closed = text.starts_with("(/") ? text.find(") ") : std::string::npos;
  if (closed != std::string::npos) {
    place = text.substr(2, closed - 2) + ": ";
    std::replace(place.begin(), place.end(), '/', '.');
    text.erase(0, closed + 2);
  }
  // "cannot use at() with number", "cannot use operator[] with a string argument with null"
  const auto with = text.starts_with("cannot use ") ? text.rfind(" with ") : std::string::npos;
  if (with == std::string::npos) return place + text;
  const std::string found = text.substr(with + 6);
  return place +
         (found == "object"  ? "a list"
          : found == "array" ? "an object"
                             : "an object or a list") +
         " was expected, found " +
         (found == "null"                     ? ""
          : found.find_first_of("aeiou") == 0 ? "an "
                                              : "a ") +
         found;
}

}  // namespace atelier
