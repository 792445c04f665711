// The header of GGUF files, the container of ggml. Torch-free.
// Format: "GGUF", version, counts, key-value pairs, a record per tensor (dimensions from the innermost one),
// then the aligned bytes of the tensors.
#pragma once
#include <string_view>

#include "weights/tensor_file.h"

namespace atelier::weights {

// Whether a file that begins like this is one.
bool is_gguf(std::string_view start);

// Parses and checks the header, fills the two maps and leaves the tensors alone. Shapes are turned to the
// order of torch; "comfy.gguf.orig_shape.NAME" (what the file's writer flattened) replaces them. Metadata
// holds texts and single numbers, as text; lists are passed over. Throws Error(kCheckpoint) whose message
// starts with `file`: broken or truncated, another version, big-endian, a part of a split file, tensors of
// types that are not read here. Reads piece by piece and allocates no more than it has read. Open to fuzzing.
void parse_gguf(std::string_view file, const ByteSource& source, Entries& entries, FileMetadata& metadata);

}  // namespace atelier::weights
