// Whole safetensors files as tensors: golden activations, adapters, dumps.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>

#include "weights/tensor_file.h"

namespace atelier::weights {

using Tensors = std::map<std::string, at::Tensor, std::less<>>;

// Throws Error(kCheckpoint) for types that torch lacks.
at::ScalarType to_torch(DType dtype);
// Throws Error(kUsage) for types that safetensors lacks here.
DType from_torch(at::ScalarType dtype);

// Copies of all tensors, on the CPU, in their stored types. Throws as TensorFile::open and to_torch.
Tensors read_tensors(const std::filesystem::path& file);
at::Tensor read_tensor(const TensorFile& file, const TensorEntry& entry);
// From any device; atomic. Throws as SafetensorsWriter.
void write_tensors(const std::filesystem::path& file, const Tensors& tensors,
                   const FileMetadata& metadata = {});

}  // namespace atelier::weights
