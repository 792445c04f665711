// Lists of rows and requests that may be longer than memory: all but the last megabyte lies in a temporary
// file without a name.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atelier::request {

// Byte strings, one after another.
class Records {
 public:
  Records() = default;
  ~Records();
  Records(Records&& other) noexcept;
  Records& operator=(Records&& other) noexcept;

  // Throws Error(kCapacity) where the temporary folder has no room.
  void add(std::string_view record);
  size_t size() const { return size_; }

  // Reads from record `first` on. The list must stay where it is, and may grow.
  class Cursor {
   public:
    explicit Cursor(const Records& records, size_t first = 0);
    // False behind the last one.
    bool next(std::string& record);

   private:
    void take(char* to, size_t count);

    const Records* records_;
    size_t next_ = 0;     // record
    uint64_t at_ = 0;     // of its first byte
    std::string window_;  // what has been read ahead
    size_t begin_ = 0;    // of what is left of it
  };

 private:
  void write_out();
  size_t read(uint64_t at, char* to, size_t count) const;

  std::string tail_;      // what is not in the file
  uint64_t in_file_ = 0;  // bytes
  int file_ = -1;
  size_t size_ = 0;
  std::vector<uint64_t> marks_;  // where every kStride-th record begins
};

// T: pack(T, std::string& out) appends its bytes, unpack(std::string_view, T&) fills a fresh one.
template <class T>
class Spool {
 public:
  class Iterator {
   public:
    using value_type = T;
    using difference_type = std::ptrdiff_t;
    Iterator(const Records& records, size_t first) : cursor_(records, first) { ++*this; }
    const T& operator*() const { return value_; }
    const T* operator->() const { return &value_; }
    Iterator& operator++() {
      is_over_ = !cursor_.next(bytes_);
      if (!is_over_) unpack(bytes_, value_ = T());
      return *this;
    }
    void operator++(int) { ++*this; }
    bool operator==(std::default_sentinel_t) const { return is_over_; }

   private:
    Records::Cursor cursor_;
    std::string bytes_;
    T value_;
    bool is_over_ = false;
  };

  Spool() = default;
  Spool(std::initializer_list<T> values) { add(values); }
  explicit Spool(const std::vector<T>& values) { add(values); }

  void push_back(const T& value) {
    std::string bytes;
    pack(value, bytes);
    records_.add(bytes);
  }
  size_t size() const { return records_.size(); }
  bool empty() const { return size() == 0; }
  // A copy; first < size().
  T operator[](size_t i) const { return *Iterator(records_, i); }
  T front() const { return (*this)[0]; }
  Iterator from(size_t first) const { return {records_, first}; }
  Iterator begin() const { return from(0); }
  std::default_sentinel_t end() const { return {}; }

  // Those for which keep(value) holds.
  template <class Keep>
  Spool only(const Keep& keep) const {
    Spool out;
    for (const T& value : *this) {
      if (keep(value)) out.push_back(value);
    }
    return out;
  }

 private:
  void add(const auto& values) {
    for (const T& value : values) push_back(value);
  }

  Records records_;
};

}  // namespace atelier::request
