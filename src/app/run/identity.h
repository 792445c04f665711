// Which model made a picture: what its files hold, whatever they are called and wherever they lie.
#pragma once
#include <span>
#include <string_view>

#include "app/run/find_model.h"
#include "base/fingerprint.h"
#include "base/json.h"

namespace atelier::app {

// One key for each part that is read from files, such as "transformer_hash"; the values are 16 hexadecimal
// digits, behind "fast:" where some file was too large to be read whole. denoisers: the parts whose weights a
// single file stands for. Empty for built-in random weights. Throws
// Error(kUsage) for a file that cannot be read.
Json hashes_of(const pipeline::ModelSpec& spec, std::span<const std::string_view> denoisers, Depth depth);

}  // namespace atelier::app
