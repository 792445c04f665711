// The header of safetensors files. Torch-free.
// Format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes without holes.
#pragma once
#include <cstdint>
#include <string_view>

#include "weights/tensor_file.h"

namespace atelier::weights {

// Parses and checks a header that stands before `data_bytes` bytes of tensors and fills the two maps; offsets
// are from the start of the file. Throws Error(kCheckpoint) whose message starts with `file`. Open to
// fuzzing.
void parse_header(std::string_view file, std::string_view header, int64_t data_bytes, Entries& entries,
                  FileMetadata& metadata);

}  // namespace atelier::weights
