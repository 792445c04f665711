// What a file format can hold.
#pragma once
#include <cstdint>
#include <string>

#include "media/image.h"

namespace atelier::media {

// Why a picture of this size does not fit into a file of this format; empty if it does.
std::string size_problem(Format format, int64_t width, int64_t height);

}  // namespace atelier::media
