#include "weights/tensors.h"

#include <ATen/ops/empty.h>

#include <array>

#include "base/error.h"
#include "base/quote.h"
#include "weights/safetensors_writer.h"

namespace atelier::weights {
namespace {

// In the order of DType.
constexpr std::array<at::ScalarType, 16> kTorchTypes{at::kDouble,
                                                     at::kFloat,
                                                     at::kHalf,
                                                     at::kBFloat16,
                                                     at::kLong,
                                                     at::kInt,
                                                     at::kByte,
                                                     at::kChar,
                                                     at::kBool,
                                                     at::kFloat8_e4m3fn,
                                                     at::kFloat8_e5m2,
                                                     at::kShort,
                                                     at::ScalarType::UInt16,
                                                     at::ScalarType::UInt32,
                                                     at::ScalarType::UInt64,
                                                     at::ScalarType::Float8_e8m0fnu};

}  // namespace

at::ScalarType to_torch(DType dtype) {
  if (!is_plain(dtype)) {
    throw Error(Kind::kCheckpoint,
                str("tensors stored as ", name_of(dtype), " are read as a model's weights only"));
  }
  return kTorchTypes[static_cast<size_t>(dtype)];
}

DType from_torch(at::ScalarType dtype) {
  for (size_t i = 0; i < kTorchTypes.size(); ++i) {
    if (kTorchTypes[i] == dtype) return static_cast<DType>(i);
  }
  throw Error(Kind::kUsage,
              str("tensors of type ", at::toString(dtype), " cannot be written to safetensors"));
}

at::Tensor read_tensor(const TensorFile& file, const TensorEntry& entry) {
  at::Tensor out = at::empty(entry.shape, at::TensorOptions(to_torch(entry.dtype)));
  file.read(entry.offset, {static_cast<std::byte*>(out.data_ptr()), static_cast<size_t>(entry.bytes)});
  return out;
}

Tensors read_tensors(const std::filesystem::path& path) {
  const auto file = TensorFile::open(path);
  Tensors out;
  for (const auto& [name, entry] : file.entries()) out.emplace(name, read_tensor(file, entry));
  return out;
}

void write_tensors(const std::filesystem::path& file, const Tensors& tensors, const FileMetadata& metadata) {
  std::vector<at::Tensor> on_host;
  std::vector<Whole> wholes;
  for (const auto& [name, tensor] : tensors) {
    const auto& t = on_host.emplace_back(tensor.to(at::kCPU).contiguous());
    wholes.push_back({{name, from_torch(t.scalar_type()), t.sizes().vec()},
                      {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()}});
  }
  write_safetensors(file, wholes, metadata);
}

}  // namespace atelier::weights
