#include "weights/gguf.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/quote.h"

namespace atelier::weights {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kShapeKey = "comfy.gguf.orig_shape.";
constexpr uint64_t kMostPairs = 100'000, kMostTensors = 100'000, kMostDims = 8, kMostName = 4096;
constexpr uint64_t kMostValueText = 1 << 16;  // of a value that is kept
constexpr int kDeepestList = 4;

enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kList, kU64, kI64, kF64 };
constexpr std::array<int64_t, 13> kValueBytes{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

// Of ggml's table of types; those without a DType are named and refused.
struct GgufType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype = std::nullopt;
};
constexpr GgufType kGgufTypes[] = {{0, "F32", DType::kF32},
                                   {1, "F16", DType::kF16},
                                   {2, "Q4_0", DType::kQ4_0},
                                   {3, "Q4_1", DType::kQ4_1},
                                   {6, "Q5_0", DType::kQ5_0},
                                   {7, "Q5_1", DType::kQ5_1},
                                   {8, "Q8_0", DType::kQ8_0},
                                   {9, "Q8_1"},
                                   {10, "Q2_K"},
                                   {11, "Q3_K"},
                                   {12, "Q4_K", DType::kQ4_K},
                                   {13, "Q5_K", DType::kQ5_K},
                                   {14, "Q6_K", DType::kQ6_K},
                                   {15, "Q8_K"},
                                   {16, "IQ2_XXS"},
                                   {17, "IQ2_XS"},
                                   {18, "IQ3_XXS"},
                                   {19, "IQ1_S"},
                                   {20, "IQ4_NL"},
                                   {21, "IQ3_S"},
                                   {22, "IQ2_S"},
                                   {23, "IQ4_XS"},
                                   {24, "I8", DType::kI8},
                                   {25, "I16", DType::kI16},
                                   {26, "I32", DType::kI32},
                                   {27, "I64", DType::kI64},
                                   {28, "F64", DType::kF64},
                                   {29, "IQ1_M"},
                                   {30, "BF16", DType::kBF16},
                                   {34, "TQ1_0"},
                                   {35, "TQ2_0"},
                                   {39, "MXFP4"},
                                   {40, "NVFP4"},
                                   {41, "Q1_0"}};

// Reads forward, a buffer at a time.
class Cursor {
 public:
  Cursor(std::string_view file, const ByteSource& source) : file_(file), source_(source) {}

