// Writes GGUF files byte by byte, right or wrong.
#pragma once
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace atelier::weights {

class GgufBytes {
 public:
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dims;  // innermost first
    uint32_t type = 0;
    std::string bytes;
    int64_t moved = 0;  // added to its offset
  };

  uint32_t version = 3;
  uint64_t align = 32;

  static std::string number(uint64_t value, int bytes) {
    std::string out(static_cast<size_t>(bytes), '\0');
    std::memcpy(out.data(), &value, out.size());
    return out;
  }
  static std::string text(std::string_view value) { return number(value.size(), 8) + std::string(value); }

  // `value` as it stands in the file.
  void pair(std::string_view key, uint32_t type, const std::string& value) {
    pairs_ += text(key) + number(type, 4) + value;
    ++pair_count_;
  }
  void shape(std::string_view tensor, const std::vector<int64_t>& dims) {
    std::string value = number(5, 4) + number(dims.size(), 8);
    for (const int64_t n : dims) value += number(static_cast<uint64_t>(n), 4);
    pair("comfy.gguf.orig_shape." + std::string(tensor), 9, value);
  }
  void add(Tensor tensor) { tensors_.push_back(std::move(tensor)); }

  std::string bytes() const {
    std::string out =
        "GGUF" + number(version, 4) + number(tensors_.size(), 8) + number(pair_count_, 8) + pairs_;
    std::string data;
    for (const auto& t : tensors_) {
      out += text(t.name) + number(t.dims.size(), 4);
      for (const uint64_t n : t.dims) out += number(n, 8);
      out += number(t.type, 4) + number(data.size() + static_cast<uint64_t>(t.moved), 8);
      data += t.bytes;
      data.resize((data.size() + align - 1) / align * align);
    }
    out.resize((out.size() + align - 1) / align * align);
    return out + data;
  }

 private:
  std::string pairs_;
  uint64_t pair_count_ = 0;
  std::vector<Tensor> tensors_;
};

}  // namespace atelier::weights
