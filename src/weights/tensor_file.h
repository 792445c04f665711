// Files of tensors, safetensors or GGUF: the header is parsed and checked in full before any tensor
// is touched. Torch-free.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::weights {

// How a tensor's numbers are stored. Those from kF4 on are stored in blocks, of which only some
// can be decoded.
enum class DType : uint8_t {
  kF64,
  kF32,
  kF16,
  kBF16,
  kI64,
  kI32,
  kU8,
  kI8,
  kBool,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kU32,
  kU64,
  kF8E8M0,
  kF4,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ4_K,
  kQ5_K,
  kQ6_K
};

// Consecutive elements that are stored together.
struct NumberBlock {
  int64_t elements = 1, bytes = 0;
};

// The name used in headers and messages, such as "BF16" or "Q4_K".
std::string_view name_of(DType dtype);
NumberBlock block_of(DType dtype);
// One element, one or more bytes.
bool is_plain(DType dtype);
bool is_integer(DType dtype);
// Bytes of one element of a plain type.
int64_t size_of(DType dtype);
// By its name in a safetensors header.
std::optional<DType> find_dtype(std::string_view name);
// Bytes of a tensor; nothing if the product does not fit 63 bits or the elements do not fill the last block.
std::optional<int64_t> checked_bytes(DType dtype, std::span<const int64_t> shape);

// What a header promises about one tensor.
struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  // Bytes of the whole tensor; the shape must have been checked.
  int64_t bytes() const;
};

using FileMetadata = std::map<std::string, std::string>;

struct TensorEntry {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // of the first byte, from the start of the file
  int64_t bytes = 0;
};

using Entries = std::map<std::string, TensorEntry, std::less<>>;

// The bytes of a file, or of something that looks like one.
struct ByteSource {
  int64_t size = 0;
  std::function<void(int64_t offset, std::span<std::byte>)> read;  // within the size
};

// One open file. Tensors may lie at any byte offset (older writers do not align): use read().
class TensorFile {
 public:
  // Safetensors headers longer than this are refused.
  static constexpr int64_t kMaxHeaderBytes = 100'000'000;

  // What it is, its first bytes say. Names are without what training wraps around them (weights/names.h).
  // Throws Error(kCheckpoint) that names the file, the tensor and what is wrong: truncated, lying lengths,
  // broken headers, duplicate names, types that are not read here, shapes that overflow, offsets out of
  // range, overlapping or (safetensors) with holes; one tensor with and without a wrapper in its name.
  static TensorFile open(const std::filesystem::path& path);

  TensorFile(TensorFile&& other) noexcept;
  TensorFile& operator=(TensorFile&& other) noexcept;
  TensorFile(const TensorFile&) = delete;
  TensorFile& operator=(const TensorFile&) = delete;
  ~TensorFile();

  const std::filesystem::path& path() const { return path_; }
  const Entries& entries() const { return entries_; }
  const FileMetadata& metadata() const { return metadata_; }

  // Copies file bytes [offset, offset + out.size()). Any thread. Throws Error(kCheckpoint) when the file is
  // shorter by now or the disk fails.
  void read(int64_t offset, std::span<std::byte> out) const;

 private:
  TensorFile() = default;
  void open_safetensors(int64_t size, std::string_view start);
  void unwrap();

  std::filesystem::path path_;
  Entries entries_;
  FileMetadata metadata_;
  int fd_ = -1;
};

}  // namespace atelier::weights
