// Safetensors files: the header is parsed and checked in full before any tensor is touched. Torch-free.
// Format: 8 bytes of little-endian header length, a JSON header, then the tensors' bytes without holes.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::weights {

enum class DType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kU8, kI8, kBool, kF8E4M3, kF8E5M2 };

// The name used in headers, such as "BF16".
std::string_view name_of(DType dtype);
// Bytes of one element.
int64_t size_of(DType dtype);
std::optional<DType> find_dtype(std::string_view name);

// What a header promises about one tensor.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  // Bytes of the whole tensor; the shape must have been checked.
  int64_t bytes() const;
};

using Metadata = std::map<std::string, std::string>;

struct TensorEntry {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // of the first byte, from the start of the file
  int64_t bytes = 0;
};

using Entries = std::map<std::string, TensorEntry, std::less<>>;

// One open file. Tensors may lie at any byte offset (older writers do not align): use read().
class SafetensorsFile {
 public:
  // Headers longer than this are refused.
  static constexpr int64_t kMaxHeaderBytes = 100'000'000;

  // Throws Error(kCheckpoint) that names the file, the tensor and what is wrong: truncated, lying lengths,
  // not JSON, duplicate names, unknown types, shapes that overflow, offsets out of range, overlapping or with
  // holes.
  static SafetensorsFile open(const std::filesystem::path& path);

  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&& other) noexcept;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  ~SafetensorsFile();

  const std::filesystem::path& path() const { return path_; }
  const Entries& entries() const { return entries_; }
  const Metadata& metadata() const { return metadata_; }

  // Copies file bytes [offset, offset + out.size()). Any thread. Throws Error(kCheckpoint) when the file is
  // shorter by now or the disk fails.
  void read(int64_t offset, std::span<std::byte> out) const;

 private:
  SafetensorsFile() = default;

  std::filesystem::path path_;
  Entries entries_;
  Metadata metadata_;
  int fd_ = -1;
};

// Parses and checks a header that stands before `data_bytes` bytes of tensors and fills the two maps; offsets
// are from the start of the file. Throws Error(kCheckpoint) whose message starts with `file`. Open to
// fuzzing.
void parse_header(std::string_view file, std::string_view header, int64_t data_bytes, Entries& entries,
                  Metadata& metadata);

}  // namespace atelier::weights
