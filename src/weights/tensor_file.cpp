#include "weights/tensor_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "base/quote.h"
#include "weights/gguf.h"
#include "weights/names.h"
#include "weights/safetensors.h"

namespace atelier::weights {
namespace {

static_assert(std::endian::native == std::endian::little, "files of tensors are little-endian");

struct TypeRow {
  std::string_view name;
  NumberBlock block;
  bool is_integer = false, is_gguf = false;
};

// In the order of DType.
constexpr std::array<TypeRow, 25> kTypes{{{"F64", {1, 8}},
                                          {"F32", {1, 4}},
                                          {"F16", {1, 2}},
                                          {"BF16", {1, 2}},
                                          {"I64", {1, 8}, true},
                                          {"I32", {1, 4}, true},
                                          {"U8", {1, 1}, true},
                                          {"I8", {1, 1}, true},
                                          {"BOOL", {1, 1}, true},
                                          {"F8_E4M3", {1, 1}},
                                          {"F8_E5M2", {1, 1}},
                                          {"I16", {1, 2}, true},
                                          {"U16", {1, 2}, true},
                                          {"U32", {1, 4}, true},
                                          {"U64", {1, 8}, true},
                                          {"F8_E8M0", {1, 1}},
                                          {"F4", {2, 1}},
                                          {"Q4_0", {32, 18}, false, true},
                                          {"Q4_1", {32, 20}, false, true},
                                          {"Q5_0", {32, 22}, false, true},
                                          {"Q5_1", {32, 24}, false, true},
                                          {"Q8_0", {32, 34}, false, true},
                                          {"Q4_K", {256, 144}, false, true},
                                          {"Q5_K", {256, 176}, false, true},
                                          {"Q6_K", {256, 210}, false, true}}};

const TypeRow& row_of(DType dtype) {
  return kTypes[static_cast<size_t>(dtype)];
}

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& what) {
  throw Error(Kind::kCheckpoint, str(path.string(), ": ", what));
}

// What a file that is no safetensors file may be instead.
std::string guess(std::string_view start) {
  if (start.starts_with("version https://git-lfs"))
    return "it is a Git LFS pointer: run git lfs pull, or download it";
  if (start.starts_with("PK") || start.starts_with("\x80\x02")) {
    return "it is a PyTorch pickle, which could run code: convert it to safetensors";
  }
  if (start.starts_with('<')) return "it is a web page: download the file again";
  return "it is not a safetensors or GGUF file, or it is damaged: download it again";
}

}  // namespace

std::string_view name_of(DType dtype) {
  return row_of(dtype).name;
}

NumberBlock block_of(DType dtype) {
  return row_of(dtype).block;
}

bool is_plain(DType dtype) {
  return row_of(dtype).block.elements == 1;
}

bool is_integer(DType dtype) {
  return row_of(dtype).is_integer;
}

int64_t size_of(DType dtype) {
  ENSURE(is_plain(dtype));
  return row_of(dtype).block.bytes;
}

std::optional<DType> find_dtype(std::string_view name) {
  for (size_t i = 0; i < kTypes.size(); ++i) {
    if (kTypes[i].name == name && !kTypes[i].is_gguf) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::optional<int64_t> checked_bytes(DType dtype, std::span<const int64_t> shape) {
  if (std::find(shape.begin(), shape.end(), 0) != shape.end()) return 0;
  const NumberBlock block = block_of(dtype);
  int64_t elements = 1, bytes = 0;
  for (const int64_t n : shape) {
    if (__builtin_mul_overflow(elements, n, &elements)) return std::nullopt;
  }
  if (elements % block.elements != 0) return std::nullopt;
  if (__builtin_mul_overflow(elements / block.elements, block.bytes, &bytes)) return std::nullopt;
  return bytes;
}

int64_t TensorSpec::bytes() const {
  return checked_bytes(dtype, shape).value();
}

TensorFile::TensorFile(TensorFile&& other) noexcept {
  *this = std::move(other);
}

TensorFile& TensorFile::operator=(TensorFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(entries_, other.entries_);
  std::swap(metadata_, other.metadata_);
  std::swap(fd_, other.fd_);
  return *this;
}

TensorFile::~TensorFile() {
  if (fd_ >= 0) ::close(fd_);
}

TensorFile TensorFile::open(const std::filesystem::path& path) {
  TensorFile file;
  file.path_ = path;
  // O_NONBLOCK: opening a named pipe must not hang.
  file.fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file.fd_ < 0) fail(path, str("cannot open it: ", std::strerror(errno)));
  struct stat status = {};
  if (::fstat(file.fd_, &status) != 0 || !S_ISREG(status.st_mode)) fail(path, "it is not a regular file");
  const int64_t size = status.st_size;
  std::array<char, 32> start{};
  const auto begin = std::as_writable_bytes(std::span(start))
                         .first(std::min<size_t>(start.size(), static_cast<size_t>(size)));
  file.read(0, begin);
  const std::string_view text(start.data(), begin.size());
  if (is_gguf(text)) {
    parse_gguf(path.string(), {size, [&](int64_t at, std::span<std::byte> out) { file.read(at, out); }},
               file.entries_, file.metadata_);
  } else {
    file.open_safetensors(size, text);
  }
  file.unwrap();
  ::posix_fadvise(file.fd_, 0, 0, POSIX_FADV_SEQUENTIAL);
  return file;
}

void TensorFile::unwrap() {
  Entries plain;
  for (auto& [name, entry] : entries_) {
    const auto [at, fresh] = plain.try_emplace(unwrapped(name), std::move(entry));
    if (!fresh)
      fail(path_, str("it holds ", in_quotes(at->first), " twice, once under ", in_quotes(name),
                      ", as training wraps it; remove one of them"));
  }
  entries_ = std::move(plain);
}

void TensorFile::open_safetensors(int64_t size, std::string_view start) {
  if (size < 8 + 2) fail(path_, str("it has only ", size, " bytes; ", guess(start)));
  uint64_t length = 0;
  std::memcpy(&length, start.data(), sizeof length);
  if (length > kMaxHeaderBytes) {
    fail(path_, str("the header claims ", length, " bytes, more than ", kMaxHeaderBytes, "; ", guess(start)));
  }
  const auto header_bytes = static_cast<int64_t>(length);
  if (header_bytes > size - 8) {
    fail(path_, str("truncated: the header needs ", header_bytes, " bytes, the file has ", size - 8, "; ",
                    guess(start)));
  }
  std::string header(static_cast<size_t>(header_bytes), '\0');
  read(8, std::as_writable_bytes(std::span(header)));
  parse_header(path_.string(), header, size - 8 - header_bytes, entries_, metadata_);
}

void TensorFile::read(int64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(path_, str("cannot read it: ", std::strerror(errno)));
    if (n == 0) fail(path_, str("it ends at byte ", offset, ", it became shorter while it was read"));
    out = out.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

}  // namespace atelier::weights
