// What pipelines do to a prompt before they tokenize it.
#pragma once
#include <string>
#include <string_view>

namespace atelier::text {

// Python's text.lower().strip(), which the pipelines of DeepFloyd's line begin with: a capital sigma that
// ends a word becomes a final one. Malformed bytes become U+FFFD.
std::string lower_stripped(std::string_view text);

// What Wan's pipelines do where ftfy is not installed: character references of HTML replaced twice, white
// space at the ends left out, all other runs of it one blank (diffusers pipeline_wan.py, prompt_clean).
// Malformed bytes become U+FFFD.
std::string unescaped(std::string_view text);

}  // namespace atelier::text
