// One byte says which field comes next, its value follows; unset fields take no place.
#include "base/packed_fields.h"

#include <cstring>
#include <type_traits>

#include "base/check.h"

namespace atelier {
namespace {

constexpr int kMostFields = 255;

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  template <class T>
  requires std::is_arithmetic_v<T>
  void put(const T& value) { out_.append(reinterpret_cast<const char*>(&value), sizeof value); }
  void put(const std::string& text) {
    put(static_cast<uint64_t>(text.size()));
    out_ += text;
  }
  void put(const std::filesystem::path& path) { put(path.string()); }
  template <class T>
  void put(const std::vector<T>& values) {
    put(static_cast<uint64_t>(values.size()));
    for (const auto& value : values) put(value);
  }
  template <class T, size_t n>
  void put(const std::array<T, n>& values) {
    for (const auto& value : values) put(value);
  }

  // A field's value behind its number.
  template <class T>
  void field(int number, const T& value) {
    put(static_cast<uint8_t>(number));
    put(value);
  }
  template <class T>
  void field(int number, const std::optional<T>& value) {
    if (value) field(number, *value);
  }

 private:
  std::string& out_;
};

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  bool is_next(int number) const { return !bytes_.empty() && static_cast<uint8_t>(bytes_[0]) == number; }
  bool is_done() const { return bytes_.empty(); }

  template <class T>
  void field(T& value) {
    bytes_.remove_prefix(1);
    get(value);
  }
  template <class T>
  void field(std::optional<T>& value) {
    field(value.emplace());
  }

 private:
  std::string_view take(size_t count) {
    ENSURE(count <= bytes_.size());
    const auto taken = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return taken;
  }
  template <class T>
  requires std::is_arithmetic_v<T>
  void get(T& value) { take(sizeof value).copy(reinterpret_cast<char*>(&value), sizeof value); }
  size_t get_count() {
    uint64_t count = 0;
    get(count);
    return count;
  }
  void get(std::string& text) { text = take(get_count()); }
  void get(std::filesystem::path& path) { path = std::string(take(get_count())); }
  template <class T>
  void get(std::vector<T>& values) {
    values.resize(get_count());
    for (auto& value : values) get(value);
  }
  template <class T, size_t n>
  void get(std::array<T, n>& values) {
    for (auto& value : values) get(value);
  }

  std::string_view bytes_;
};

}  // namespace

void pack_fields(const Fields& fields, std::string& out) {
  Writer writer(out);
  int number = 0;
  fields([&](const Field&, const FieldRef& slot) {
    ENSURE(number < kMostFields);
    std::visit([&](const auto* value) { writer.field(number, *value); }, slot);
    ++number;
  });
}

void unpack_fields(const Fields& fields, std::string_view packed) {
  Reader reader(packed);
  int number = 0;
  fields([&](const Field&, const FieldRef& slot) {
    if (reader.is_next(number)) std::visit([&](auto* value) { reader.field(*value); }, slot);
    ++number;
  });
  ENSURE(reader.is_done());
}

}  // namespace atelier
