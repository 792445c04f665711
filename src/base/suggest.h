// What somebody may have meant by a name that is not known.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace atelier {

// The candidate that other tools call by this name ("steps": num_inference_steps), else the one that is a
// slip of the keyboard away; empty if there is none: a wrong guess is worse than no guess.
std::string suggestion(std::string_view name, std::span<const std::string> candidates);
// "; did you mean NAME?", or `otherwise` where nothing is near.
std::string did_you_mean(std::string_view name, std::span<const std::string> candidates,
                         std::string_view otherwise = "");

}  // namespace atelier