  int64_t position() const { return begin_ + static_cast<int64_t>(used_); }
  uint64_t left() const { return static_cast<uint64_t>(source_.size - position()); }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(Kind::kCheckpoint, str(file_, ": ", what));
  }
  // That so many bytes are still there; `what` names them.
  void need(uint64_t bytes, std::string_view what) const {
    if (bytes > left()) {
      fail(str("truncated: ", what, " needs ", bytes, " bytes at ", position(), ", the file has ",
               source_.size, "; download it again"));
    }
  }

  void read(std::span<std::byte> out) {
    need(out.size(), "the header");
    while (!out.empty()) {
      if (used_ == filled_) refill();
      const size_t n = std::min(out.size(), filled_ - used_);
      std::memcpy(out.data(), buffer_.data() + used_, n);
      used_ += n;
      out = out.subspan(n);
    }
  }
  template <class T>
  T number() {
    T value{};
    read(std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  std::string text(uint64_t most, std::string_view what) {
    const auto length = number<uint64_t>();
    need(length, what);
    if (length > most) fail(str(what, " has ", length, " bytes, more than ", most));
    std::string out(length, '\0');
    read(std::as_writable_bytes(std::span(out)));
    return out;
  }
  void skip(uint64_t bytes) {
    need(bytes, "a value");
    const auto here = static_cast<uint64_t>(filled_ - used_);
    if (bytes <= here) {
      used_ += bytes;
    } else {
      begin_ = position() + static_cast<int64_t>(bytes);
      used_ = filled_ = 0;
    }
  }

 private:
  void refill() {
    begin_ += static_cast<int64_t>(filled_);
    used_ = 0;
    filled_ = static_cast<size_t>(std::min(source_.size - begin_, static_cast<int64_t>(buffer_.size())));
    source_.read(begin_, std::span(buffer_).first(filled_));
  }

  std::string_view file_;
  const ByteSource& source_;
  std::array<std::byte, 1 << 14> buffer_{};
  int64_t begin_ = 0;  // of the buffer, in the file
  size_t used_ = 0, filled_ = 0;
};

class GgufReader {
 public:
  GgufReader(std::string_view file, const ByteSource& source, Entries& entries, FileMetadata& metadata)
      : in_(file, source), size_(source.size), entries_(entries), metadata_(metadata) {}

  void read() {
    const auto [tensors, pairs] = read_counts();
    for (uint64_t i = 0; i < pairs; ++i) read_pair();
    check_split();
    for (uint64_t i = 0; i < tensors; ++i) read_tensor();
    refuse_types();
    place();
  }

 private:
  std::pair<uint64_t, uint64_t> read_counts() {
    in_.skip(kMagic.size());
    const auto version = in_.number<uint32_t>();
    if ((version & 0xffff) == 0) in_.fail("it is a big-endian GGUF file, which is not read here");
    if (version != 2 && version != 3)
      in_.fail(str("GGUF version ", version, " is not read here, 2 and 3 are"));
    const auto tensors = in_.number<uint64_t>(), pairs = in_.number<uint64_t>();
    if (tensors > kMostTensors || pairs > kMostPairs) {
      in_.fail(str("the header claims ", tensors, " tensors and ", pairs,
                   " values; it is damaged: download it again"));
    }
    return {tensors, pairs};
  }

  void read_pair() {
    const std::string key = in_.text(kMostName, "a key");
    const auto type = in_.number<uint32_t>();
    if (type == kList) {
      const bool is_shape = key.starts_with(kShapeKey);
      if (is_shape && !shapes_.try_emplace(key.substr(kShapeKey.size())).second) twice(key);
      read_list(is_shape ? &shapes_[key.substr(kShapeKey.size())] : nullptr, key, 1);
      return;
    }
    if (type == kString) {
      const auto length = peek_text();
      if (length > kMostValueText) return in_.skip(length);
      std::string value(length, '\0');
      in_.read(std::as_writable_bytes(std::span(value)));
      keep(key, std::move(value));
      return;
    }
    keep(key, read_number(key, type));
  }

  uint64_t peek_text() {
    const auto length = in_.number<uint64_t>();
    in_.need(length, "a text");
    return length;
  }

  std::string read_number(const std::string& key, uint32_t type) {
    switch (type) {
      case kU8:
      case kBool:
        return str(static_cast<int>(in_.number<uint8_t>()));
      case kI8:
        return str(static_cast<int>(in_.number<int8_t>()));
      case kU16:
        return str(in_.number<uint16_t>());
      case kI16:
        return str(in_.number<int16_t>());
      case kU32:
        return str(in_.number<uint32_t>());
      case kI32:
        return str(in_.number<int32_t>());
      case kF32:
        return str(in_.number<float>());
      case kU64:
        return str(in_.number<uint64_t>());
      case kI64:
        return str(in_.number<int64_t>());
      case kF64:
        return str(in_.number<double>());
      default:
        in_.fail(str("the value of ", in_quotes(key), " has type ", type, ", which GGUF does not know"));
    }
  }

  // Into `numbers` where it is a list of int32; passed over otherwise.
  void read_list(std::vector<int64_t>* numbers, const std::string& key, int depth) {
    const auto type = in_.number<uint32_t>();
    const auto count = in_.number<uint64_t>();
    if (type >= kValueBytes.size() || depth > kDeepestList) {
      in_.fail(str("the list ", in_quotes(key), " holds values of type ", type, " at depth ", depth));
    }
    if (numbers != nullptr) {
      if (type != kI32 || count > kMostDims) {
        in_.fail(str(in_quotes(key), " must be at most ", kMostDims, " numbers of 32 bits, found ", count,
                     " of type ", type));
      }
      for (uint64_t i = 0; i < count; ++i) numbers->push_back(in_.number<int32_t>());
      return;
    }
    if (const auto bytes = static_cast<uint64_t>(kValueBytes[type]); bytes > 0) {
      if (count > in_.left() / bytes) in_.need(in_.left() + 1, "a list");
      in_.skip(count * bytes);
      return;
    }
    for (uint64_t i = 0; i < count; ++i) {
      if (type == kString) {
        in_.skip(peek_text());
      } else {
        read_list(nullptr, key, depth + 1);
      }
    }
  }

  void keep(const std::string& key, std::string value) {
    if (!metadata_.emplace(key, std::move(value)).second) twice(key);
  }
  [[noreturn]] void twice(const std::string& name) {
    in_.fail(str("the header names ", in_quotes(name), " twice"));
  }

  void check_split() {
    const auto count = metadata_.find("split.count");
    if (count == metadata_.end() || count->second == "0" || count->second == "1") return;
    in_.fail(str("it is one of ", count->second,
                 " parts of a split GGUF file; join them with gguf-split --merge"));
  }

  void read_tensor() {
    const std::string name = in_.text(kMostName, "a tensor's name");
    const auto dims = in_.number<uint32_t>();
    if (dims > kMostDims) in_.fail(str("tensor ", in_quotes(name), " claims ", dims, " dimensions"));
    TensorEntry entry;
    for (uint32_t i = 0; i < dims; ++i) {
      const auto n = in_.number<uint64_t>();
      if (n > static_cast<uint64_t>(INT64_MAX))
        in_.fail(str("tensor ", in_quotes(name), ": a dimension of ", n));
      entry.shape.push_back(static_cast<int64_t>(n));
    }
    const int64_t innermost = entry.shape.empty() ? 1 : entry.shape.front();
    std::reverse(entry.shape.begin(), entry.shape.end());
    const auto type = in_.number<uint32_t>();
    const auto offset = in_.number<uint64_t>();
    const auto dtype = dtype_of(name, type);
    if (!dtype) return;
    entry.dtype = *dtype;
    const auto bytes = checked_bytes(entry.dtype, entry.shape);
    if (!bytes || innermost % block_of(entry.dtype).elements != 0) {
      in_.fail(str("tensor ", in_quotes(name), ": shape ", shape_text(entry.shape), " of ",
                   name_of(entry.dtype), " overflows or does not divide into blocks of ",
                   block_of(entry.dtype).elements));
    }
    if (offset > static_cast<uint64_t>(size_)) {
      in_.fail(str("truncated: tensor ", in_quotes(name), " begins at ", offset, ", the file has ", size_,
                   " bytes; download it again"));
    }
    entry.offset = static_cast<int64_t>(offset);
    entry.bytes = *bytes;
    reshape(name, entry);
    if (!entries_.emplace(name, std::move(entry)).second) twice(name);
  }

  // None: a type that is not read here, noted for refuse_types().
  std::optional<DType> dtype_of(const std::string& name, uint32_t type) {
    const auto row =
        std::find_if(std::begin(kGgufTypes), std::end(kGgufTypes), [&](auto& r) { return r.id == type; });
    if (row == std::end(kGgufTypes)) {
      in_.fail(str("tensor ", in_quotes(name), " has type ", type, ", which is not known here"));
    }
    if (!row->dtype && refused_.empty()) refused_ = row->name;
    refused_count_ += row->dtype ? 0 : 1;
    return row->dtype;
  }

  void refuse_types() {
    if (refused_.empty()) return;
    std::string known;
    for (const auto& row : kGgufTypes) {
      if (row.dtype && !is_integer(*row.dtype)) known += str(known.empty() ? "" : ", ", row.name);
    }
    in_.fail(str(refused_count_, " of its tensors are stored as ", refused_,
                 ", which is not read here; take a file of the same model in one of ", known));
  }

  void reshape(const std::string& name, TensorEntry& entry) {
    const auto asked = shapes_.find(name);
    if (asked == shapes_.end()) return;
    int64_t elements = 1, wanted = 1;
    for (const int64_t n : entry.shape) elements *= n;  // checked before
    for (const int64_t n : asked->second) {
      if (n < 0 || __builtin_mul_overflow(wanted, n, &wanted)) wanted = -1;
      if (wanted < 0) break;
    }
    if (wanted != elements) {
      in_.fail(str("tensor ", in_quotes(name), " of shape ", shape_text(entry.shape),
                   " cannot have the shape ", shape_text(asked->second), " that ", kShapeKey, " gives it"));
    }
    entry.shape = asked->second;
  }

  int64_t alignment() {
    const auto given = metadata_.find("general.alignment");
    if (given == metadata_.end()) return 32;
    uint64_t value = 0;
    for (const char c : given->second) {
      if (c < '0' || c > '9' || value > 1 << 30) in_.fail("general.alignment is no number");
      value = value * 10 + static_cast<uint64_t>(c - '0');
    }
    if (!std::has_single_bit(value)) in_.fail(str("general.alignment is ", value, ", no power of two"));
    return static_cast<int64_t>(value);
  }

  // Offsets from the start of the file, inside it and apart from each other.
  void place() {
    const int64_t align = alignment();
    int64_t begin = in_.position();
    if (__builtin_add_overflow(begin, align - 1, &begin)) in_.fail("general.alignment is too large");
    begin = begin / align * align;
    std::vector<const Entries::value_type*> order;
    for (auto& item : entries_) {
      auto& entry = item.second;
      int64_t end = 0;
      if (__builtin_add_overflow(entry.offset, begin, &entry.offset) ||
          __builtin_add_overflow(entry.offset, entry.bytes, &end) || end > size_) {
        in_.fail(str("truncated: tensor ", in_quotes(item.first), " needs ", entry.bytes, " bytes at ",
                     entry.offset, ", the file has ", size_, "; download it again"));
      }
      if (entry.bytes > 0) order.push_back(&item);
    }
    std::sort(order.begin(), order.end(),
              [](auto* a, auto* b) { return a->second.offset < b->second.offset; });
    for (size_t i = 1; i < order.size(); ++i) {
      const auto& before = order[i - 1]->second;
      if (before.offset + before.bytes > order[i]->second.offset) {
        in_.fail(str("tensors ", in_quotes(order[i - 1]->first), " and ", in_quotes(order[i]->first),
                     " share bytes; the file is damaged: download it again"));
      }
    }
  }

  Cursor in_;
  int64_t size_;
  Entries& entries_;
  FileMetadata& metadata_;
  std::map<std::string, std::vector<int64_t>> shapes_;
  std::string_view refused_;
  int64_t refused_count_ = 0;
};

}  // namespace

bool is_gguf(std::string_view start) {
  return start.starts_with(kMagic);
}

void parse_gguf(std::string_view file, const ByteSource& source, Entries& entries, FileMetadata& metadata) {
  GgufReader(file, source, entries, metadata).read();
}

}  // namespace atelier::weights
