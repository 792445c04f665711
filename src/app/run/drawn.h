// Which of a run's pictures are drawn, by name: ten bytes for each, for runs of millions.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace atelier::app {

class DrawnNames {
 public:
  // All of them, before the first add.
  void expect(std::string_view name);
  // How often it is drawn by now. The name is an expected one.
  int add(std::string_view name);
  bool is_expected(std::string_view name) const { return find(name) < names_.size(); }
  bool has(std::string_view name) const;
  int64_t count() const { return count_; }  // drawn at least once

 private:
  size_t find(std::string_view name) const;  // names_.size(): nowhere

  mutable std::vector<uint64_t> names_;  // hashes
  mutable bool is_sorted_ = true;
  std::vector<uint16_t> times_;
  int64_t count_ = 0;
};

}  // namespace atelier::app
