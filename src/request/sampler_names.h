// Samplers by the names that they have elsewhere.
#pragma once
#include <string>
#include <string_view>

namespace atelier::request {

// Of this program, for one of diffusers (a class's name), ComfyUI and its wrappers, or AUTOMATIC1111, in
// small letters: "dpmpp_2m_karras" for "dpm++ 2m karras". A word that is none of these comes back as it is.
std::string sampler_named(std::string_view word);

}  // namespace atelier::request
